// Package records keeps what was verified of each repository in ConfigMaps, so that a restart knows
// it: the leader writes them, and every replica reads them. A record is believed only as far as its
// trust root verifies it anew.
package records

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/internal/recordmap"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// atOnce is how many records are taken in, or written, at a time.
	atOnce = 4
	// dataMemory bounds the data of the records that are read at a time, and of those that are
	// written, each, in bytes. Most are of a few KiB.
	dataMemory = 32 << 20
)

// Reconciler keeps what was verified of each repository in ConfigMaps of the operator's namespace:
// the leader writes it, and every replica takes in what was written. Its requests have the name of
// the trust root as their namespace, and the repository as their name.
type Reconciler struct {
	// Client writes ConfigMaps, and Live reads them as they are.
	Client client.Client
	Live   client.Reader
	// Heads reads the metadata of ConfigMaps, from a cache that has all of it and none of their
	// data: a start, or a change, takes no more memory for large records than for small ones.
	Heads     client.Reader
	Namespace string
	Store     *store.Store
	Tracker   *store.Tracker
	Clock     clock.PassiveClock
	// Elected is closed once this replica leads.
	Elected <-chan struct{}
	// KeepUnused is for how long a record is kept that nothing uses; 0: for ever.
	KeepUnused time.Duration

	// Changes is told by the store when the evidence of a subject has changed.
	Changes *Changes

	mu      sync.Mutex
	known   map[trust.Key]state
	leading time.Time // when this replica first wrote, or would have
	pace    *rate.Limiter
	// reading and writing limit the data in memory. They are two because a write waits for its
	// pace, and an edit that revokes a key must not wait for that.
	reading, writing *semaphore.Weighted
}

// hold waits until the semaphore, reading or writing, has room for the data of a record. The result
// gives it back.
func (r *Reconciler) hold(ctx context.Context, of **semaphore.Weighted, size int64) (release func(), err error) {
	r.mu.Lock()
	if *of == nil {
		*of = semaphore.NewWeighted(dataMemory)
	}
	room := *of
	r.mu.Unlock()
	size = min(size, dataMemory)
	if err := room.Acquire(ctx, size); err != nil {
		return nil, fmt.Errorf("waiting for other records to be read or written: %w", err)
	}
	return func() { room.Release(size) }, nil
}

// state is what this replica knows of one record.
type state struct {
	taken   string // the version of the record that was last taken in or written
	damaged bool   // that record is not what its digest says
	refused bool   // that record could not be used under the trust root as it was then
	size    int    // of its data, in bytes
	wrote   time.Time
}

// +kubebuilder:rbac:groups="",namespace=countersign-system,resources=configmaps,verbs=get;list;watch;create;update;delete

// SetupWithManager registers the reconciler, on every replica, and on the leader the last writing
// before it ends. heads is the cache that Heads reads.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager, heads cache.Cache) error {
	type object = *metav1.PartialObjectMetadata
	ours := func(o object) bool { return o.GetLabels()[recordmap.LabelKind] != "" }
	changed := predicate.NewTypedPredicateFuncs(ours)
	// a label is soon taken off
	changed.UpdateFunc = func(e event.TypedUpdateEvent[object]) bool { return ours(e.ObjectOld) || ours(e.ObjectNew) }
	owner := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, o object) []reconcile.Request {
		return requestsOf(o)
	})
	err := ctrl.NewControllerManagedBy(mgr).
		Named("records").
		WatchesRawSource(source.Kind(heads, configMapHead(), owner, changed)).
		WatchesRawSource(r.Changes.trigger.Source()).
		WatchesRawSource(r.everything()).
		WithOptions(controller.Options{NeedLeaderElection: ptr.To(false), MaxConcurrentReconciles: atOnce}).
		Complete(r)
	return errors.Join(err, mgr.Add(lastWriting{r}))
}

// configMapHead and configMapHeads are ConfigMaps without their data, to be read.
func configMapHead() *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}}
}

func configMapHeads() *metav1.PartialObjectMetadataList {
	return &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"}}
}

// Changes wakes the reconciler. The zero value is ready for use.
type Changes struct{ trigger requests.Trigger }

// Notify has the repository of a subject looked at whose evidence has changed. It never blocks.
func (c *Changes) Notify(k trust.Key) { c.trigger.Add(recordRequest(k)) }

// recordRequest returns the request of the repository of a subject. No name of a repository has a
// space.
func recordRequest(k trust.Key) reconcile.Request {
	name := k.Repository
	if k.Pulled != "" {
		name += " " + k.Pulled
	}
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: k.Root, Name: name}}
}

// repositoryOf returns the repository that a request is for.
func repositoryOf(req reconcile.Request) trust.Key {
	signed, pulled, _ := strings.Cut(req.Name, " ")
	return trust.Key{Root: req.Namespace, Subject: trust.Subject{Repository: signed, Pulled: pulled}}
}

// requestsOf returns the request of the repository that a ConfigMap is a record of, nothing where
// it is of none.
func requestsOf(m metav1.Object) []reconcile.Request {
	repository, ok := recordmap.Of(m)
	if !ok {
		return nil
	}
	return []reconcile.Request{recordRequest(repository)}
}

