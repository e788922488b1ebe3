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
	// writePause is between two writes of one record at the least, however much changes.
	writePause = 2 * time.Second
	// checkInterval is how often the leader looks whether a record is still used.
	checkInterval = time.Hour
	// mercy is for how long after it began to lead a replica drops nothing as unused: it may not
	// have heard yet of what runs.
	mercy = time.Hour
	// writeRate and writeBurst bound the bytes that are written in a second, and at once, and
	// writeCost is what a write costs besides its data. The API server keeps what was overwritten
	// for some minutes, so that a signing server that changes what it says all the time would fill
	// it.
	writeRate  = 1 << 20
	writeBurst = 32 << 20
	writeCost  = 16 << 10
	// maxRecords bounds all records together, in bytes: a quarter of what etcd holds by default.
	maxRecords = 512 << 20
	// lastWritingTimeout bounds the writing before the end.
	lastWritingTimeout = 5 * time.Second
)

// record is one that is there, as the cache has it: without its data.
type record struct {
	recordmap.Head
	object *metav1.PartialObjectMetadata
	// damaged says that its data is not what it should be.
	damaged bool
}

// says reports whether r, which may be nil, already holds data of this epoch, and the day of the
// last use.
func (r *record) says(data []byte, epoch string, used time.Time) bool {
	return r != nil && !r.damaged && r.Digest == recordmap.Digest(data) && r.Epoch == epoch &&
		!used.Truncate(24*time.Hour).After(r.Used)
}

// lastUse returns the later of the last use that r, which may be nil, holds and tracked. Where
// neither is known it is now.
func (r *record) lastUse(tracked, now time.Time) time.Time {
	if r != nil && r.Used.After(tracked) {
		tracked = r.Used
	}
	if tracked.IsZero() {
		return now
	}
	return tracked
}

// keep writes down what is held of a repository where the record says something else, and drops
// what nothing uses. held is the record, which was taken in; nil: there is none. Only the leader
// calls it.
func (r *Reconciler) keep(ctx context.Context, k trust.Key, held *record, pause time.Duration) (ctrl.Result, error) {
	now := r.Clock.Now()
	snapshot := r.Store.Load()
	root, evidence := snapshot.Root(k.Root), snapshot.Verified(k)
	if root == nil || root.Root == nil {
		return ctrl.Result{}, nil
	}
	used := held.lastUse(r.Tracker.LastUsed(k), now)
	// That a repository carries no signatures undoes a record of before the versions seen started
	// anew, and no other.
	if r.forgets(now, used) || held != nil && held.Epoch != root.Epoch && snapshot.Unsigned(k) {
		return ctrl.Result{}, r.forget(ctx, k, held, evidence)
	}
	later := ctrl.Result{RequeueAfter: checkInterval}
	if evidence == nil {
		return later, nil
	}
	keeper, ok := root.Root.(trust.Keeper)
	if !ok {
		return later, nil
	}
	release, err := r.hold(ctx, &r.writing, sizeOf(evidence))
	if err != nil {
		return ctrl.Result{}, err
	}
	defer release()
	data, err := keeper.Pack(evidence)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("packing what was verified of %s: %w", k.Subject, err)
	}
	if held.says(data, root.Epoch, used) {
		return later, r.sweep(ctx, held.Head, nil)
	}
	if due := r.state(k).wrote.Add(pause).Sub(now); due > 0 {
		return ctrl.Result{RequeueAfter: due}, nil
	}
	named := recordmap.Head{
		Root: k.Root, UID: root.UID, Repository: k.Repository, Pulled: k.Pulled, Epoch: root.Epoch, Used: used,
	}
	head, parts, err := recordmap.Encode(r.Namespace, named, data)
	if err == nil {
		err = r.fits(k, len(data))
	}
	if err != nil { // nothing that a retry would mend
		ctrl.LoggerFrom(ctx).Error(err,
			"Could not write down what was verified of a repository; a restart will not know of it", "trustRoot",
			k.Root)
		return later, nil
	}
	if err := r.limiter().WaitN(ctx, writeCost+len(data)); err != nil {
		return ctrl.Result{}, fmt.Errorf("waiting to write down what was verified of %s: %w", k.Subject, err)
	}
	err = r.write(ctx, head, parts, held)
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return ctrl.Result{RequeueAfter: requests.ConflictRetry}, nil // somebody else wrote; that is taken in first
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("writing down what was verified of %s: %w", k.Subject, err)
	}
	r.note(k, func(s *state) {
		*s = state{taken: recordVersion(head, inOrder(parts)), size: len(data), wrote: now}
	})
	return later, nil
}

