package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/persist"
	"github.com/countersign-dev/countersign/internal/store"
)

const (
	// recordsPage is how many records are read from the API server at a time.
	recordsPage = 50
	// recordsAtOnce is how many records are taken in, or written, at a time.
	recordsAtOnce = 4
)

// RecordReconciler keeps what was verified of each repository in ConfigMaps of the operator's namespace: the leader writes it, and
// every replica takes in what was written. Its requests have the name of the trust root as their namespace, and the repository as
// their name.
type RecordReconciler struct {
	// Client reads ConfigMaps from a cache that holds none of the data of records, and writes them; Live reads them as they are.
	Client    client.Client
	Live      client.Reader
	Namespace string
	Store     *store.Store
	Tracker   *store.Tracker
	Clock     clock.PassiveClock
	// Elected is closed once this replica leads.
	Elected <-chan struct{}
	// KeepUnused is for how long a record is kept that nothing uses; 0: for ever.
	KeepUnused time.Duration

	changes Changes
	mu      sync.Mutex
	known   map[store.Key]recordState
	leading time.Time // when this replica first wrote, or would have
}

// recordState is what this replica knows of one record.
type recordState struct {
	taken   string // the digest of the record that was last taken in or written
	damaged bool   // that record is not what its digest says
	wrote   time.Time
}

// +kubebuilder:rbac:groups="",namespace=countersign-system,resources=configmaps,verbs=get;list;watch;create;update;delete

// SetupWithManager registers the reconciler, on every replica.
func (r *RecordReconciler) SetupWithManager(mgr ctrl.Manager) error {
	heads := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetLabels()[persist.LabelKind] == persist.KindHead })
	owner := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		head, err := persist.ReadHead(o)
		if err != nil {
			return nil // nobody looks for it by this name
		}
		return []reconcile.Request{requestForKey(store.Key{Root: head.Root, Repository: head.Repository})}
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named("records").
		Watches(&corev1.ConfigMap{}, owner, builder.WithPredicates(heads)).
		WatchesRawSource(r.changes.source()).
		WatchesRawSource(r.everything()).
		WithOptions(controller.Options{NeedLeaderElection: ptr.To(false), MaxConcurrentReconciles: recordsAtOnce}).
		Complete(r)
}

// Notify has a repository looked at whose evidence has changed. It is for the store to call, and never blocks.
func (r *RecordReconciler) Notify(k store.Key) { r.changes.add(requestForKey(k)) }

func requestForKey(k store.Key) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: k.Root, Name: k.Repository}}
}

// everything enqueues all that is held when this replica becomes the leader: nothing of it may be written down yet.
func (r *RecordReconciler) everything() source.Source {
	return source.Func(func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		go func() {
			select {
			case <-ctx.Done():
				return
			case <-r.Elected:
			}
			for _, k := range r.Store.Load().Keys() {
				queue.Add(requestForKey(k))
			}
		}()
		return nil
	})
}

// Load returns what was written down of a trust root's repositories since the versions seen last started anew, by repository. It asks the
// API server itself: a cache may lag behind. What is damaged is logged and left out.
func (r *RecordReconciler) Load(ctx context.Context, tr *v1alpha1.TrustRoot, epoch string) (map[string][]byte, error) {
	saved := map[string][]byte{}
	heads := &corev1.ConfigMapList{}
	for {
		err := r.Live.List(ctx, heads, client.InNamespace(r.Namespace), client.Limit(recordsPage), client.Continue(heads.Continue),
			client.MatchingLabels{persist.LabelKind: persist.KindHead, persist.LabelTrustRoot: string(tr.UID)})
		if err != nil {
			return nil, fmt.Errorf("listing what was written down of TrustRoot %s: %w", tr.Name, err)
		}
		for i := range heads.Items {
			head, data, err := r.read(ctx, &heads.Items[i])
			if err != nil {
				return nil, err
			}
			k := store.Key{Root: tr.Name, Repository: head.Repository}
			if data == nil || head.Epoch != epoch || head.Root != tr.Name {
				continue
			}
			saved[k.Repository] = data
			r.note(k, func(s *recordState) { s.taken = head.Digest })
		}
		if heads.Continue == "" {
			return saved, nil
		}
	}
}