// everything enqueues all that is held when this replica becomes the leader, for nothing of it may
// be written down yet, and all that is written down, for nothing of it may be held or used any
// more.
func (r *Reconciler) everything() source.Source {
	return source.Func(func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		go func() {
			select {
			case <-ctx.Done():
				return
			case <-r.Elected:
			}
			for _, k := range r.Store.Load().Repositories() {
				queue.Add(recordRequest(k))
			}
			for _, request := range r.written(ctx) {
				queue.Add(request)
			}
		}()
		return nil
	})
}

// written returns requests for the records that the cache knows of, by further labels.
func (r *Reconciler) written(ctx context.Context, labels ...client.ListOption) []reconcile.Request {
	heads := configMapHeads()
	options := append(
		[]client.ListOption{
			client.InNamespace(r.Namespace), client.MatchingLabels{recordmap.LabelKind: recordmap.KindHead},
		}, labels...)
	if err := r.Heads.List(ctx, heads, options...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not list what was written down")
		return nil
	}
	var requests []reconcile.Request
	for i := range heads.Items {
		requests = append(requests, requestsOf(&heads.Items[i])...)
	}
	return requests
}

func (r *Reconciler) note(k trust.Key, change func(*state)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[trust.Key]state{}
	}
	s := r.known[k]
	change(&s)
	r.known[k] = s
}

func (r *Reconciler) state(k trust.Key) state {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known[k]
}

// refused returns the repositories of a trust root whose records could not be used under it as it
// was.
func (r *Reconciler) refused(root string) []trust.Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	var keys []trust.Key
	for k, s := range r.known {
		if k.Root == root && s.refused {
			keys = append(keys, k)
		}
	}
	return keys
}

// Published tells that a trust root can be used from now on, and which of the records that Saved
// returned could not be. Each record that has come meanwhile is looked at.
func (r *Reconciler) Published(ctx context.Context, tr *v1alpha1.TrustRoot, faults map[trust.Subject]*trust.Fault) {
	for repository := range faults {
		r.note(trust.Key{Root: tr.Name, Subject: repository}, func(s *state) { s.refused = true })
	}
	for _, request := range r.written(ctx, client.MatchingLabels{recordmap.LabelTrustRoot: string(tr.UID)}) {
		r.Changes.trigger.Add(request)
	}
}

func (r *Reconciler) drop(k trust.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, k)
}

// Reconcile takes in the record of a repository where it has changed, and on the leader writes it
// where the evidence has.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	return r.bring(ctx, repositoryOf(req), writePause)
}

// bring does so, with a pause between two writes.
func (r *Reconciler) bring(ctx context.Context, k trust.Key, pause time.Duration) (ctrl.Result, error) {
	root := r.Store.Load().Root(k.Root)
	if root == nil || root.Root == nil {
		r.drop(k)
		return ctrl.Result{}, nil // its records are read before it is published
	}
	m := configMapHead()
	err := r.Heads.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: recordmap.Name(root.UID, k.Subject)}, m)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("reading the record of %s: %w", k.Subject, err)
	}
	var held *record
	if err == nil {
		if held, err = r.current(ctx, k, root, m); errors.Is(err, store.ErrReplaced) {
			return ctrl.Result{RequeueAfter: requests.ConflictRetry}, nil
		}
		if err != nil {
			return ctrl.Result{}, err
		}
	}
	select {
	case <-r.Elected:
		return r.keep(ctx, k, held, pause)
	default:
		return ctrl.Result{}, nil
	}
}

// current returns a record, which is then taken in.
func (r *Reconciler) current(ctx context.Context, k trust.Key, root *store.Root,
	m *metav1.PartialObjectMetadata) (*record, error) {
	head, unreadable := recordmap.ReadHead(m)
	if unreadable != nil {
		ctrl.LoggerFrom(ctx).Info("Could not read what was written down of a repository", "configMap", m.Name, "cause",
			unreadable.Error())
		return &record{
			Head: recordmap.Head{UID: root.UID, Repository: k.Repository, Pulled: k.Pulled}, object: m, damaged: true,
		}, nil
	}
	version, err := r.versionOf(ctx, m, head)
	if err != nil {
		return nil, err
	}
	if head.Epoch == root.Epoch && version != r.state(k).taken {
		if err := r.takeIn(ctx, k, root); err != nil {
			return nil, err
		}
	}
	return &record{Head: head, object: m, damaged: r.state(k).damaged}, nil
}

// takeIn reads a record as it is now and has it verified.
func (r *Reconciler) takeIn(ctx context.Context, k trust.Key, root *store.Root) error {
	m := &corev1.ConfigMap{}
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: recordmap.Name(root.UID, k.Subject)}, m)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the record of %s: %w", k.Subject, err)
	}
	got, err := r.read(ctx, m)
	if err != nil {
		return err
	}
	refused := false
	if got.data != nil && got.Epoch == root.Epoch {
		err := r.Tracker.Restore(k, root, got.data)
		if errors.Is(err, store.ErrReplaced) {
			return err
		}
		if refused = err != nil; refused {
			ctrl.LoggerFrom(ctx).Info("Could not use what was written down of a repository", "repository", k.String(),
				"cause", err.Error())
		}
	}
	r.note(k, func(s *state) {
		s.taken, s.damaged, s.refused, s.size = got.version, got.data == nil, refused, len(got.data)
	})
	return nil
}
