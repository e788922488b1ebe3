package records

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/internal/recordmap"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// writePause is the least time between two writes of one record.
	writePause = 2 * time.Second
	// checkInterval is how often the leader checks whether a record is still used.
	checkInterval = time.Hour
	// mercy is for how long a new leader deletes nothing as unused: it may not know yet what runs.
	mercy = time.Hour
	// writeRate and writeBurst bound the bytes written per second and at once; writeCost is added
	// for each write. The API server keeps what was overwritten for some minutes, so a signing
	// server that publishes all the time would fill it.
	writeRate  = 1 << 20
	writeBurst = 32 << 20
	writeCost  = 16 << 10
	// maxRecords bounds all records together, in bytes: a quarter of the default quota of etcd.
	maxRecords = 512 << 20
	// flushTimeout bounds the final flush of a leader.
	flushTimeout = 5 * time.Second
)

// matches reports whether r, which may be nil, holds data of this epoch and the day of the last
// use.
func (r *record) matches(data []byte, epoch string, used time.Time) bool {
	return r != nil && !r.damaged && r.Digest == recordmap.Digest(data) && r.Epoch == epoch &&
		!used.Truncate(24*time.Hour).After(r.Used)
}

// lastUse returns the later of tracked and the last use in r, which may be nil; now where neither
// is known.
func (r *record) lastUse(tracked, now time.Time) time.Time {
	if r != nil && r.Used.After(tracked) {
		tracked = r.Used
	}
	if tracked.IsZero() {
		return now
	}
	return tracked
}

// keep writes the record of a repository where it differs from the evidence, and deletes it where
// it is unused. It is the only way from the store into a ConfigMap. stored is the record, which
// must have been restored; nil: there is none. Only the leader calls keep.
func (r *Reconciler) keep(ctx context.Context, k trust.Key, stored *record, pause time.Duration) (ctrl.Result, error) {
	now, snapshot := r.Clock.Now(), r.Store.Load()
	root, evidence := snapshot.Root(k.Root), snapshot.Verified(k)
	if root == nil || root.Verifier == nil {
		return ctrl.Result{}, nil
	}
	used := stored.lastUse(r.Tracker.LastUsed(k), now)
	// A repository without signatures deletes the record of an earlier epoch only. Within an epoch
	// the signing server cannot make the versions seen go away.
	if r.forgets(now, used) || stored != nil && stored.Epoch != root.Epoch && snapshot.Unsigned(k) {
		return requests.Settle(ctrl.Result{}, r.forget(ctx, k, stored, evidence))
	}
	later := ctrl.Result{RequeueAfter: checkInterval}
	keeper, ok := root.Verifier.(trust.Keeper)
	switch {
	case !ok || evidence == nil:
		return later, nil
	case len(evidence) == 0: // a restart must not revive what a fault has ended
		return requests.Settle(later, r.forget(ctx, k, stored, nil))
	}
	release, err := r.acquire(ctx, &r.writing, sizeOf(evidence))
	if err != nil {
		return ctrl.Result{}, err
	}
	defer release()
	data, err := keeper.Pack(evidence)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("packing the evidence of %s: %w", k.Subject, err)
	}
	if stored.matches(data, root.Epoch, used) {
		return later, r.sweep(ctx, stored.Head, nil)
	}
	if due := r.state(k).wrote.Add(pause).Sub(now); due > 0 {
		return ctrl.Result{RequeueAfter: due}, nil
	}
	head := recordmap.Head{
		Root: k.Root, UID: root.UID, Repository: k.Repository, Pulled: k.Pulled, Shared: k.Shared,
		Epoch: root.Epoch, Used: used,
	}
	// After a conflict the record of the other replica is restored first.
	return requests.Settle(later, r.replace(ctx, k, head, data, stored))
}

// replace writes a record at the permitted rate. A record that is too large is logged and not
// written: a retry would not help.
func (r *Reconciler) replace(ctx context.Context, k trust.Key, h recordmap.Head, data []byte, stored *record) error {
	head, parts, err := recordmap.Encode(r.Namespace, h, data)
	if err == nil {
		err = r.fits(k, len(data))
	}
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not write a record; a restart will not know its repository")
		return nil
	}
	if err := r.limiter().WaitN(ctx, writeCost+len(data)); err != nil {
		return fmt.Errorf("waiting to write the record of %s: %w", k.Subject, err)
	}
	now := r.Clock.Now()
	if err := r.write(ctx, head, parts, stored); err != nil {
		return fmt.Errorf("writing the record of %s: %w", k.Subject, err)
	}
	r.update(k, func(s *state) {
		*s = state{version: recordVersion(head, objects(parts)), size: len(data), wrote: now}
	})
	return nil
}

// sizeOf returns the memory that evidence takes up, in bytes.
func sizeOf(evidence map[trust.Subject]trust.Evidence) int64 {
	size := int64(0)
	for _, e := range evidence {
		if sized, ok := e.(trust.Sized); ok {
			size += sized.Size()
		}
	}
	return size
}