// read returns a record by its head, without data where it is damaged. The error is one of the API server's.
func (r *RecordReconciler) read(ctx context.Context, m *corev1.ConfigMap) (persist.Head, []byte, error) {
	head, err := persist.ReadHead(m)
	var parts []*corev1.ConfigMap
	for _, name := range head.PartNames() {
		part := &corev1.ConfigMap{}
		got := r.Live.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: name}, part)
		if client.IgnoreNotFound(got) != nil {
			return head, nil, fmt.Errorf("reading a part of record %s: %w", m.Name, got)
		}
		if got == nil {
			parts = append(parts, part)
		}
	}
	var data []byte
	if err == nil {
		data, err = head.Join(m, parts)
	}
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not read what was written down of a repository; it is fetched as at first sight", "configMap", m.Name)
		return head, nil, nil
	}
	return head, data, nil
}

func (r *RecordReconciler) note(k store.Key, change func(*recordState)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[store.Key]recordState{}
	}
	s := r.known[k]
	change(&s)
	r.known[k] = s
}

func (r *RecordReconciler) state(k store.Key) recordState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known[k]
}

func (r *RecordReconciler) drop(k store.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, k)
}

// Reconcile takes in the record of a repository where it has changed, and on the leader writes it where the evidence has.
func (r *RecordReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	k := store.Key{Root: req.Namespace, Repository: req.Name}
	root := r.Store.Load().Root(k.Root)
	if root == nil || root.Root == nil {
		r.drop(k)
		return ctrl.Result{}, nil // its records are read before it is published
	}
	m := &corev1.ConfigMap{}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: persist.Name(root.UID, k.Repository)}, m)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("reading the record of %s: %w", k.Repository, err)
	}
	var held *record
	if err == nil {
		if held, err = r.current(ctx, k, root, m); errors.Is(err, store.ErrReplaced) {
			return ctrl.Result{RequeueAfter: conflictRetry}, nil
		}
		if err != nil {
			return ctrl.Result{}, err
		}
	}
	select {
	case <-r.Elected:
		return r.keep(ctx, k, held)
	default:
		return ctrl.Result{}, nil
	}
}

// current returns a record, which is then taken in.
func (r *RecordReconciler) current(ctx context.Context, k store.Key, root *store.Root, m *corev1.ConfigMap) (*record, error) {
	head, unreadable := persist.ReadHead(m)
	if unreadable != nil {
		ctrl.LoggerFrom(ctx).Info("Could not read what was written down of a repository", "configMap", m.Name, "cause", unreadable.Error())
		return &record{Head: persist.Head{UID: root.UID, Repository: k.Repository}, object: m, damaged: true}, nil
	}
	if head.Epoch == root.Epoch && head.Digest != r.state(k).taken {
		if err := r.takeIn(ctx, k, root); err != nil {
			return nil, err
		}
	}
	return &record{Head: head, object: m, damaged: r.state(k).damaged}, nil
}

// takeIn reads a record as it is now and has it verified.
func (r *RecordReconciler) takeIn(ctx context.Context, k store.Key, root *store.Root) error {
	m := &corev1.ConfigMap{}
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: persist.Name(root.UID, k.Repository)}, m)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the record of %s: %w", k.Repository, err)
	}
	head, data, err := r.read(ctx, m)
	if err != nil {
		return err
	}
	if data != nil && head.Epoch == root.Epoch {
		err := r.Tracker.Restore(k, root, data)
		if errors.Is(err, store.ErrReplaced) {
			return err
		}
		if err != nil {
			ctrl.LoggerFrom(ctx).Info("Could not use what was written down of a repository", "repository", k.Repository, "cause", err.Error())
		}
	}
	r.note(k, func(s *recordState) { s.taken, s.damaged = head.Digest, data == nil })
	return nil
}