// sizeOf is how much memory evidence takes up, in bytes.
func sizeOf(evidence map[trust.Subject]trust.Evidence) int64 {
	size := int64(0)
	for _, e := range evidence {
		if sized, ok := e.(trust.Sized); ok {
			size += sized.Size()
		}
	}
	return size
}

// limiter paces the writes of the leader.
func (r *Reconciler) limiter() *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pace == nil {
		r.pace = rate.NewLimiter(writeRate, writeBurst)
	}
	return r.pace
}

// fits refuses a record with which all would take up more than they may.
func (r *Reconciler) fits(k trust.Key, size int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for other, s := range r.known {
		if other != k {
			size += s.size
		}
	}
	if size > maxRecords {
		return fmt.Errorf("%s: with it, %d bytes would be written down, more than the %d that are", k.Subject, size,
			maxRecords)
	}
	return nil
}

// forgets reports whether what was last used at a time is to be dropped.
func (r *Reconciler) forgets(now, used time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leading.IsZero() {
		r.leading = now
	}
	return r.KeepUnused > 0 && now.Sub(used) > r.KeepUnused && now.Sub(r.leading) >= mercy
}

// forget deletes a record, and what is held of its repository.
func (r *Reconciler) forget(ctx context.Context, k trust.Key, held *record,
	evidence map[trust.Subject]trust.Evidence) error {
	if held != nil {
		preconditions := client.Preconditions{UID: &held.object.UID, ResourceVersion: &held.object.ResourceVersion}
		if err := r.Client.Delete(ctx, held.object, preconditions); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting the record of %s: %w", k.Subject, err)
		}
		if err := r.sweep(ctx, recordmap.Head{UID: held.UID, Repository: held.Repository, Pulled: held.Pulled},
			held.PartNames()); err != nil {
			return err
		}
		ctrl.LoggerFrom(ctx).Info("Deleted what was written down of a repository", "trustRoot", k.Root, "repository",
			k.String(), "lastUsed", held.Used)
	}
	if evidence != nil {
		r.Tracker.Release(k)
	}
	r.drop(k)
	return nil
}

// write puts a record in the place of the one that is held: first its parts, then its head in one
// write, which fails with a conflict where somebody else has written it meanwhile, and at last the
// parts of the one before go.
func (r *Reconciler) write(ctx context.Context, head *corev1.ConfigMap, parts []*corev1.ConfigMap, held *record) error {
	for _, part := range parts {
		err := r.Client.Create(ctx, part)
		if apierrors.IsAlreadyExists(err) {
			err = r.Client.Update(ctx, part) // its name is of what it must hold, which somebody may have changed
		}
		if err != nil {
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
	written, err := recordmap.ReadHead(head)
	if err != nil {
		return err
	}
	return r.sweep(ctx, written, held.PartNames())
}

// sweep deletes the parts of a record that its head does not name: those that were named before,
// and those that were left behind by a replica that ended, or was overtaken, before it wrote the
// head that they were for.
func (r *Reconciler) sweep(ctx context.Context, head recordmap.Head, before []string) error {
	parts := configMapHeads()
	err := r.Heads.List(ctx, parts, client.InNamespace(r.Namespace),
		client.MatchingLabels{recordmap.LabelKind: recordmap.KindPart, recordmap.LabelTrustRoot: string(head.UID)})
	if err != nil {
		return fmt.Errorf("listing the parts of records: %w", err)
	}
	old := r.Clock.Now().Add(-mercy)
	gone := slices.Clone(before)
	for i := range parts.Items {
		part := &parts.Items[i]
		// a younger one may be waiting for its head
		if head.Owns(part.Name) && part.CreationTimestamp.Time.Before(old) {
			gone = append(gone, part.Name)
		}
	}
	named := head.PartNames()
	for _, name := range gone {
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

// lastWriting has the leader write down, before it gives way to the next, what it has verified
// since its last writes.
type lastWriting struct{ *Reconciler }

// Start implements manager.Runnable.
func (l lastWriting) Start(ctx context.Context) error {
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWritingTimeout)
	defer cancel()
	l.flush(ctx)
	return nil
}

// flush writes down whatever is held and is not written down yet, without the pause between two
// writes.
func (r *Reconciler) flush(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, k := range r.Store.Load().Repositories() {
		g.Go(func() error {
			return wait.PollUntilContextCancel(ctx, requests.ConflictRetry, true,
				func(ctx context.Context) (bool, error) {
					result, err := r.bring(ctx, k, 0)
					return result.RequeueAfter != requests.ConflictRetry, err
				})
		})
	}
	if err := g.Wait(); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not write down all that was verified before the end")
	}
}
