// Package status writes the status that reconcilers computed: conditions, and events for those that
// changed. Only the leader writes. The package computes no condition.
package status

import (
	"context"
	"fmt"
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/internal/text"
)

// MessageBytes bounds the message of a condition, an event or a repository's error, in bytes.
const MessageBytes = 1000

// Writer writes status and events on the leader only: every replica reconciles, and they would
// overwrite each other.
type Writer struct {
	Client client.Client
	Events events.EventRecorder
	// Elected is closed once this replica leads.
	Elected <-chan struct{}
}

// Write patches the status of object where it differs from before, and records an event for each
// condition that changed. The error is a conflict where the object has changed since before was
// read.
func (s Writer) Write(ctx context.Context, before, object client.Object, was, is []metav1.Condition) error {
	select {
	case <-s.Elected:
	default:
		return nil
	}
	if equality.Semantic.DeepEqual(before, object) {
		return nil
	}
	// The patch replaces the whole list of conditions. The lock keeps conditions that another
	// client has added since.
	err := s.Client.Status().Patch(ctx, object,
		client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsNotFound(err) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return fmt.Errorf("writing the status of %s: %w", object.GetName(), err)
	}
	// Where Ready changed only because of Gated, the event of Gated is enough.
	for _, c := range is {
		if !turned(meta.FindStatusCondition(was, c.Type), c) || c.Type == v1alpha1.ConditionReady &&
			(byGate(was) || byGate(is)) {
			continue
		}
		kind := corev1.EventTypeNormal
		if warns(c) {
			kind = corev1.EventTypeWarning
		}
		s.Events.Eventf(object, nil, kind, c.Reason, "Reconcile", "%s", c.Message)
	}
	return nil
}

// turned reports whether a change of a condition deserves an event. A first observation that
// nothing expires soon, or that the gate is in place, does not.
func turned(old *metav1.Condition, c metav1.Condition) bool {
	switch {
	case c.Status == metav1.ConditionUnknown:
		return false
	case c.Type == v1alpha1.ConditionGated && (old == nil || old.Status == metav1.ConditionUnknown):
		return warns(c)
	case old == nil:
		return c.Type != v1alpha1.ConditionExpiring || warns(c)
	}
	return old.Status != c.Status || old.Reason != c.Reason
}

// warns reports whether a condition reports a problem: most types do where they are False.
func warns(c metav1.Condition) bool {
	switch {
	case c.Type == v1alpha1.ConditionExpiring:
		return c.Status == metav1.ConditionTrue
	case c.Type == v1alpha1.ConditionGated && c.Reason == v1alpha1.ReasonWebhookOwnerMissing:
		return true // also while the configurations still exist
	}
	return c.Status == metav1.ConditionFalse
}

// byGate reports whether a policy is not Ready only because of its condition Gated.
func byGate(conditions []metav1.Condition) bool {
	ready, gated := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady), meta.FindStatusCondition(conditions,
		v1alpha1.ConditionGated)
	return ready != nil && gated != nil && gated.Status == metav1.ConditionFalse && ready.Reason == gated.Reason
}

// Record records an event about an object, on the leader only.
func (s Writer) Record(object client.Object, kind, reason, message string) {
	select {
	case <-s.Elected:
		s.Events.Eventf(object, nil, kind, reason, "Reconcile", "%s", Cut(message))
	default:
	}
}

// OnElection enqueues every object of a list when this replica becomes the leader, to update the
// status that an earlier leader wrote.
func (s Writer) OnElection(list client.ObjectList) source.Source {
	return source.Func(func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		go func() {
			select {
			case <-ctx.Done():
				return
			case <-s.Elected:
			}
			for _, request := range requests.Listed(ctx, s.Client, list) {
				queue.Add(request)
			}
		}()
		return nil
	})
}

// Condition returns a condition about the generation of object.
func Condition(object client.Object, kind, reason, message string, ok bool) metav1.Condition {
	status := metav1.ConditionFalse
	if ok {
		status = metav1.ConditionTrue
	}
	return metav1.Condition{
		Type: kind, Status: status, ObservedGeneration: object.GetGeneration(), Reason: reason, Message: Cut(message),
	}
}

// Cut bounds a text that may come from a server.
func Cut(s string) string { return strings.ToValidUTF8(text.Cut(s, MessageBytes), "?") }

// Version identifies one spec of an object. It differs after the object is deleted and created
// again.
func Version(object client.Object) string {
	return fmt.Sprintf("%s/%d", object.GetUID(), object.GetGeneration())
}

// Count converts a number for a status field.
func Count(n int) int32 { return int32(min(n, math.MaxInt32)) } //nolint:gosec // bounded
