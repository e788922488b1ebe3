package main

import (
	"context"
	"crypto/tls"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/countersign-dev/countersign/controllers/certificate"
	"github.com/countersign-dev/countersign/controllers/gate"
	"github.com/countersign-dev/countersign/internal/certs"
	"github.com/countersign-dev/countersign/internal/cluster"
	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/metrics"
	"github.com/countersign-dev/countersign/internal/metricsauth"
	"github.com/countersign-dev/countersign/internal/pullsecrets"
	"github.com/countersign-dev/countersign/internal/recordmap"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/webhooks"
)

// The timing of leader elections. Where a leader is killed, the next one leads within leaseDuration
// and retryPeriod. A leader that cannot reach the API server stops before another may lead:
// retryPeriod after its last renewal it retries for renewDeadline, then tries to release the lease
// for up to half of that, which together is less than leaseDuration. renewDeadline is not shorter
// because a leader ends when the API server is gone for that long, and a restart of an API server
// takes several seconds.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 8 * time.Second
	retryPeriod   = 2 * time.Second
)

// recorderName is the reporting controller of events.
const recorderName = "countersign"

// stopTimeout bounds how long controllers may take to stop. Together with the shutdown delay and
// the requests in flight it stays below the 30 s that Kubernetes grants a Pod by default.
const stopTimeout = 10 * time.Second

// metricsOptions returns how metrics are served. Where secure, they are served with the certificate
// of the webhook, and only to clients that the API server authenticates and authorizes.
func metricsOptions(o flags.Options, serving certificate.Serving) metricsserver.Options {
	served := metricsserver.Options{BindAddress: o.MetricsBindAddress}
	if o.MetricsSecure {
		get := serving.GetCertificate
		if mounted, ok := serving.(*certs.Mounted); ok {
			get = mounted.Newest // Prometheus reads the CA from the same Secret
		}
		served.SecureServing, served.FilterProvider = true, metricsauth.Filter
		served.TLSOpts = []func(*tls.Config){func(c *tls.Config) {
			c.MinVersion, c.NextProtos, c.GetCertificate = tls.VersionTLS12, []string{"h2", "http/1.1"}, get
		}}
	}
	return served
}

// newServing returns the serving certificate: the mounted one, or the operator's own.
func newServing(config *rest.Config, o flags.Options) (certificate.Serving, error) {
	scheme, err := cluster.Scheme()
	if err != nil {
		return nil, err
	}
	host, err := o.WebhookHost(gate.ServiceName)
	if err != nil {
		return nil, err
	}
	return certificate.New(config, scheme, certificate.Options{Dir: o.CertDir, Namespace: o.Namespace, Host: host})
}

// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=countersign-system,resources=leases,verbs=create
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=countersign-system,resources=leases,resourceNames=countersign.countersign.dev,verbs=get;update
// +kubebuilder:rbac:groups="",namespace=countersign-system,resources=events,verbs=create;patch

// newManager returns a manager whose cache holds no more than is needed.
func newManager(config *rest.Config, serving certificate.Serving, o flags.Options) (ctrl.Manager, error) {
	scheme, err := cluster.Scheme()
	if err != nil {
		return nil, err
	}
	own := map[string]cache.Config{o.Namespace: {}}
	named := fields.OneTermEqualSelector("metadata.name", gate.ConfigurationName)
	record, err := labels.NewRequirement(recordmap.LabelKind, selection.DoesNotExist, nil)
	if err != nil {
		return nil, err
	}
	notRecords := labels.NewSelector().Add(*record)
	ofWebhook := labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: gate.ServiceName})
	return ctrl.NewManager(config, ctrl.Options{
		Scheme:                  scheme,
		LeaderElection:          o.LeaderElect,
		LeaderElectionID:        "countersign.countersign.dev",
		LeaderElectionNamespace: o.Namespace,
		// The process ends right after the release, so the next leader need not wait for the lease
		// to expire.
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 new(leaseDuration),
		RenewDeadline:                 new(renewDeadline),
		RetryPeriod:                   new(retryPeriod),
		GracefulShutdownTimeout:       new(stopTimeout),
		HealthProbeBindAddress:        o.HealthProbeBindAddress,
		Metrics:                       metricsOptions(o, serving),
		// The cache holds Secrets and ConfigMaps of the operator's own namespace only, and
		// EndpointSlices of the webhook's Service only. Records have a cache of their own.
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Secret{}:                              {Namespaces: own},
				&corev1.ConfigMap{}:                           {Namespaces: own, Label: notRecords},
				&admissionv1.MutatingWebhookConfiguration{}:   {Field: named},
				&admissionv1.ValidatingWebhookConfiguration{}: {Field: named},
				&discoveryv1.EndpointSlice{}:                  {Namespaces: own, Label: ofWebhook},
			},
		},
	})
}

// newPullSecrets returns what finds the pull secrets of namespaces; nil: none are used.
func newPullSecrets(mgr ctrl.Manager, o flags.Options) *pullsecrets.Finder {
	if !o.UsePullSecrets {
		return nil
	}
	return pullsecrets.New(mgr.GetAPIReader(), clock.RealClock{})
}

// newWebhook returns the server of the webhook, with its handlers.
func newWebhook(mgr ctrl.Manager, serving certificate.Serving, decisions *store.Store, tracker *store.Tracker,
	secrets *pullsecrets.Finder, counts *metrics.Metrics, o flags.Options) *webhooks.Server {
	c, live, now := mgr.GetClient(), mgr.GetAPIReader(), clock.RealClock{}
	var clients *certs.ClientCA
	if o.WebhookClientCA != "" {
		clients = certs.NewClientCA(o.WebhookClientCA, now)
	}
	server := webhooks.NewServer(webhooks.ServerOptions{
		Port: o.WebhookPort, Certificate: serving.GetCertificate, ShutdownDelay: o.ShutdownDelay,
		Limits: webhooks.DefaultLimits(), Contact: &webhooks.Contact{Live: live, Clock: now}, Clients: clients,
		Metrics: counts,
	})
	handlers := &webhooks.Gate{
		Store: decisions, Tracker: tracker, Namespaces: c, LiveNamespaces: live, Kinds: o.Kinds, Clock: now,
		Events: mgr.GetEventRecorder(recorderName), Metrics: counts, PullSecrets: secrets,
	}
	handlers.Register(server.Register)
	return server
}

// serve runs the manager until ctx ends or the manager fails. Either way the server answers
// admission requests until clients use another replica. After a signal the controllers run until
// then, and the lease is released last. A leader that lost its lease stops writing at once.
func serve(ctx context.Context, mgr ctrl.Manager, server *webhooks.Server) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	context.AfterFunc(ctx, func() {
		server.Leave()
		stop()
	})
	err := mgr.Start(running)
	server.Leave()
	return err
}

// replicated is a Runnable that runs on every replica, the leader or not.
type replicated func(context.Context) error

// Start implements manager.Runnable.
func (r replicated) Start(ctx context.Context) error { return r(ctx) }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (replicated) NeedLeaderElection() bool { return false }
