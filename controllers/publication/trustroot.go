package publication

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

// fieldMaterial indexes TrustRoots by the Secrets and ConfigMaps that they refer to, as
// "Kind/name".
const fieldMaterial = "spec.material"

// mostErrors is how many failing repositories the status lists.
const mostErrors = 10

// mostUnanchored is how many pinned keys the status names that no root carries.
const mostUnanchored = 3

// mostEpoch is how long a value of the annotation can be that the status shows as it is.
const mostEpoch = 128

// TrustRootReconciler publishes TrustRoots to the store and reports on the repositories under them.
type TrustRootReconciler struct {
	Client  client.Client
	Store   *store.Store
	Tracker *store.Tracker
	Status  status.Writer
	Builder RootBuilder
	// Changes is told by the tracker when the state of a trust root's repositories has changed.
	Changes *requests.Trigger
	// Records reads what was written down of a trust root's repositories.
	Records Records
	// Clock tells when metadata expires, and ExpiryWarning is how long before then condition
	// Expiring says so.
	Clock         clock.PassiveClock
	ExpiryWarning time.Duration
}

// Records reads what was written down of repositories.
type Records interface {
	// Saved returns what a trust root is to know before next is published in the place of
	// published, which is nil where none is.
	Saved(ctx context.Context, tr *v1alpha1.TrustRoot, published, next *store.Root) store.Saved
	// Published tells that the trust root can be used from now on, and which records could not be.
	Published(ctx context.Context, tr *v1alpha1.TrustRoot, faults map[trust.Subject]*trust.Fault)
}

// +kubebuilder:rbac:groups=countersign.dev,resources=trustroots,verbs=get;list;watch
// +kubebuilder:rbac:groups=countersign.dev,resources=trustroots/status,verbs=patch
// +kubebuilder:rbac:groups="",namespace=countersign-system,resources=secrets;configmaps,verbs=get;list;watch

// SetupWithManager registers the reconciler, on every replica.
func (r *TrustRootReconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	index := func(o client.Object) []string {
		var names []string
		if tr, ok := o.(*v1alpha1.TrustRoot); ok {
			for _, m := range r.Builder.refers(&tr.Spec) {
				names = append(names, m.Kind+"/"+string(m.Name))
			}
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.TrustRoot{}, fieldMaterial, index); err != nil {
		return fmt.Errorf("indexing TrustRoots by key material: %w", err)
	}
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.TrustRoot{}).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.referringTo("Secret"))).
		Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(r.referringTo("ConfigMap"))).
		WatchesRawSource(r.Changes.Source()).
		WatchesRawSource(r.Status.OnElection(&v1alpha1.TrustRootList{})).
		WithOptions(controller.Options{NeedLeaderElection: ptr.To(false)}).
		Complete(r)
}

// referringTo maps an object of a kind to the TrustRoots that refer to it.
func (r *TrustRootReconciler) referringTo(kind string) handler.MapFunc {
	return func(ctx context.Context, o client.Object) []reconcile.Request {
		return requests.Listed(ctx, r.Client, &v1alpha1.TrustRootList{},
			client.MatchingFields{fieldMaterial: kind + "/" + o.GetName()})
	}
}

