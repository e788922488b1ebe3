// Package certificate makes every replica serve the certificate in the Secret, or a mounted one. It
// makes no certificate: internal/certs does.
package certificate

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/countersign-dev/countersign/internal/certs"
)

// Reconciler makes a replica serve the certificate in the Secret, without a restart. It writes
// nothing: the leader does, when it calls Own.CABundle for the webhook configurations.
type Reconciler struct {
	Client      client.Reader
	Certificate *certs.Own
}

// SetupWithManager registers the reconciler, on every replica.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	ours := predicate.NewPredicateFuncs(func(o client.Object) bool {
		return o.GetName() == certs.SecretName && o.GetNamespace() == r.Certificate.Namespace
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named("servingcertificate").
		For(&corev1.Secret{}, builder.WithPredicates(ours)).
		WithOptions(controller.Options{NeedLeaderElection: ptr.To(false), MaxConcurrentReconciles: 1}).
		Complete(r)
}

// Reconcile adopts the certificate in the Secret. Where the Secret is missing or unreadable, the
// replica goes on serving its current certificate until the leader has made another.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	secret := &corev1.Secret{}
	if err := r.Client.Get(ctx, req.NamespacedName, secret); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if err := r.Certificate.Use(secret); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Kept the serving certificate that was in use")
	}
	return ctrl.Result{}, nil
}
