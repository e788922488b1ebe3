package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/countersign-dev/countersign/internal/certs"
	"github.com/countersign-dev/countersign/internal/metrics"
	"github.com/countersign-dev/countersign/internal/options"
	"github.com/countersign-dev/countersign/internal/store"
)

const (
	// WebhookConfigurationName is the name of both webhook configurations.
	WebhookConfigurationName = "countersign"
	// WebhookServiceName is the Service by which the API server reaches the webhook.
	WebhookServiceName = "countersign-webhook"
	// WebhookOwnerName is the ClusterRole that owns the webhook configurations: when it is deleted they go too, so that none stays
	// behind to block a cluster without an operator. Every way to uninstall deletes it; some leave the CRDs.
	WebhookOwnerName = "countersign-webhook-owner"
	// ownerInterval is how often it is looked for while it is missing.
	ownerInterval = 2 * time.Second
	// contestedInterval is how soon the certificate is looked at again when another replica has changed it meanwhile.
	contestedInterval = time.Second
	// webhookTimeoutSeconds is longer than the deadline inside the handler.
	webhookTimeoutSeconds = 10
)

// CertificateAuthority is where the serving certificate comes from.
type CertificateAuthority interface {
	// CABundle returns the bundle, PEM, that the webhook configurations must hold, and when to ask again at the latest. It is
	// empty where the serving certificate chains to the system's roots. configured are the bundles that they hold now.
	CABundle(ctx context.Context, configured ...[]byte) ([]byte, time.Duration, error)
}

// WebhookConfigurationReconciler applies the mutating and the validating webhook configuration once the store is
// primed, and restores them when they are changed or deleted. It runs on the leader.
type WebhookConfigurationReconciler struct {
	Client client.Client
	// Live reads past the cache: one ClusterRole is all that is read, and the right to list them is not needed.
	Live  client.Reader
	Store *store.Store
	// Namespace and URL say how the API server reaches the webhook: by the base URL where it is set, and otherwise
	// through the Service in the namespace.
	Namespace, URL string
	// Certificate says which CAs the API server must trust.
	Certificate CertificateAuthority
	// Exempt are the namespaces that admission leaves alone.
	Exempt options.Exempt
	// Rules and MatchConditions say what the handlers decide about, and the paths where they are.
	Rules                    []admissionv1.RuleWithOperations
	MatchConditions          []admissionv1.MatchCondition
	MutatePath, ValidatePath string
	// Metrics counts what is written; nil counts nothing.
	Metrics *metrics.Metrics
}

// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=mutatingwebhookconfigurations;validatingwebhookconfigurations,verbs=create
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=mutatingwebhookconfigurations;validatingwebhookconfigurations,resourceNames=countersign,verbs=get;list;watch;update
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterroles,resourceNames=countersign-webhook-owner,verbs=get

// SetupWithManager registers the reconciler, on the leader.
func (r *WebhookConfigurationReconciler) SetupWithManager(mgr ctrl.Manager) error {
	one := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		if name := o.GetName(); name != WebhookConfigurationName && name != certs.SecretName {
			return nil
		}
		return []reconcile.Request{requestFor(WebhookConfigurationName)}
	})
	first := source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		queue.Add(requestFor(WebhookConfigurationName))
		return nil
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named("webhookconfiguration").
		Watches(&admissionv1.MutatingWebhookConfiguration{}, one).
		Watches(&admissionv1.ValidatingWebhookConfiguration{}, one).
		Watches(&corev1.Secret{}, one).
		WatchesRawSource(first).
		Complete(r)
}