// Reconcile publishes one trust root and writes its status.
func (r *TrustRootReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	tr := &v1alpha1.TrustRoot{}
	if err := r.Client.Get(ctx, req.NamespacedName, tr); err != nil {
		if apierrors.IsNotFound(err) {
			r.Store.DropRoot(req.Name)
			r.Tracker.Forget(req.Name)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	root, err := r.publish(ctx, tr)
	if err != nil {
		return ctrl.Result{}, err
	}
	before := tr.DeepCopy()
	held, now := r.Tracker.Status(tr.Name), r.Clock.Now()
	tr.Status = statusOf(tr, root, held)
	meta.SetStatusCondition(&tr.Status.Conditions, expiring(tr, held, now, r.ExpiryWarning))
	// The time of the last refresh moves on without an event, and so do expiry and its warning.
	after := ctrl.Result{RequeueAfter: min(interval(tr), untilTurn(held, now, r.ExpiryWarning))}
	err = r.Status.Write(ctx, before, tr, before.Status.Conditions, tr.Status.Conditions)
	if err == nil && before.Status.LastHandledForgetVersions != tr.Status.LastHandledForgetVersions {
		r.Status.Record(tr, corev1.EventTypeWarning, v1alpha1.ReasonVersionsForgotten,
			"the versions seen of every repository start anew, as the annotation "+v1alpha1.AnnotationForgetVersions+
				" asks; what the server offers next is accepted if it is signed")
	}
	return requests.Settle(after, err)
}

// publish puts the trust root into the store unless the same is there already. The error is one of
// the API server's, to be tried again; what is wrong with the trust root itself is in the result.
func (r *TrustRootReconciler) publish(ctx context.Context, tr *v1alpha1.TrustRoot) (*store.Root, error) {
	material, err := r.Builder.gather(ctx, tr)
	fault, wrong := errors.AsType[*trust.Fault](err)
	if err != nil && !wrong {
		return nil, err
	}
	epoch := epochOf(tr)
	v := fmt.Sprintf("%s/%s/%q", status.Version(tr), materialHash(material, fault), epoch)
	published := r.Store.Load().Root(tr.Name)
	if published != nil && published.Version == v {
		return published, nil
	}
	root := r.Builder.faulty(tr, fault)
	if !wrong {
		root = r.Builder.build(tr, material)
	}
	root.Version, root.UID, root.Epoch = v, tr.UID, epoch
	if published != nil && published.UID != root.UID {
		r.Store.DropRoot(tr.Name) // made anew under its name: it has nothing of the one before
		r.Tracker.Forget(tr.Name)
		published = nil
	}
	faults, err := r.Store.PutRootWith(tr.Name, root, r.Records.Saved(ctx, tr, published, &root),
		func() bool { return r.outdated(ctx, tr) })
	if err != nil {
		return nil, err
	}
	for repository, fault := range faults {
		ctrl.LoggerFrom(ctx).Info("Could not use what was written down of a repository", "repository",
			repository.String(), "reason", fault.Reason, "cause", fault.Error())
	}
	r.Records.Published(ctx, tr, faults)
	r.Tracker.Reset(tr.Name, interval(tr))
	ctrl.LoggerFrom(ctx).Info("Published a trust root", "generation", tr.Generation, "ready", root.Fault == nil)
	return &root, nil
}

// outdated reports whether a trust root has been edited or deleted since it was read, or this
// replica ends.
func (r *TrustRootReconciler) outdated(ctx context.Context, tr *v1alpha1.TrustRoot) bool {
	now := &v1alpha1.TrustRoot{}
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(tr), now)
	return ctx.Err() != nil || apierrors.IsNotFound(err) || err == nil && status.Version(now) != status.Version(tr)
}

// epochOf tells when the versions seen last started anew: by the value of the annotation, also once
// it was taken away again.
func epochOf(tr *v1alpha1.TrustRoot) string {
	asked := tr.Annotations[v1alpha1.AnnotationForgetVersions]
	switch {
	case asked == "":
		return tr.Status.LastHandledForgetVersions
	case len(asked) > mostEpoch || !utf8.ValidString(asked):
		sum := sha256.Sum256([]byte(asked))
		return hex.EncodeToString(sum[:])
	}
	return asked
}

func interval(tr *v1alpha1.TrustRoot) time.Duration {
	return cmp.Or(tr.Spec.RefreshInterval.Duration, 5*time.Minute)
}

// statusOf computes the whole status from what was built and what the tracker knows.
func statusOf(tr *v1alpha1.TrustRoot, root *store.Root, held store.Status) v1alpha1.TrustRootStatus {
	s := *tr.Status.DeepCopy()
	s.ObservedGeneration, s.Format, s.RootFingerprints = tr.Generation, root.Format, root.Fingerprints
	s.LastHandledForgetVersions = root.Epoch
	if fault := root.Fault; fault != nil {
		meta.SetStatusCondition(&s.Conditions,
			status.Condition(tr, v1alpha1.ConditionReady, fault.Reason, fault.Error(), false))
	} else {
		meta.SetStatusCondition(&s.Conditions,
			status.Condition(tr, v1alpha1.ConditionReady, v1alpha1.ReasonPinned, pinnedMessage(root, held), true))
	}
	meta.SetStatusCondition(&s.Conditions, fresh(tr, root, held))
	s.Repositories = &v1alpha1.RepositoryStatus{
		Tracked: status.Count(held.Tracked), Failing: status.Count(held.Failing),
	}
	for _, f := range held.Faults[:min(len(held.Faults), mostErrors)] {
		s.Repositories.Errors = append(s.Repositories.Errors,
			v1alpha1.RepositoryError{
				Repository: status.Cut(f.Repository), Reason: f.Fault.Reason, Message: status.Cut(f.Fault.Error()),
			})
	}
	s.Expires, s.ExpiresFirst = "", status.Cut(held.ExpiresFirst)
	if !held.Expires.IsZero() {
		s.Expires = held.Expires.UTC().Format(time.RFC3339)
	}
	if !held.Succeeded.IsZero() {
		s.LastRefreshTime = ptr.To(metav1.NewTime(held.Succeeded.Truncate(time.Second)))
	}
	return s
}

// pinnedMessage is that of a trust root that is Ready, with what of its material does not count,
// and which of its pins were of no use so far.
func pinnedMessage(root *store.Root, held store.Status) string {
	parts := append([]string{"signatures are checked against the pinned root"}, root.Notes...)
	if unseen := len(held.Unanchored); unseen > 0 {
		parts = append(parts,
			fmt.Sprintf(
				"no root in use carries the pinned key %s: compare it with 'docker trust inspect', unless it is of a "+
					"repository that was not asked for yet, or from before or after a rotation of the root",
				strings.Join(held.Unanchored[:min(unseen, mostUnanchored)], ", ")))
		if more := unseen - mostUnanchored; more > 0 {
			parts[len(parts)-1] += fmt.Sprintf(" (and %d more)", more)
		}
	}
	return strings.Join(parts, "; ")
}

// fresh says whether the server answers and every repository was brought up to date.
func fresh(tr *v1alpha1.TrustRoot, root *store.Root, held store.Status) metav1.Condition {
	state := func(reason, message string, ok bool) metav1.Condition {
		return status.Condition(tr, v1alpha1.ConditionFresh, reason, message, ok)
	}
	until := ""
	switch {
	case held.InGrace > 0:
		until = fmt.Sprintf(
			"; %d repositories have expired and are in grace (spec.expiredGrace), the first of them until %s",
			held.InGrace, held.GraceEnds.UTC().Format(time.RFC3339))
	case !held.Expires.IsZero():
		until = "; decisions go on from what was verified, until " + held.Expires.UTC().Format(time.RFC3339)
	}
	switch {
	case root.Fault != nil:
		return state(v1alpha1.ReasonTrustRootNotReady,
			"nothing is refreshed while the trust root is not Ready: "+root.Fault.Error(), false)
	case !held.Probed && held.Tracked == 0:
		c := state(v1alpha1.ReasonNotAskedYet, "the server has not answered yet", false)
		c.Status = metav1.ConditionUnknown
		return c
	case held.Server != nil:
		return state(held.Server.Reason, held.Server.Error()+until, false)
	case held.Failing > 0:
		f := held.Faults[0]
		return state(f.Fault.Reason,
			fmt.Sprintf("%d of %d repositories could not be refreshed; the first: %s%s", held.Failing, held.Tracked,
				f.Fault.Error(), until), false)
	case held.Tracked == 0:
		return state(v1alpha1.ReasonNothingTracked, "no image under this trust root has been asked for yet", true)
	}
	return state(v1alpha1.ReasonRefreshed, fmt.Sprintf("repositories up to date: %d", held.Tracked), true)
}
