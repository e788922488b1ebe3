// Command countersign is the manager: it reconciles ImagePolicies and TrustRoots, serves the
// admission webhook, and keeps the webhook's configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/countersign-dev/countersign/controllers/certificate"
	"github.com/countersign-dev/countersign/controllers/gate"
	"github.com/countersign-dev/countersign/controllers/publication"
	"github.com/countersign-dev/countersign/controllers/records"
	"github.com/countersign-dev/countersign/controllers/reports"
	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/controllers/running"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/certs"
	"github.com/countersign-dev/countersign/internal/cluster"
	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/gatecheck"
	"github.com/countersign-dev/countersign/internal/metrics"
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
	case errors.Is(err, flags.ErrVersion):
		fmt.Println("countersign", flags.Version(version))
	case err != nil:
		fmt.Fprintln(os.Stderr, "countersign:", err)
		os.Exit(1)
	}
}

// manage is the manager.
func manage(ctx context.Context, args []string) error {
	o, err := flags.Parse(args)
	if err != nil {
		return err
	}
	ctrl.SetLogger(o.Logger(os.Stderr))
	klog.SetLogger(ctrl.Log.WithName("client")) // that of the Kubernetes libraries
	ctrl.Log.Info("Started", "version", flags.Version(version))
	return run(ctx, o)
}

