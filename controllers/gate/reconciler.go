// Package gate maintains the webhook configurations, through which the API server calls the
// webhook, on the leader. It publishes their state as an Observation, from which the condition
// Gated is made. It answers no admission requests.
package gate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/internal/certs"
	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/metrics"
	"github.com/countersign-dev/countersign/internal/store"
)

const (
	// ConfigurationName is the name of both webhook configurations.
	ConfigurationName = "countersign"
	// MutatingWebhookName is the name of the webhook that pins, as messages of the API server have
	// it.
	MutatingWebhookName = "mutate.countersign.dev"
	// ValidatingWebhookName is the name of the webhook that denies.
	ValidatingWebhookName = "validate.countersign.dev"
	// ServiceName is the Service by which the API server reaches the webhook.
	ServiceName = "countersign-webhook"
	// OwnerName is the ClusterRole that owns the webhook configurations. The garbage collector
	// deletes them with it, so that none stays behind and blocks a cluster without an operator.
	// Every way to uninstall deletes it; some leave the CRDs.
	OwnerName = "countersign-webhook-owner"
	// ownerInterval is how often the reconciler reads the ClusterRole while it is missing.
	ownerInterval = 2 * time.Second
	// contestedInterval is the delay of a retry after another replica has changed the certificate.
	contestedInterval = time.Second
	// failureMost bounds the backoff after a fault, such as a write that the API server refuses.
	failureMost = 30 * time.Second
	// webhookTimeoutSeconds is longer than the deadline of the handler.
	webhookTimeoutSeconds = 10
)

// CertificateAuthority provides the CA bundle of the serving certificate.
type CertificateAuthority interface {
	// CABundle returns the bundle, PEM, that the webhook configurations must hold, and when to call
	// again at the latest. It is empty where the serving certificate chains to the roots of the
	// system. configured are the bundles that the configurations hold now.
	CABundle(ctx context.Context, configured ...[]byte) ([]byte, time.Duration, error)
}

// Reconciler creates the mutating and the validating webhook configuration once the store is primed
// and the Service has a ready endpoint. It restores them when they are changed or deleted. It runs
// on the leader and publishes its findings to the Observation.
type Reconciler struct {
	Client client.Client
	// Live reads past the cache: the reconciler reads one ClusterRole, and needs no right to list
	// them.
	Live  client.Reader
	Store *store.Store
	// Namespace and URL say how the API server reaches the webhook: by the base URL where it is
	// set, and otherwise through the Service in the namespace.
	Namespace, URL string
	// Certificate provides the CAs that the API server must trust.
	Certificate CertificateAuthority
	// Exempt are the namespaces that admission leaves alone.
	Exempt flags.Exempt
	// Rules and MatchConditions select the requests that the handlers decide on; the paths are
	// those of the handlers.
	Rules                    []admissionv1.RuleWithOperations
	MatchConditions          []admissionv1.MatchCondition
	MutatePath, ValidatePath string
	// Metrics counts the writes; nil counts nothing.
	Metrics *metrics.Metrics
	// Observation receives the state of the configurations; nil: it is not published.
	Observation *Observation
	Clock       clock.PassiveClock

	// What follows belongs to the only worker. contests are for the mutating and the validating
	// configuration. waiting is since when their creation waits for an endpoint.
	contests [2]contest
	waiting  time.Time
}

// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=mutatingwebhookconfigurations;validatingwebhookconfigurations,verbs=create
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=mutatingwebhookconfigurations;validatingwebhookconfigurations,resourceNames=countersign,verbs=get;list;watch;update
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterroles,resourceNames=countersign-webhook-owner,verbs=get
// +kubebuilder:rbac:groups=discovery.k8s.io,namespace=countersign-system,resources=endpointslices,verbs=list;watch

// SetupWithManager registers the reconciler, on the leader.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	one := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		if name := o.GetName(); name != ConfigurationName && name != certs.SecretName {
			return nil
		}
		return []reconcile.Request{requests.For(ConfigurationName)}
	})
	first := source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		queue.Add(requests.For(ConfigurationName))
		return nil
	})
	b := ctrl.NewControllerManagedBy(mgr).
		Named("webhookconfiguration").
		Watches(&admissionv1.MutatingWebhookConfiguration{}, one).
		Watches(&admissionv1.ValidatingWebhookConfiguration{}, one).
		Watches(&corev1.Secret{}, one).
		WatchesRawSource(first).
		WithOptions(controller.Options{
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](5*time.Millisecond,
				failureMost),
		})
	if r.URL == "" {
		b = b.Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(ofService))
	}
	return b.Complete(r)
}

