package controllers

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/persist"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// recordPause is between two writes of one record at the least, however much changes.
	recordPause = 2 * time.Second
	// recordCheck is how often the leader looks whether a record is still used.
	recordCheck = time.Hour
	// recordMercy is for how long after it began to lead a replica drops nothing as unused: it may not have heard yet of what runs.
	recordMercy = time.Hour
)

// record is one that is there, as the cache has it: without its data.
type record struct {
	persist.Head
	object *corev1.ConfigMap
	// damaged says that its data is not what it should be.
	damaged bool
}

// keep writes down what is held of a repository where the record says something else, and drops what nothing uses. held is the
// record, which was taken in; nil: there is none. Only the leader calls it.
func (r *RecordReconciler) keep(ctx context.Context, k store.Key, held *record) (ctrl.Result, error) {
	now := r.Clock.Now()
	snapshot := r.Store.Load()
	root, evidence := snapshot.Root(k.Root), snapshot.Verified(k)
	if root == nil || root.Root == nil {
		return ctrl.Result{}, nil
	}
	used := r.Tracker.LastUsed(k)
	if held != nil && held.Used.After(used) {
		used = held.Used
	}
	if used.IsZero() {
		used = now
	}
	if r.forgets(now, used) || held != nil && snapshot.Unsigned(k) {
		return ctrl.Result{}, r.forget(ctx, k, held, evidence)
	}
	if evidence == nil {
		return ctrl.Result{RequeueAfter: recordCheck}, nil
	}
	data, err := root.Root.Pack(evidence)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("packing what was verified of %s: %w", k.Repository, err)
	}
	digest := persist.Digest(data)
	if held != nil && !held.damaged && held.Digest == digest && held.Epoch == root.Epoch && !used.Truncate(24*time.Hour).After(held.Used) {
		return ctrl.Result{RequeueAfter: recordCheck}, nil
	}
	if wait := r.state(k).wrote.Add(recordPause).Sub(now); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	head, parts, err := persist.Encode(r.Namespace, persist.Head{Root: k.Root, UID: root.UID, Repository: k.Repository, Epoch: root.Epoch, Used: used}, data)
	if err != nil { // nothing that a retry would mend
		ctrl.LoggerFrom(ctx).Error(err, "Could not write down what was verified of a repository; a restart will not know of it", "trustRoot", k.Root)
		return ctrl.Result{RequeueAfter: recordCheck}, nil
	}
	err = r.write(ctx, head, parts, held)
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return ctrl.Result{RequeueAfter: conflictRetry}, nil // somebody else wrote; that is taken in first
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("writing down what was verified of %s: %w", k.Repository, err)
	}
	r.note(k, func(s *recordState) { *s = recordState{taken: digest, wrote: now} })
	return ctrl.Result{RequeueAfter: recordCheck}, nil
}

// forgets reports whether what was last used at a time is to be dropped.
func (r *RecordReconciler) forgets(now, used time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leading.IsZero() {
		r.leading = now
	}
	return r.KeepUnused > 0 && now.Sub(used) > r.KeepUnused && now.Sub(r.leading) >= recordMercy
}

// forget deletes a record, and what is held of its repository.
func (r *RecordReconciler) forget(ctx context.Context, k store.Key, held *record, evidence trust.Evidence) error {
	if held != nil {
		preconditions := client.Preconditions{UID: &held.object.UID, ResourceVersion: &held.object.ResourceVersion}
		if err := r.Client.Delete(ctx, held.object, preconditions); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting the record of %s: %w", k.Repository, err)
		}
		if err := r.deleteParts(ctx, held.PartNames()); err != nil {
			return err
		}
		ctrl.LoggerFrom(ctx).Info("Deleted what was written down of a repository", "trustRoot", k.Root, "repository", k.Repository, "lastUsed", held.Used)
	}
	if evidence != nil {
		r.Tracker.Release(k)
	}
	r.drop(k)
	return nil
}

// write puts a record in the place of the one that is held: first its parts, then its head in one write, which fails with a conflict
// where somebody else has written it meanwhile, and at last the parts of the one before go.
func (r *RecordReconciler) write(ctx context.Context, head *corev1.ConfigMap, parts []*corev1.ConfigMap, held *record) error {
	for _, part := range parts {
		if err := r.Client.Create(ctx, part); client.IgnoreAlreadyExists(err) != nil {
			return err
		}
	}
	if held == nil {
		return r.Client.Create(ctx, head)
	}
	head.ResourceVersion = held.object.ResourceVersion
	if err := r.Client.Update(ctx, head); err != nil {
		return err
	}
	now := map[string]bool{}
	for _, part := range parts {
		now[part.Name] = true
	}
	return r.deleteParts(ctx, slices.DeleteFunc(held.PartNames(), func(name string) bool { return now[name] }))
}

func (r *RecordReconciler) deleteParts(ctx context.Context, names []string) error {
	for _, name := range names {
		part := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: name}}
		if err := r.Client.Delete(ctx, part); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting a part of a record: %w", err)
		}
	}
	return nil
}