// checkGate tries the gate of the cluster, and is no manager.
func checkGate(ctx context.Context, args []string) error {
	o, err := gatecheck.Parse(args)
	if err != nil {
		return err
	}
	config, err := cluster.Config(o.Kubeconfig)
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
func run(ctx context.Context, o flags.Options) error {
	config, err := cluster.Config(o.Kubeconfig)
	if err != nil {
		return err
	}
	scheme, err := cluster.Scheme()
	if err != nil {
		return err
	}
	host, err := o.WebhookHost(gate.ServiceName)
	if err != nil {
		return err
	}
	serving, err := certificate.New(config, scheme,
		certificate.Options{Dir: o.CertDir, Namespace: o.Namespace, Host: host})
	if err != nil {
		return err
	}
	openShift, err := cluster.Discover(ctx, config)
	if err != nil {
		return err
	}
	server := webhooks.NewServer(o.WebhookPort, serving.GetCertificate, o.ShutdownDelay, webhooks.DefaultLimits())
	mgr, err := newManager(config, scheme, server, metricsOptions(o, serving), o)
	if err != nil {
		return err
	}
	p := newParts(mgr, o, openShift, serving)
	writer := status.Writer{
		Client: mgr.GetClient(), Events: mgr.GetEventRecorder("countersign"), Elected: mgr.Elected(),
	}
	err = errors.Join(
		p.addPublication(ctx, writer), p.addLeader(writer), certificate.SetupWithManager(mgr, serving),
		p.addGate(server),
	)
	if err != nil {
		return err
	}
	return serve(ctx, mgr, server)
}

// parts are what the controllers and the gate share.
type parts struct {
	mgr     ctrl.Manager
	options flags.Options
	exempt  flags.Exempt
	serving certificate.Serving
	metrics *metrics.Metrics
	budget  *budget.Budget

	// The three wake a controller: roots that of TrustRoots, records that of records, and evaluate
	// that of what runs.
	roots    *requests.Trigger
	records  *records.Changes
	evaluate *running.Changes

	store   *store.Store
	tracker *store.Tracker
	// ran and gate hold what was found of what runs, and of the webhook configurations.
	ran  *running.Compliance
	gate *gate.Observation
}

func newParts(mgr ctrl.Manager, o flags.Options, openShift bool, serving certificate.Serving) *parts {
	memory := limitMemory()
	p := &parts{
		mgr: mgr, options: o, exempt: o.Exempt(openShift), serving: serving,
		metrics: metrics.New(ctrlmetrics.Registry), budget: budget.New(memory.decoding),
		roots: &requests.Trigger{}, records: &records.Changes{}, evaluate: &running.Changes{},
		store: store.New(o.Uncovered), ran: &running.Compliance{}, gate: &gate.Observation{},
	}
	p.store.Observer, p.store.MaxSize = p.metrics, memory.evidence
	p.store.Changed, p.store.Moved = p.evaluate.Notify, p.records.Notify
	p.store.ReadShortNames(o.ReadShortNames(openShift))
	ctrl.Log.Info("Set how short image names are read", "shortNames", o.ReadShortNames(openShift).String(), "openShift",
		openShift)
	p.tracker = store.NewTracker(p.store, clock.RealClock{}, p.roots.Notify)
	p.metrics.Show(metrics.State{
		Store: p.store, Tracker: p.tracker, Namespaces: mgr.GetClient(), Ran: p.ran.Load, Gated: p.gate.Gated,
		Certificate: serving.GetCertificate,
	})
	return p
}

// addPublication fills the store and keeps it up to date, on every replica.
func (p *parts) addPublication(ctx context.Context, writer status.Writer) error {
	c, live, o := p.mgr.GetClient(), p.mgr.GetAPIReader(), p.options
	heads, err := records.NewCache(p.mgr, o.Namespace)
	if err != nil {
		return err
	}
	keeper := &records.Reconciler{
		Client: c, Live: live, Heads: heads, Namespace: o.Namespace, Store: p.store, Tracker: p.tracker,
		Clock: clock.RealClock{}, Elected: p.mgr.Elected(), KeepUnused: o.ForgetUnusedAfter, Changes: p.records,
	}
	builder := publication.RootBuilder{Reader: c, Namespace: o.Namespace, Formats: []trust.Format{
		notary.Format{Hosts: registry.NewHosts(time.Now), Budget: p.budget},
	}}
	policies := &publication.ImagePolicyReconciler{
		Client: c, Store: p.store, Status: writer, Compliance: p.ran, Gate: p.gate,
	}
	roots := &publication.TrustRootReconciler{
		Client: c, Store: p.store, Tracker: p.tracker, Status: writer, Builder: builder, Changes: p.roots,
		Records: keeper,
		Clock:   clock.RealClock{}, ExpiryWarning: o.ExpiryWarning,
	}
	needs := running.Needs{Client: c, Live: live, Store: p.store, Clock: clock.RealClock{}, Exempt: p.exempt}
	primer := &publication.Primer{Client: c, Store: p.store, Tracker: p.tracker, Running: needs}
	return errors.Join(
		policies.SetupWithManager(ctx, p.mgr), roots.SetupWithManager(ctx, p.mgr),
		keeper.SetupWithManager(p.mgr, heads),
		p.mgr.Add(replicated(p.tracker.Run)), primer.SetupWithManager(p.mgr),
	)
}

// addLeader adds what the leader alone does.
func (p *parts) addLeader(writer status.Writer) error {
	c, live, o := p.mgr.GetClient(), p.mgr.GetAPIReader(), p.options
	reporter, err := reports.NewWriter(p.mgr.GetConfig(), clock.RealClock{})
	if err != nil {
		return err
	}
	compliance := &running.Reconciler{
		Client: c, Live: live, Store: p.store, Tracker: p.tracker, Status: writer, Clock: clock.RealClock{},
		Exempt:  p.exempt,
		Changes: p.evaluate, Compliance: p.ran,
	}
	configurations := &gate.Reconciler{
		Client: c, Live: live, Store: p.store, Namespace: o.Namespace, URL: o.WebhookURL, Certificate: p.serving,
		Exempt: p.exempt, Rules: webhooks.Rules(o.Kinds), MatchConditions: webhooks.MatchConditions(),
		MutatePath: webhooks.MutatePath, ValidatePath: webhooks.ValidatePath, Metrics: p.metrics,
		Observation: p.gate, Clock: clock.RealClock{},
	}
	return errors.Join(
		compliance.SetupWithManager(p.mgr), reporter.SetupWithManager(p.mgr, p.ran),
		configurations.SetupWithManager(p.mgr),
	)
}

// addGate serves admission.
func (p *parts) addGate(server *webhooks.Server) error {
	handlers := &webhooks.Gate{
		Store: p.store, Tracker: p.tracker, Namespaces: p.mgr.GetClient(), LiveNamespaces: p.mgr.GetAPIReader(),
		Kinds: p.options.Kinds, Clock: clock.RealClock{}, Events: p.mgr.GetEventRecorder("countersign"),
		Metrics: p.metrics,
	}
	handlers.Register(p.mgr.GetWebhookServer().Register) // which has the manager start it
	server.Contact = &webhooks.Contact{Live: p.mgr.GetAPIReader(), Clock: clock.RealClock{}}
	server.Metrics = p.metrics
	if p.options.WebhookClientCA != "" {
		server.Clients = certs.NewClientCA(p.options.WebhookClientCA, clock.RealClock{})
	}
	return server.SetupWithManager(p.mgr)
}