// Reconcile corrects both configurations and publishes the result. It reads them before the CA
// bundle. So a write rests on a Secret at least as new as they are, or the API server refuses it as
// a conflict.
func (r *Reconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	mutating, validating := &admissionv1.MutatingWebhookConfiguration{}, &admissionv1.ValidatingWebhookConfiguration{}
	for _, o := range []client.Object{mutating, validating} {
		if err := r.Client.Get(ctx, client.ObjectKey{Name: ConfigurationName}, o); client.IgnoreNotFound(err) != nil {
			return ctrl.Result{}, fmt.Errorf("reading the webhook configurations: %w", err)
		}
	}
	configured := configuredBundles(mutating, validating)
	bundle, wait, failed := r.Certificate.CABundle(ctx, configured...)
	if apierrors.IsConflict(failed) || apierrors.IsAlreadyExists(failed) {
		return ctrl.Result{RequeueAfter: contestedInterval}, nil // another replica has led, or leads by now
	}
	if failed != nil { // a changed configuration is restored all the same, with its current bundle
		bundle = slices.MaxFunc(configured, func(a, b []byte) int { return len(a) - len(b) })
	}
	owner, unread := r.owner(ctx)
	both := [2]*configuration{r.mutating(mutating, owner, bundle), r.validating(validating, owner, bundle)}
	update := obstacle{}
	if failed != nil && len(bundle) == 0 {
		why := "the CA bundle cannot be had: " + failed.Error()
		update = obstacle{reason: v1alpha1.ReasonCertificateUnavailable, why: why}
	}
	create := update
	if o, err := r.toCreate(ctx, both, unread); err != nil {
		return ctrl.Result{}, err
	} else if o.reason != "" {
		create = o
	}
	found, refused := r.correct(ctx, both, create, update)
	if outdated(refused) {
		return ctrl.Result{RequeueAfter: requests.ConflictRetry}, nil
	}
	missing := apierrors.IsNotFound(unread)
	r.Observation.publish(ctx, stateOf(found, missing), func() []string { return r.Store.Load().PolicyNames() })
	again := soonest(wait, found[0].after, found[1].after)
	if missing {
		again, unread = soonest(again, ownerInterval), nil
	}
	if err := errors.Join(failed, unread, errors.Join(refused[:]...)); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// correct corrects both configurations: the second also where the API server refuses the first.
func (r *Reconciler) correct(
	ctx context.Context, both [2]*configuration, create, update obstacle,
) (found [2]finding, refused [2]error) {
	for i, c := range both {
		obstacle := update
		if c.missing() {
			obstacle = create
		}
		found[i], refused[i] = r.correctOne(ctx, c, &r.contests[i], obstacle)
	}
	return found, refused
}

// correctOne writes one configuration where it is missing or differs, unless an obstacle or a
// contest forbids that.
func (r *Reconciler) correctOne(
	ctx context.Context, c *configuration, rivalry *contest, o obstacle,
) (finding, error) {
	now := r.Clock.Now()
	f := finding{defect: c.defect(), missing: c.missing()}
	if f.defect == "" && !c.unowned() {
		return inPlace(c, rivalry, now), nil
	}
	if o.reason == "" {
		o = rivalry.obstacle(c, f.defect, now)
	}
	if o.reason != "" {
		f.obstacle = o
		return f, nil
	}
	if err := r.write(ctx, c); err != nil {
		why := "the API server refuses the write: " + err.Error()
		f.obstacle = obstacle{reason: v1alpha1.ReasonConfigurationRefused, why: why}
		return f, fmt.Errorf("applying the %s webhook configuration: %w", c.short, err)
	}
	rivalry.written(c.want, now)
	return inPlace(c, rivalry, now), nil
}

// write creates the configuration, or corrects it by an update of the version that was read. A
// concurrent write is a conflict and is retried.
func (r *Reconciler) write(ctx context.Context, c *configuration) error {
	fields, missing := c.different(), c.missing()
	c.prepare()
	cause, message := metrics.CauseRestored, "Restored a webhook configuration that had been changed"
	var err error
	if missing {
		cause, message = metrics.CauseCreated, "Created a webhook configuration"
		err = r.Client.Create(ctx, c.object)
	} else {
		err = r.Client.Update(ctx, c.object)
	}
	if err != nil {
		return err
	}
	ctrl.LoggerFrom(ctx).Info(message,
		"webhookConfiguration", ConfigurationName, "kind", c.kind, "fields", fields)
	r.Metrics.ConfigurationWritten(c.short, cause)
	return nil
}

// outdated reports whether a write failed because the cache was stale. It is retried from the newer
// cache.
func outdated(refused [2]error) bool {
	return slices.ContainsFunc(refused[:], func(err error) bool {
		return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err)
	})
}

// soonest returns the shortest of some durations; 0 means never.
func soonest(times ...time.Duration) time.Duration {
	least := time.Duration(0)
	for _, t := range times {
		if t > 0 && (least == 0 || t < least) {
			least = t
		}
	}
	return least
}

// owner returns a reference to the ClusterRole that owns the configurations, nil where that cannot
// be read. The error is a NotFound where it does not exist.
func (r *Reconciler) owner(ctx context.Context) (*metav1.OwnerReference, error) {
	role := &metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRole"},
	}
	if err := r.Live.Get(ctx, client.ObjectKey{Name: OwnerName}, role); err != nil {
		return nil, fmt.Errorf("reading ClusterRole %s, which owns the webhook configurations: %w", OwnerName, err)
	}
	return &metav1.OwnerReference{APIVersion: role.APIVersion, Kind: role.Kind, Name: role.Name, UID: role.UID}, nil
}
