// Package status writes what reconcilers observed of an object: its conditions, and the events of
// those that turned. Only the leader writes. The package does not decide what is observed.
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

// MessageBytes bounds the message of a condition, an event or a repository's error.
const MessageBytes = 1000

// Writer writes what reconcilers observed, on the leader only: every replica reconciles, and they
// would write over each other.
type Writer struct {
	Client client.Client
	Events events.EventRecorder
	// Elected is closed once this replica leads.
	Elected <-chan struct{}
}

// Write patches the status of object where it differs from before, and records an event for each
// condition that turned. It is a conflict where the object has changed since before was read.
func (s Writer) Write(ctx context.Context, before, object client.Object, was, is []metav1.Condition) error {
	select {
	case <-s.Elected:
	default:
		return nil
	}
	if equality.Semantic.DeepEqual(before, object) {
		return nil
	}
	// The list of conditions is written as a whole, so what somebody else has added since must not
	// be undone.
	err := s.Client.Status().Patch(ctx, object,
		client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsNotFound(err) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return fmt.Errorf("writing the status of %s: %w", object.GetName(), err)
	}
	// What turned Ready by way of Gated alone is told once, with Gated.
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

// turned reports whether a condition has become what is worth an event. That nothing expires soon,
// or that the gate is in place, is no event where nothing else was known before.
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

// warns reports whether a condition tells of something wrong: of most kinds where it is False.
func warns(c metav1.Condition) bool {
	switch {
	case c.Type == v1alpha1.ConditionExpiring:
		return c.Status == metav1.ConditionTrue
	case c.Type == v1alpha1.ConditionGated && c.Reason == v1alpha1.ReasonWebhookOwnerMissing:
		return true // also while the configurations still stand
	}
	return c.Status == metav1.ConditionFalse
}

// byGate reports whether a policy is not Ready for what the gate lacks, and for nothing of its own.
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

// OnElection enqueues every object of a list when this replica becomes the leader, so that status
// which an earlier leader left behind is brought up to date.
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

// Cut bounds text that may hold what a server said.
func Cut(s string) string { return strings.ToValidUTF8(text.Cut(s, MessageBytes), "?") }

// Version tells one spec from another, also across a deletion and a new creation under the same
// name.
func Version(object client.Object) string {
	return fmt.Sprintf("%s/%d", object.GetUID(), object.GetGeneration())
}

// Count is a number as a status has it.
func Count(n int) int32 { return int32(min(n, math.MaxInt32)) } //nolint:gosec // bounded