// limiter returns the rate limiter of the leader's writes.
func (r *Reconciler) limiter() *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pace == nil {
		r.pace = rate.NewLimiter(writeRate, writeBurst)
	}
	return r.pace
}

// fits returns an error where all records together would exceed maxRecords with data of this size.
func (r *Reconciler) fits(k trust.Key, size int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if size += r.size - r.known[k].size; size > maxRecords {
		return fmt.Errorf("%s: all records together would have %d bytes, at most %d are written", k.Subject, size,
			maxRecords)
	}
	return nil
}

// forgets reports whether a record that was last used at a time is to be deleted.
func (r *Reconciler) forgets(now, used time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leading.IsZero() {
		r.leading = now
	}
	return r.KeepUnused > 0 && now.Sub(used) > r.KeepUnused && now.Sub(r.leading) >= mercy
}

// forget deletes a record, and releases the evidence of its repository.
func (r *Reconciler) forget(ctx context.Context, k trust.Key, stored *record,
	evidence map[trust.Subject]trust.Evidence) error {
	if stored != nil {
		preconditions := client.Preconditions{UID: &stored.object.UID, ResourceVersion: &stored.object.ResourceVersion}
		if err := r.Client.Delete(ctx, stored.object, preconditions); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting the record of %s: %w", k.Subject, err)
		}
		none := recordmap.Head{
			UID: stored.UID, Repository: stored.Repository, Pulled: stored.Pulled, Shared: stored.Shared,
		}
		if err := r.sweep(ctx, none, stored.PartNames()); err != nil {
			return err
		}
		ctrl.LoggerFrom(ctx).Info("Deleted the record of a repository", "lastUsed", stored.Used)
	}
	if evidence != nil {
		r.Tracker.Release(k)
	}
	r.drop(k)
	return nil
}

// write replaces a record: it writes the parts, then the head, then deletes the old parts. The
// write of the head is a conflict where another replica has written it meanwhile.
func (r *Reconciler) write(ctx context.Context, head *corev1.ConfigMap, parts []*corev1.ConfigMap,
	stored *record) error {
	for _, part := range parts {
		err := r.Client.Create(ctx, part)
		if apierrors.IsAlreadyExists(err) {
			err = r.Client.Update(ctx, part) // the name is made from the digest, but the data may be damaged
		}
		if err != nil {
			return err
		}
	}
	if stored == nil {
		return r.Client.Create(ctx, head)
	}
	head.ResourceVersion = stored.object.ResourceVersion
	if err := r.Client.Update(ctx, head); err != nil {
		return err
	}
	written, err := recordmap.ReadHead(head)
	if err != nil {
		return err
	}
	return r.sweep(ctx, written, stored.PartNames())
}

// sweep deletes the parts of a record that its head does not name: the parts of the record before,
// and parts whose replica ended, or met a conflict, before it wrote their head.
func (r *Reconciler) sweep(ctx context.Context, head recordmap.Head, before []string) error {
	parts := configMapHeads()
	err := r.Heads.List(ctx, parts, client.InNamespace(r.Namespace),
		client.MatchingFields{fieldHead: recordmap.Name(head.UID, head.Key().Subject)},
		client.MatchingLabels{recordmap.LabelKind: recordmap.KindPart, recordmap.LabelTrustRoot: string(head.UID)})
	if err != nil {
		return fmt.Errorf("listing the parts of a record: %w", err)
	}
	old := r.Clock.Now().Add(-mercy)
	unnamed := slices.Clone(before)
	for i := range parts.Items {
		part := &parts.Items[i]
		// A younger part may be waiting for its head.
		if head.Owns(part.Name) && part.CreationTimestamp.Time.Before(old) {
			unnamed = append(unnamed, part.Name)
		}
	}
	named := head.PartNames()
	for _, name := range unnamed {
		if slices.Contains(named, name) {
			continue
		}
		part := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: name}}
		if err := r.Client.Delete(ctx, part); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting a part of a record: %w", err)
		}
	}
	return nil
}

// finalFlush is the flush of a leader that ends.
type finalFlush struct{ *Reconciler }

// Start implements manager.Runnable.
func (f finalFlush) Start(ctx context.Context) error {
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	f.flush(ctx)
	return nil
}

// flush writes all evidence that is not recorded yet, without the pause between two writes.
func (r *Reconciler) flush(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(concurrency)
	for _, k := range r.Store.Load().Repositories() {
		g.Go(func() error {
			ctx := ctrl.LoggerInto(ctx, withRepository(ctrl.LoggerFrom(ctx), k))
			return wait.PollUntilContextCancel(ctx, requests.ConflictRetry, true,
				func(ctx context.Context) (bool, error) {
					result, err := r.sync(ctx, k, 0)
					return result.RequeueAfter != requests.ConflictRetry, err
				})
		})
	}
	if err := g.Wait(); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not write all records before the end")
	}
}
