package publication

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
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
)

// fieldMaterial indexes TrustRoots by the Secrets and ConfigMaps that they refer to, as
// "Kind/name".
const fieldMaterial = "spec.material"

// TrustRootReconciler publishes TrustRoots and reports on their repositories.
type TrustRootReconciler struct {
	Client    client.Client
	Publisher *Publisher
	Status    status.Writer
	// Changes wakes the reconciler when the state of a trust root's repositories has changed.
	Changes *requests.Trigger
	Clock   clock.PassiveClock
	// ExpiryWarning is how long before metadata expires condition Expiring says so.
	ExpiryWarning time.Duration
}

// +kubebuilder:rbac:groups=countersign.dev,resources=trustroots,verbs=get;list;watch
// +kubebuilder:rbac:groups=countersign.dev,resources=trustroots/status,verbs=patch
// +kubebuilder:rbac:groups="",namespace=countersign-system,resources=secrets;configmaps,verbs=get;list;watch

// SetupWithManager registers the reconciler, on every replica.
func (r *TrustRootReconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	index := func(o client.Object) []string {
		var names []string
		if tr, ok := o.(*v1alpha1.TrustRoot); ok {
			for _, m := range r.Publisher.Builder.Refers(&tr.Spec) {
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
			r.Publisher.Drop(req.Name)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	root, err := r.Publisher.Publish(ctx, tr)
	if err != nil {
		return ctrl.Result{}, err
	}
	before := tr.DeepCopy()
	held, now := r.Publisher.Tracker.Status(tr.Name), r.Clock.Now()
	tr.Status = statusOf(tr, root, held)
	meta.SetStatusCondition(&tr.Status.Conditions, expiring(tr, held, now, r.ExpiryWarning))
	// No event wakes the reconciler when the time of the last refresh, or an expiry, moves on.
	after := ctrl.Result{RequeueAfter: min(interval(tr), untilChange(held, now, r.ExpiryWarning))}
	err = r.Status.Write(ctx, before, tr, before.Status.Conditions, tr.Status.Conditions)
	if err == nil && before.Status.LastHandledForgetVersions != tr.Status.LastHandledForgetVersions {
		r.Status.Record(tr, corev1.EventTypeWarning, v1alpha1.ReasonVersionsForgotten,
			"the versions seen of every repository start anew, as the annotation "+v1alpha1.AnnotationForgetVersions+
				" asks; what the server offers next is accepted if it is signed")
	}
	return requests.Settle(after, err)
}
