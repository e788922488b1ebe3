// Command countersign is the manager: it reconciles ImagePolicies and TrustRoots, serves the admission webhook, and
// keeps the webhook's configuration.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/pflag"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/certificate"
	"github.com/countersign-dev/countersign/controllers/gate"
	"github.com/countersign-dev/countersign/controllers/publication"
	"github.com/countersign-dev/countersign/controllers/records"
	"github.com/countersign-dev/countersign/controllers/reports"
	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/controllers/running"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/access"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/certs"
	"github.com/countersign-dev/countersign/internal/gatecheck"
	"github.com/countersign-dev/countersign/internal/metrics"
	"github.com/countersign-dev/countersign/internal/options"
	"github.com/countersign-dev/countersign/internal/persist"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
	"github.com/countersign-dev/countersign/webhooks"
)

// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=countersign-system,resources=leases,verbs=create
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=countersign-system,resources=leases,resourceNames=countersign.countersign.dev,verbs=get;update
// +kubebuilder:rbac:groups="",namespace=countersign-system,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

// version is that of the image, where the linker sets it.
var version string

func main() {
	ctx, args := ctrl.SetupSignalHandler(), os.Args[1:]
	var err error
	if len(args) > 0 && args[0] == gatecheck.Command {
		err = checkGate(ctx, args[1:])
	} else {
		err = manage(ctx, args)
	}
	switch {
	case errors.Is(err, pflag.ErrHelp):
	case errors.Is(err, options.ErrVersion):
		fmt.Println("countersign", options.Version(version))
	case err != nil:
		fmt.Fprintln(os.Stderr, "countersign:", err)
		os.Exit(1)
	}
}

// manage is the manager.
func manage(ctx context.Context, args []string) error {
	o, err := options.Parse(args)
	if err != nil {
		return err
	}
	ctrl.SetLogger(o.Logger(os.Stderr))
	klog.SetLogger(ctrl.Log.WithName("client")) // that of the Kubernetes libraries
	ctrl.Log.Info("Started", "version", options.Version(version))
	return run(ctx, o)
}

// checkGate tries the gate of the cluster, and is no manager.
func checkGate(ctx context.Context, args []string) error {
	o, err := gatecheck.Parse(args)
	if err != nil {
		return err
	}
	config, err := restConfig(o.Kubeconfig)
	if err != nil {
		return err
	}
	check, err := gatecheck.New(config, o.Namespace, gate.ValidatingWebhookName, gate.MutatingWebhookName, os.Stdout)
	if err != nil {
		return err
	}
	return check.Run(ctx, o)
}

// run builds everything and serves until ctx ends.
func run(ctx context.Context, o options.Options) error {
	config, err := restConfig(o.Kubeconfig)
	if err != nil {
		return err
	}
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	serving, err := servingCertificate(config, scheme, o)
	if err != nil {
		return err
	}
	openShift, err := discoverPlatform(ctx, config)
	if err != nil {
		return err
	}
	server := webhooks.NewServer(o.WebhookPort, serving.GetCertificate, o.ShutdownDelay, webhooks.DefaultLimits())
	mgr, err := newManager(config, scheme, server, metricsOptions(o, serving), o)
	if err != nil {
		return err
	}
	p := newParts(mgr, serving, o, o.Exempt(openShift), limitMemory())
	shortNames := o.ReadShortNames(openShift)
	p.store.ReadShortNames(shortNames)
	ctrl.Log.Info("Set how short image names are read", "shortNames", shortNames.String(), "openShift", openShift)
	if err := errors.Join(p.addControllers(ctx), p.addCertificate(), p.addGate(server), p.addRunnables()); err != nil {
		return err
	}
	return serve(ctx, mgr, server)
}

// serve runs the manager until ctx ends or it fails. Either way admission is answered until everybody asks another replica. After a signal
// everything else goes on until then, and the lease is released last; a leader that lost its lease writes nothing more at once.
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

