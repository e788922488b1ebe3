// Package records keeps the verified evidence of each repository in ConfigMaps, so that it outlasts
// a restart: the leader writes the records, and every replica reads them. A record counts only as
// far as its trust root verifies it again.
//
// Every record that is read goes through restore, and every record that is written through keep.
package records

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/internal/recordmap"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// concurrency is how many records are read or written at the same time.
	concurrency = 4
	// dataMemory bounds the data of the records that are read at the same time, and the data of
	// those that are written, each, in bytes. Most records have a few KiB.
	dataMemory = 32 << 20
)

// Reconciler keeps the verified evidence of each repository in ConfigMaps of the operator's
// namespace. A request is a repository under its trust root.
type Reconciler struct {
	// Client writes ConfigMaps.
	Client client.Client
	// Live reads ConfigMaps from the API server, not from a cache.
	Live client.Reader
	// Heads reads the metadata of ConfigMaps from the Cache, which has no data, so that large
	// records take no more memory than small ones.
	Heads     client.Reader
	Namespace string
	Store     *store.Store
	Tracker   *store.Tracker
	Clock     clock.PassiveClock
	// Elected is closed once this replica leads.
	Elected <-chan struct{}
	// KeepUnused is for how long an unused record is kept; 0: for ever.
	KeepUnused time.Duration
	// Changes wakes the reconciler when the evidence of a subject has changed.
	Changes *Changes

	mu      sync.Mutex
	known   map[trust.Key]state // by repository
	size    int                 // of the data of all known records, in bytes
	leading time.Time           // when this replica first wrote, or had nothing to write
	pace    *rate.Limiter
	// reading and writing limit the data in memory. They are separate because a write waits for
	// pace, and an edit that revokes a key must not wait for that.
	reading, writing *semaphore.Weighted
}

// state is what this replica knows about one record.
type state struct {
	version string // of the record that was last restored or written
	damaged bool   // the data of that version does not have its digest
	refused bool   // the trust root could not use that version
	size    int    // of its data, in bytes
	wrote   time.Time
}

// acquire takes size bytes of a semaphore, reading or writing, and returns how to release them.
func (r *Reconciler) acquire(ctx context.Context, of **semaphore.Weighted, size int64) (release func(), err error) {
	r.mu.Lock()
	if *of == nil {
		*of = semaphore.NewWeighted(dataMemory)
	}
	memory := *of
	r.mu.Unlock()
	size = min(size, dataMemory)
	if err := memory.Acquire(ctx, size); err != nil {
		return nil, fmt.Errorf("waiting for other records to be read or written: %w", err)
	}
	return func() { memory.Release(size) }, nil
}

// +kubebuilder:rbac:groups="",namespace=countersign-system,resources=configmaps,verbs=get;list;watch;create;update;delete

// SetupWithManager registers the reconciler on every replica, and the final flush of the leader.
// heads is the cache that Heads reads.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager, heads cache.Cache) error {
	type object = *metav1.PartialObjectMetadata
	isRecord := func(o object) bool { return o.GetLabels()[recordmap.LabelKind] != "" }
	changed := predicate.NewTypedPredicateFuncs(isRecord)
	// An update that removes the label changes the record, too.
	changed.UpdateFunc = func(e event.TypedUpdateEvent[object]) bool {
		return isRecord(e.ObjectOld) || isRecord(e.ObjectNew)
	}
	repository := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, o object) []trust.Key {
		if k, ok := recordmap.Of(o); ok {
			return []trust.Key{k}
		}
		return nil
	})
	const name = "records"
	err := builder.TypedControllerManagedBy[trust.Key](mgr).
		Named(name).
		WatchesRawSource(source.TypedKind(heads, configMapHead(), repository, changed)).
		WatchesRawSource(r.Changes.trigger.Source()).
		WatchesRawSource(r.onElection()).
		WithLogConstructor(func(k *trust.Key) logr.Logger {
			log := mgr.GetLogger().WithValues("controller", name)
			if k == nil {
				return log
			}
			return withRepository(log, *k)
		}).
		WithOptions(controller.TypedOptions[trust.Key]{
			NeedLeaderElection: ptr.To(false), MaxConcurrentReconciles: concurrency,
		}).
		Complete(r)
	return errors.Join(err, mgr.Add(finalFlush{r}))
}

// withRepository adds a repository to the values of a logger.
func withRepository(log logr.Logger, k trust.Key) logr.Logger {
	return log.WithValues("trustRoot", k.Root, "repository", k.String())
}

// configMapHead returns a ConfigMap of which only the metadata is read.
func configMapHead() *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}}
}

// configMapHeads returns a list of them.
func configMapHeads() *metav1.PartialObjectMetadataList {
	return &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"}}
}

// Changes wakes the reconciler. The zero value is ready for use.
type Changes struct {
	trigger requests.TypedTrigger[trust.Key]
}

// Notify enqueues the repository of a subject whose evidence has changed. It never blocks.
func (c *Changes) Notify(k trust.Key) { c.trigger.Add(k.InRepository()) }