// Reconcile brings both configurations to what they must be. They are read before the CA bundle is: what is written is then
// either made from a Secret that is at least as new as they are, or refused by the API server as too old.
func (r *WebhookConfigurationReconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	mutating, validating := &admissionv1.MutatingWebhookConfiguration{}, &admissionv1.ValidatingWebhookConfiguration{}
	for _, o := range []client.Object{mutating, validating} {
		if err := r.Client.Get(ctx, client.ObjectKey{Name: WebhookConfigurationName}, o); client.IgnoreNotFound(err) != nil {
			return ctrl.Result{}, fmt.Errorf("reading the webhook configurations: %w", err)
		}
	}
	configured := configuredBundles(mutating, validating)
	bundle, wait, failed := r.Certificate.CABundle(ctx, configured...)
	if apierrors.IsConflict(failed) || apierrors.IsAlreadyExists(failed) {
		return ctrl.Result{RequeueAfter: contestedInterval}, nil // another replica has led, or leads by now
	}
	if failed != nil { // which is no reason to leave a configuration open that somebody has opened
		bundle = slices.MaxFunc(configured, func(a, b []byte) int { return len(a) - len(b) })
		if len(bundle) == 0 {
			return ctrl.Result{}, failed
		}
	}
	if !r.Store.Load().Primed {
		return ctrl.Result{RequeueAfter: 100 * time.Millisecond}, nil
	}
	owner, err := r.owner(ctx)
	if apierrors.IsNotFound(err) {
		ctrl.LoggerFrom(ctx).Info("Waiting for the ClusterRole that owns the webhook configurations; it is part of the installation", "clusterRole", WebhookOwnerName)
		return ctrl.Result{RequeueAfter: ownerInterval}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	if err := r.applyMutating(ctx, mutating, owner, bundle); err != nil {
		return settle(ctrl.Result{}, fmt.Errorf("applying the mutating webhook configuration: %w", err))
	}
	if err := r.applyValidating(ctx, validating, owner, bundle); err != nil {
		return settle(ctrl.Result{}, fmt.Errorf("applying the validating webhook configuration: %w", err))
	}
	return ctrl.Result{RequeueAfter: wait}, failed
}

// owner refers to the ClusterRole that owns the configurations.
func (r *WebhookConfigurationReconciler) owner(ctx context.Context) (metav1.OwnerReference, error) {
	role := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRole"}}
	if err := r.Live.Get(ctx, client.ObjectKey{Name: WebhookOwnerName}, role); err != nil {
		return metav1.OwnerReference{}, fmt.Errorf("reading ClusterRole %s, which owns the webhook configurations: %w", WebhookOwnerName, err)
	}
	return metav1.OwnerReference{APIVersion: role.APIVersion, Kind: role.Kind, Name: role.Name, UID: role.UID}, nil
}

// applyMutating creates the configuration, or puts back whatever of it was changed. Every field is set, and compared as
// a whole: fields that somebody merged in, a further match condition say, would narrow the gate as well.
func (r *WebhookConfigurationReconciler) applyMutating(ctx context.Context, o *admissionv1.MutatingWebhookConfiguration, owner metav1.OwnerReference, bundle []byte) error {
	want := []admissionv1.MutatingWebhook{{
		Name:                    "mutate.countersign.dev",
		ClientConfig:            r.clientConfig(r.MutatePath, bundle),
		Rules:                   r.Rules,
		FailurePolicy:           ptr.To(admissionv1.Fail),
		MatchPolicy:             ptr.To(admissionv1.Equivalent),
		NamespaceSelector:       r.namespaces(),
		ObjectSelector:          &metav1.LabelSelector{},
		SideEffects:             ptr.To(admissionv1.SideEffectClassNone),
		TimeoutSeconds:          ptr.To[int32](webhookTimeoutSeconds),
		AdmissionReviewVersions: []string{"v1"},
		MatchConditions:         r.conditions(),
		ReinvocationPolicy:      ptr.To(admissionv1.IfNeededReinvocationPolicy),
	}}
	return r.apply(ctx, o, owner, func() bool { return equality.Semantic.DeepEqual(o.Webhooks, want) }, func() { o.Webhooks = want })
}

// applyValidating does the same for the gate itself.
func (r *WebhookConfigurationReconciler) applyValidating(ctx context.Context, o *admissionv1.ValidatingWebhookConfiguration, owner metav1.OwnerReference, bundle []byte) error {
	want := []admissionv1.ValidatingWebhook{{
		Name:                    "validate.countersign.dev",
		ClientConfig:            r.clientConfig(r.ValidatePath, bundle),
		Rules:                   r.Rules,
		FailurePolicy:           ptr.To(admissionv1.Fail),
		MatchPolicy:             ptr.To(admissionv1.Equivalent),
		NamespaceSelector:       r.namespaces(),
		ObjectSelector:          &metav1.LabelSelector{},
		SideEffects:             ptr.To(admissionv1.SideEffectClassNoneOnDryRun), // events
		TimeoutSeconds:          ptr.To[int32](webhookTimeoutSeconds),
		AdmissionReviewVersions: []string{"v1"},
		MatchConditions:         r.conditions(),
	}}
	return r.apply(ctx, o, owner, func() bool { return equality.Semantic.DeepEqual(o.Webhooks, want) }, func() { o.Webhooks = want })
}

// apply writes o, as it was read, where it is missing or not as it must be. A write on top of
// somebody else's is refused by the API server and tried again by the queue.
func (r *WebhookConfigurationReconciler) apply(ctx context.Context, o client.Object, owner metav1.OwnerReference, same func() bool, set func()) error {
	missing := o.GetResourceVersion() == ""
	owners := o.GetOwnerReferences()
	if !missing && same() && len(owners) == 1 && owners[0] == owner {
		return nil
	}
	set()
	o.SetName(WebhookConfigurationName)
	o.SetOwnerReferences([]metav1.OwnerReference{owner})
	o.SetLabels(map[string]string{"app.kubernetes.io/managed-by": "countersign"})
	write, cause, message := func() error { return r.Client.Update(ctx, o) }, metrics.CauseRestored, "Restored a webhook configuration that had been changed"
	if missing {
		write, cause, message = func() error { return r.Client.Create(ctx, o) }, metrics.CauseCreated, "Created a webhook configuration"
	}
	if err := write(); err != nil {
		return err
	}
	ctrl.LoggerFrom(ctx).Info(message, "webhookConfiguration", WebhookConfigurationName)
	configuration := "validating"
	if _, mutating := o.(*admissionv1.MutatingWebhookConfiguration); mutating {
		configuration = "mutating"
	}
	r.Metrics.ConfigurationWritten(configuration, cause)
	return nil
}

func (r *WebhookConfigurationReconciler) clientConfig(path string, bundle []byte) admissionv1.WebhookClientConfig {
	c := admissionv1.WebhookClientConfig{CABundle: bundle}
	if r.URL != "" {
		c.URL = ptr.To(strings.TrimSuffix(r.URL, "/") + path)
		return c
	}
	c.Service = &admissionv1.ServiceReference{Namespace: r.Namespace, Name: WebhookServiceName, Path: &path, Port: ptr.To[int32](443)}
	return c
}

// namespaces selects every namespace that is not exempt by its full name, by the label with its name that the API server itself keeps.
func (r *WebhookConfigurationReconciler) namespaces() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpNotIn, Values: r.Exempt.Names,
	}}}
}

// conditions are those under which the webhooks are called. A selector of labels knows no prefix, so exempt namespaces that are told by one are
// told here.
func (r *WebhookConfigurationReconciler) conditions() []admissionv1.MatchCondition {
	all := slices.Clone(r.MatchConditions)
	for _, prefix := range r.Exempt.Prefixes {
		all = append(all, admissionv1.MatchCondition{
			Name:       "not-exempt-" + strings.Trim(prefix, "-"),
			Expression: fmt.Sprintf("!request.namespace.startsWith(%q)", prefix),
		})
	}
	return all
}

// configuredBundles returns the CA bundle of the mutating configuration and that of the validating one, nothing for what is missing.
func configuredBundles(mutating *admissionv1.MutatingWebhookConfiguration, validating *admissionv1.ValidatingWebhookConfiguration) [][]byte {
	bundles := make([][]byte, 2)
	if len(mutating.Webhooks) > 0 {
		bundles[0] = mutating.Webhooks[0].ClientConfig.CABundle
	}
	if len(validating.Webhooks) > 0 {
		bundles[1] = validating.Webhooks[0].ClientConfig.CABundle
	}
	return bundles
}