// restConfig says how the API server is reached: directly, unless the kubeconfig names a proxy. The proxy of the environment is for signing
// servers, and one that does not know the network of the cluster would keep the manager from it.
func restConfig(kubeconfig string) (*rest.Config, error) {
	config, err := clusterConfig(kubeconfig)
	if err == nil && config.Proxy == nil {
		config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil } //nolint:nilnil // net/http takes nil for no proxy
	}
	return config, err
}

func clusterConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		return ctrl.GetConfig()
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	config.QPS = -1 // as in a cluster: the API server shares itself out, and a queue here would hold up admission
	return config, nil
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
}

// serving is what the webhook serves with: the operator's own, or a mounted one.
type serving interface {
	gate.CertificateAuthority
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Ready() error
}

// servingCertificate returns the mounted certificate where there is one, and else the operator's own.
func servingCertificate(config *rest.Config, scheme *runtime.Scheme, o options.Options) (serving, error) {
	if o.CertDir != "" {
		if mounted, err := certs.NewMounted(o.CertDir, clock.RealClock{}); mounted != nil || err != nil {
			return mounted, err
		}
	}
	host := fmt.Sprintf("%s.%s.svc", gate.ServiceName, o.Namespace)
	if o.WebhookURL != "" {
		u, err := url.Parse(o.WebhookURL)
		if err != nil {
			return nil, err
		}
		host = u.Hostname()
	}
	direct, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, err
	}
	return &certs.Own{Client: direct, Namespace: o.Namespace, Host: host, Clock: clock.RealClock{}}, nil
}

// How leaders follow each other. One that was killed is followed within leaseDuration and retryPeriod. One that cannot reach the
// API server stops before another may lead: retryPeriod after its last renewal it tries for renewDeadline, and then to release the lease for
// up to half of that, which together is less than leaseDuration. An API server that is gone for renewDeadline ends the leader, so it is not
// shorter: restarts of one take several seconds.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 8 * time.Second
	retryPeriod   = 2 * time.Second
)

// stopTimeout bounds how long controllers may take to stop. With the shutdown delay and what is under way then, it stays below the 30 s
// that Kubernetes grants a Pod by default.
const stopTimeout = 10 * time.Second

// metricsOptions say how metrics are served: where secure, with the certificate of the webhook, so that whoever scrapes them can tell it
// from another, to those whom the API server authenticates and authorizes.
func metricsOptions(o options.Options, serving serving) metricsserver.Options {
	served := metricsserver.Options{BindAddress: o.MetricsBindAddress}
	if o.MetricsSecure {
		get := serving.GetCertificate
		if mounted, ok := serving.(*certs.Mounted); ok {
			get = mounted.Newest // Prometheus has the CA from the same Secret
		}
		served.SecureServing, served.FilterProvider = true, access.Filter
		served.TLSOpts = []func(*tls.Config){func(c *tls.Config) {
			c.MinVersion, c.NextProtos, c.GetCertificate = tls.VersionTLS12, []string{"h2", "http/1.1"}, get
		}}
	}
	return served
}

func newManager(config *rest.Config, scheme *runtime.Scheme, server *webhooks.Server, served metricsserver.Options, o options.Options) (ctrl.Manager, error) {
	own := map[string]cache.Config{o.Namespace: {}}
	named := fields.OneTermEqualSelector("metadata.name", gate.ConfigurationName)
	record, err := labels.NewRequirement(persist.LabelKind, selection.DoesNotExist, nil)
	if err != nil {
		return nil, err
	}
	notRecords := labels.NewSelector().Add(*record)
	behind := labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: gate.ServiceName})
	return ctrl.NewManager(config, ctrl.Options{
		Scheme:                  scheme,
		LeaderElection:          o.LeaderElect,
		LeaderElectionID:        "countersign.countersign.dev",
		LeaderElectionNamespace: o.Namespace,
		// The process ends right after, so that the next leader need not wait for the lease to run out.
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 new(leaseDuration),
		RenewDeadline:                 new(renewDeadline),
		RetryPeriod:                   new(retryPeriod),
		GracefulShutdownTimeout:       new(stopTimeout),
		HealthProbeBindAddress:        o.HealthProbeBindAddress,
		Metrics:                       served,
		// Only what is needed is watched: of Secrets and ConfigMaps, those in the operator's own namespace. What was
		// written down of repositories has a cache of its own. Of EndpointSlices, those of the webhook's Service.
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Secret{}:                              {Namespaces: own},
				&corev1.ConfigMap{}:                           {Namespaces: own, Label: notRecords},
				&admissionv1.MutatingWebhookConfiguration{}:   {Field: named},
				&admissionv1.ValidatingWebhookConfiguration{}: {Field: named},
				&discoveryv1.EndpointSlice{}:                  {Namespaces: own, Label: behind},
			},
		},
		WebhookServer: server,
	})
}

