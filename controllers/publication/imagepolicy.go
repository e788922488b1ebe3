package publication

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

// fieldTrustRoots indexes ImagePolicies by the TrustRoots that they name.
const fieldTrustRoots = "spec.trustRoots"

// ImagePolicyReconciler publishes ImagePolicies to the store and reports whether they are in force.
type ImagePolicyReconciler struct {
	Client client.Client
	Store  *store.Store
	Status status.Writer
	// Compliance reports how the workloads that run meet the policies.
	Compliance Compliance
	// Gate reports whether the API server calls the webhook.
	Gate Gate
}

// Compliance reports how the workloads that run meet the policies.
type Compliance interface {
	// Describe sets the compliance in the status of a policy, as far as it is known.
	Describe(p *v1alpha1.ImagePolicy)
	// Changed enqueues each policy whose compliance has changed.
	Changed() source.Source
}

// Gate reports whether the API server calls the webhook.
type Gate interface {
	// Condition returns the condition Gated of a policy.
	Condition(p *v1alpha1.ImagePolicy) metav1.Condition
	// Changed enqueues every policy when that has changed.
	Changed() source.Source
}

// +kubebuilder:rbac:groups=countersign.dev,resources=imagepolicies,verbs=get;list;watch
// +kubebuilder:rbac:groups=countersign.dev,resources=imagepolicies/status,verbs=patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// SetupWithManager registers the reconciler, on every replica.
func (r *ImagePolicyReconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	index := func(o client.Object) []string {
		var names []string
		if p, ok := o.(*v1alpha1.ImagePolicy); ok {
			for _, name := range p.Spec.TrustRoots {
				names = append(names, string(name))
			}
		}
		return names
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.ImagePolicy{}, fieldTrustRoots, index); err != nil {
		return fmt.Errorf("indexing ImagePolicies by TrustRoot: %w", err)
	}
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.ImagePolicy{}).
		Watches(&v1alpha1.TrustRoot{}, handler.EnqueueRequestsFromMapFunc(r.naming)).
		WatchesRawSource(r.Compliance.Changed()).
		WatchesRawSource(r.Gate.Changed()).
		WatchesRawSource(r.Status.OnElection(&v1alpha1.ImagePolicyList{})).
		WithOptions(controller.Options{NeedLeaderElection: ptr.To(false)}).
		Complete(r)
}

// naming returns the policies that name a TrustRoot.
func (r *ImagePolicyReconciler) naming(ctx context.Context, root client.Object) []reconcile.Request {
	return requests.Listed(ctx, r.Client, &v1alpha1.ImagePolicyList{},
		client.MatchingFields{fieldTrustRoots: root.GetName()})
}

// Reconcile publishes one policy and writes its status.
func (r *ImagePolicyReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	p := &v1alpha1.ImagePolicy{}
	if err := r.Client.Get(ctx, req.NamespacedName, p); err != nil {
		if apierrors.IsNotFound(err) {
			r.Store.DropPolicy(req.Name)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	compiled, invalid := policy.Compile(p.Name, &p.Spec)
	if v := status.Version(p); r.Store.Load().PolicyVersion(p.Name) != v {
		r.Store.PutPolicy(compiled, v)
		ctrl.LoggerFrom(ctx).Info("Published a policy", "generation", p.Generation)
	}
	before := p.DeepCopy()
	p.Status.ObservedGeneration = p.Generation
	p.Status.Roles = compiled.Roles()
	p.Status.TrustRoots = compiled.TrustRoots()
	gated := r.Gate.Condition(p)
	ready, err := r.ready(ctx, p, invalid, gated)
	if err != nil {
		return ctrl.Result{}, err
	}
	meta.SetStatusCondition(&p.Status.Conditions, withGate(gated, p, ready))
	meta.SetStatusCondition(&p.Status.Conditions, gated)
	r.Compliance.Describe(p)
	return requests.Settle(ctrl.Result{}, r.Status.Write(ctx, before, p, before.Status.Conditions, p.Status.Conditions))
}

// ready returns the condition Ready of the policy itself, with the consequence of a failure. gated
// only changes that consequence.
func (r *ImagePolicyReconciler) ready(ctx context.Context, p *v1alpha1.ImagePolicy, invalid error,
	gated metav1.Condition) (metav1.Condition, error) {
	follows := "; until this is mended every image that the policy covers is denied"
	if p.Spec.Mode == v1alpha1.ModeWarn || p.Spec.Mode == v1alpha1.ModeAudit {
		follows = fmt.Sprintf(
			"; until this is mended every image that the policy covers fails it, which in mode %s denies nothing",
			p.Spec.Mode)
	}
	if gated.Status == metav1.ConditionFalse {
		follows = "; " + gated.Message
	}
	if invalid != nil {
		return status.Condition(p, v1alpha1.ConditionReady, v1alpha1.ReasonInvalidSpec, fmt.Sprint(invalid, follows),
			false), nil
	}
	for _, name := range p.Spec.TrustRoots {
		fault, err := r.unusable(ctx, string(name))
		if err != nil {
			return metav1.Condition{}, err
		}
		if fault != nil {
			return status.Condition(p, v1alpha1.ConditionReady, fault.Reason, fault.Error()+follows, false), nil
		}
	}
	return status.Condition(p, v1alpha1.ConditionReady, v1alpha1.ReasonInForce, "the policy is in force", true), nil
}

// unusable returns why a trust root cannot be used, nil where it can. This reconciler may see a
// deletion before the store does, and nothing wakes it again. So a trust root that the API server
// no longer has counts as missing. In all other cases the status of the trust root is written after
// the store, and wakes the policy.
func (r *ImagePolicyReconciler) unusable(ctx context.Context, name string) (*trust.Fault, error) {
	err := r.Client.Get(ctx, client.ObjectKey{Name: name}, &v1alpha1.TrustRoot{})
	if apierrors.IsNotFound(err) {
		return trust.NewFault(v1alpha1.ReasonTrustRootNotFound, "TrustRoot %q does not exist", name), nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading TrustRoot %s: %w", name, err)
	}
	if err := r.Store.Load().Usable(name); err != nil {
		return trust.AsFault(err, v1alpha1.ReasonTrustRootNotReady), nil
	}
	return nil, nil
}

// withGate returns the condition Ready of a policy with the condition Gated applied: a policy that
// is not enforced is not Ready.
func withGate(gated metav1.Condition, p *v1alpha1.ImagePolicy, ready metav1.Condition) metav1.Condition {
	asItWas := meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case gated.Status == metav1.ConditionTrue || ready.Status != metav1.ConditionTrue:
		return ready
	case gated.Status == metav1.ConditionUnknown && asItWas:
		return ready
	}
	ready.Status, ready.Reason, ready.Message = gated.Status, gated.Reason, gated.Message
	return ready
}