// onElection enqueues, when this replica becomes the leader, every repository with evidence, which
// may have no record yet, and every record, which may be unused.
func (r *Reconciler) onElection() source.TypedSource[trust.Key] {
	type queue = workqueue.TypedRateLimitingInterface[trust.Key]
	return source.TypedFunc[trust.Key](func(ctx context.Context, q queue) error {
		go func() {
			select {
			case <-ctx.Done():
				return
			case <-r.Elected:
			}
			for _, k := range r.Store.Load().Repositories() {
				q.Add(k)
			}
			for _, k := range r.recorded(ctx) {
				q.Add(k)
			}
		}()
		return nil
	})
}

// recorded returns the repositories of the records in the cache. labels narrow them down.
func (r *Reconciler) recorded(ctx context.Context, labels ...client.ListOption) []trust.Key {
	heads := configMapHeads()
	options := append(
		[]client.ListOption{
			client.InNamespace(r.Namespace), client.MatchingLabels{recordmap.LabelKind: recordmap.KindHead},
		}, labels...)
	if err := r.Heads.List(ctx, heads, options...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not list the records")
		return nil
	}
	var all []trust.Key
	for i := range heads.Items {
		if k, ok := recordmap.Of(&heads.Items[i]); ok {
			all = append(all, k)
		}
	}
	return all
}

// update changes the state of a record.
func (r *Reconciler) update(k trust.Key, change func(*state)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[trust.Key]state{}
	}
	s := r.known[k]
	r.size -= s.size
	change(&s)
	r.size += s.size
	r.known[k] = s
}

func (r *Reconciler) state(k trust.Key) state {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known[k]
}

// refused returns the repositories whose records the trust root could not use as it was, in order.
func (r *Reconciler) refused(root string) []trust.Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	var keys []trust.Key
	for k, s := range r.known {
		if k.Root == root && s.refused {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, trust.Key.Compare)
	return keys
}

func (r *Reconciler) drop(k trust.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.size -= r.known[k].size
	delete(r.known, k)
}

// Reconcile restores the record of a repository where it has changed. On the leader it then writes
// the record where the evidence has changed.
func (r *Reconciler) Reconcile(ctx context.Context, k trust.Key) (ctrl.Result, error) {
	return r.sync(ctx, k, writePause)
}

// sync is Reconcile with another pause between two writes of a record.
func (r *Reconciler) sync(ctx context.Context, k trust.Key, pause time.Duration) (ctrl.Result, error) {
	root := r.Store.Load().Root(k.Root)
	if root == nil || root.Verifier == nil {
		r.drop(k)
		return ctrl.Result{}, nil // its publication restores its records
	}
	stored, err := r.current(ctx, k, root)
	if errors.Is(err, store.ErrReplaced) {
		return ctrl.Result{RequeueAfter: requests.ConflictRetry}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	select {
	case <-r.Elected:
		return r.keep(ctx, k, stored, pause)
	default:
		return ctrl.Result{}, nil
	}
}

// record is a record as the cache has it: without its data.
type record struct {
	recordmap.Head
	object  *metav1.PartialObjectMetadata
	damaged bool // so it must be written again
}

// current returns the record of a repository, nil where there is none, and restores it first where
// it has changed.
func (r *Reconciler) current(ctx context.Context, k trust.Key, root *store.Root) (*record, error) {
	m := configMapHead()
	key := client.ObjectKey{Namespace: r.Namespace, Name: recordmap.Name(root.UID, k.Subject)}
	err := r.Heads.Get(ctx, key, m)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // nil is no record
	}
	if err != nil {
		return nil, fmt.Errorf("reading the record of %s: %w", k.Subject, err)
	}
	head, unreadable := recordmap.ReadHead(m)
	if unreadable != nil {
		ctrl.LoggerFrom(ctx).Info("Could not read the head of a record", "configMap", m.Name, "cause",
			unreadable.Error())
		return &record{
			Head:   recordmap.Head{UID: root.UID, Repository: k.Repository, Pulled: k.Pulled, Shared: k.Shared},
			object: m, damaged: true,
		}, nil
	}
	version, err := r.versionOf(ctx, m, head)
	if err != nil {
		return nil, err
	}
	if head.Epoch == root.Epoch && version != r.state(k).version {
		if err := r.restoreChanged(ctx, k, root); err != nil {
			return nil, err
		}
	}
	return &record{Head: head, object: m, damaged: r.state(k).damaged || head.Root != k.Root}, nil
}

// restoreChanged restores the record of a repository under a root that is in use.
func (r *Reconciler) restoreChanged(ctx context.Context, k trust.Key, root *store.Root) error {
	m := &corev1.ConfigMap{}
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: recordmap.Name(root.UID, k.Subject)}, m)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the record of %s: %w", k.Subject, err)
	}
	return r.restore(ctx, k, root.Epoch, m, func(data []byte) error { return r.Tracker.Restore(k, root, data) })
}

// Published must be called once a trust root is in use, with the faults of the records that it
// could not use. It enqueues every record: one may have been written since Saved read them.
func (r *Reconciler) Published(ctx context.Context, tr *v1alpha1.TrustRoot, faults map[trust.Subject]*trust.Fault) {
	for repository, fault := range faults {
		k := trust.Key{Root: tr.Name, Subject: repository}
		r.refuse(ctrl.LoggerInto(ctx, withRepository(ctrl.LoggerFrom(ctx), k)), k, fault)
	}
	for _, k := range r.recorded(ctx, client.MatchingLabels{recordmap.LabelTrustRoot: string(tr.UID)}) {
		r.Changes.trigger.Add(k)
	}
}