// recordCache holds the metadata of the ConfigMaps in the operator's namespace, and no data: the manager starts it with its own cache,
// before any controller.
type recordCache struct{ cache.Cache }

// GetCache is what tells the manager that it is one.
func (r recordCache) GetCache() cache.Cache { return r.Cache }

func newRecordCache(mgr ctrl.Manager, namespace string) (recordCache, error) {
	c, err := cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		DefaultNamespaces: map[string]cache.Config{namespace: {}}, DefaultTransform: cache.TransformStripManagedFields(),
	})
	if err != nil {
		return recordCache{}, fmt.Errorf("making the cache of what was written down: %w", err)
	}
	return recordCache{c}, mgr.Add(recordCache{c})
}

// parts are what the controllers and the gate share.
type parts struct {
	mgr     ctrl.Manager
	serving serving
	options options.Options
	exempt  options.Exempt

	store   *store.Store
	tracker *store.Tracker
	budget  *budget.Budget
	// changes wakes the controller of trust roots; ran and gate hold what those of compliance and of the webhook
	// configurations found.
	changes *requests.Trigger
	ran     *running.Compliance
	gate    *gate.Observation
	metrics *metrics.Metrics
}

func newParts(mgr ctrl.Manager, serving serving, o options.Options, exempt options.Exempt, memory memory) *parts {
	p := &parts{
		mgr: mgr, serving: serving, options: o, exempt: exempt,
		store: store.New(o.Uncovered), budget: budget.New(memory.decoding), changes: &requests.Trigger{}, ran: &running.Compliance{},
		gate: &gate.Observation{}, metrics: metrics.New(ctrlmetrics.Registry),
	}
	p.store.Observer, p.store.MaxSize = p.metrics, memory.evidence
	p.tracker = store.NewTracker(p.store, clock.RealClock{}, p.changes.Notify)
	p.metrics.Show(metrics.State{
		Store: p.store, Tracker: p.tracker, Namespaces: mgr.GetClient(), Ran: p.ran.Load, Gated: p.gate.Gated, Certificate: serving.GetCertificate,
	})
	return p
}

func (p *parts) addControllers(ctx context.Context) error {
	c, live, o := p.mgr.GetClient(), p.mgr.GetAPIReader(), p.options
	writer := status.Writer{Client: c, Events: p.mgr.GetEventRecorder("countersign"), Elected: p.mgr.Elected()}
	builder := publication.RootBuilder{Reader: c, Namespace: o.Namespace, Formats: []trust.Format{
		notary.Format{Hosts: registry.NewHosts(time.Now), Budget: p.budget},
	}}
	compliance := &running.Reconciler{
		Client: c, Live: live, Store: p.store, Tracker: p.tracker, Status: writer, Clock: clock.RealClock{}, Exempt: p.exempt, Compliance: p.ran,
	}
	p.store.Changed = compliance.Notify
	heads, err := newRecordCache(p.mgr, o.Namespace)
	if err != nil {
		return err
	}
	keeper := &records.Reconciler{
		Client: c, Live: live, Heads: heads, Namespace: o.Namespace, Store: p.store, Tracker: p.tracker, Clock: clock.RealClock{}, Elected: p.mgr.Elected(),
		KeepUnused: o.ForgetUnusedAfter,
	}
	p.store.Moved = keeper.Notify
	reporter, err := reports.NewWriter(p.mgr.GetConfig(), clock.RealClock{})
	if err != nil {
		return err
	}
	return errors.Join(
		(&publication.ImagePolicyReconciler{Client: c, Store: p.store, Status: writer, Compliance: p.ran, Gate: p.gate}).SetupWithManager(ctx, p.mgr),
		(&publication.TrustRootReconciler{
			Client: c, Store: p.store, Tracker: p.tracker, Status: writer, Builder: builder, Changes: p.changes, Records: keeper,
			Clock: clock.RealClock{}, ExpiryWarning: o.ExpiryWarning,
		}).SetupWithManager(ctx, p.mgr),
		keeper.SetupWithManager(p.mgr, heads),
		compliance.SetupWithManager(p.mgr),
		reporter.SetupWithManager(p.mgr, p.ran),
		(&gate.Reconciler{
			Client: c, Live: live, Store: p.store, Namespace: o.Namespace, URL: o.WebhookURL, Certificate: p.serving,
			Exempt: p.exempt, Rules: webhooks.Rules(o.Kinds), MatchConditions: webhooks.MatchConditions(),
			MutatePath: webhooks.MutatePath, ValidatePath: webhooks.ValidatePath, Metrics: p.metrics,
			Observation: p.gate, Clock: clock.RealClock{},
		}).SetupWithManager(p.mgr),
	)
}

// addGate serves admission.
func (p *parts) addGate(server *webhooks.Server) error {
	handlers := &webhooks.Gate{
		Store: p.store, Tracker: p.tracker, Namespaces: p.mgr.GetClient(), LiveNamespaces: p.mgr.GetAPIReader(),
		Kinds: p.options.Kinds, Clock: clock.RealClock{}, Events: p.mgr.GetEventRecorder("countersign"), Metrics: p.metrics,
	}
	handlers.Register(p.mgr.GetWebhookServer().Register) // which has the manager start it
	server.Contact = &webhooks.Contact{Live: p.mgr.GetAPIReader(), Clock: clock.RealClock{}}
	server.Metrics = p.metrics
	var clients error
	if p.options.WebhookClientCA != "" {
		server.Clients = certs.NewClientCA(p.options.WebhookClientCA, clock.RealClock{})
		clients = errors.Join(
			p.mgr.Add(server.Clients),
			p.mgr.AddReadyzCheck("client-ca", func(*http.Request) error { return server.Clients.Ready() }),
		)
	}
	return errors.Join(
		clients,
		p.mgr.Add(server.Contact),
		p.mgr.AddHealthzCheck("webhook", server.StartedChecker()),
		p.mgr.AddReadyzCheck("webhook", server.StartedChecker()),
		p.mgr.AddReadyzCheck("stays", server.Ready),
		p.mgr.AddReadyzCheck("certificate", func(*http.Request) error { return p.serving.Ready() }),
	)
}

// addCertificate has the replica follow its certificate.
func (p *parts) addCertificate() error {
	switch serving := p.serving.(type) {
	case *certs.Own:
		return (&certificate.Reconciler{Client: p.mgr.GetClient(), Certificate: serving}).SetupWithManager(p.mgr)
	case *certs.Mounted:
		return p.mgr.Add(serving)
	}
	return nil
}

// addRunnables fills the store and keeps it up to date. The replica is ready when it can decide.
func (p *parts) addRunnables() error {
	primer := &publication.Primer{
		Client: p.mgr.GetClient(), Store: p.store, Tracker: p.tracker,
		Running: running.Needs{
			Client: p.mgr.GetClient(), Live: p.mgr.GetAPIReader(), Store: p.store, Clock: clock.RealClock{}, Exempt: p.exempt,
		},
	}
	return errors.Join(
		p.mgr.Add(replicated(p.tracker.Run)),
		p.mgr.Add(primer),
		p.mgr.AddReadyzCheck("policies", func(*http.Request) error { return primer.Ready() }),
	)
}

// replicated is a Runnable that runs on every replica, the leader or not.
type replicated func(context.Context) error

// Start implements manager.Runnable.
func (r replicated) Start(ctx context.Context) error { return r(ctx) }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (replicated) NeedLeaderElection() bool { return false }
