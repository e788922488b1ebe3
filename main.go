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
	"github.com/countersign-dev/countersign/internal/cluster"
	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/formats"
	"github.com/countersign-dev/countersign/internal/gatecheck"
	"github.com/countersign-dev/countersign/internal/metrics"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trustroot"
	"github.com/countersign-dev/countersign/webhooks"
)

// version is the version of the release; the linker sets it in the image.
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

// manage runs the manager.
func manage(ctx context.Context, args []string) error {
	o, err := flags.Parse(args)
	if err != nil {
		return err
	}
	ctrl.SetLogger(o.Logger(os.Stderr))
	klog.SetLogger(ctrl.Log.WithName("client")) // the logger of the Kubernetes libraries
	ctrl.Log.Info("Started", "version", flags.Version(version))
	return run(ctx, o)
}

// run builds the manager and serves until ctx ends.
func run(ctx context.Context, o flags.Options) error {
	config, err := cluster.Config(o.Kubeconfig)
	if err != nil {
		return err
	}
	serving, err := newServing(config, o)
	if err != nil {
		return err
	}
	openShift, err := cluster.Discover(ctx, config)
	if err != nil {
		return err
	}
	mgr, err := newManager(config, serving, o)
	if err != nil {
		return err
	}
	server, err := build(ctx, mgr, serving, openShift, o)
	if err != nil {
		return err
	}
	return serve(ctx, mgr, server)
}

// newFormats returns the formats, with limits for all of them together.
func newFormats(m memory, pullSecrets registry.Keychain, counts *metrics.Metrics) []trust.Format {
	hosts := registry.NewHosts(time.Now)
	hosts.Observer = counts
	return formats.All(formats.Options{Hosts: hosts, Budget: budget.New(m.decoding), Keychain: pullSecrets})
}

// build adds all parts to the manager, in the order in which they need each other.
func build(ctx context.Context, mgr ctrl.Manager, serving certificate.Serving, openShift bool,
	o flags.Options) (*webhooks.Server, error) {
	c, live, now, memory := mgr.GetClient(), mgr.GetAPIReader(), clock.RealClock{}, limitMemory()
	exempt, shortNames := o.Exempt(openShift), o.ReadShortNames(openShift)
	ctrl.Log.Info("Set how short image names are read", "shortNames", shortNames.String(), "openShift", openShift)
	roots, moved, changed := &requests.Trigger{}, &records.Changes{}, &running.Changes{}
	secrets, counts := newPullSecrets(mgr, o), metrics.New(ctrlmetrics.Registry)
	decisions := store.New(store.Options{
		Uncovered: o.Uncovered, ShortNames: shortNames, MaxSize: memory.evidence, Observer: counts,
		Changed: changed.Notify, Moved: moved.Notify,
	})
	tracker := store.NewTracker(decisions, now, roots.Notify)
	compliance, gated := &running.Compliance{}, &gate.Observation{}
	counts.Show(metrics.State{
		Store: decisions, Tracker: tracker, Namespaces: c, Ran: compliance.Load, Gated: gated.Gated,
		Certificate: serving.GetCertificate,
	})
	heads, err := records.NewCache(ctx, mgr, o.Namespace)
	if err != nil {
		return nil, err
	}
	reporter, err := reports.NewWriter(mgr.GetConfig(), now)
	if err != nil {
		return nil, err
	}
	writer := status.Writer{Client: c, Events: mgr.GetEventRecorder(recorderName), Elected: mgr.Elected()}
	keeper := &records.Reconciler{
		Client: c, Live: live, Heads: heads, Namespace: o.Namespace, Store: decisions, Tracker: tracker, Clock: now,
		Elected: mgr.Elected(), KeepUnused: o.ForgetUnusedAfter, Changes: moved,
	}
	trustRoots := &publication.TrustRootReconciler{
		Client: c, Status: writer, Changes: roots, Clock: now, ExpiryWarning: o.ExpiryWarning,
		Publisher: &publication.Publisher{
			Reader: c, Store: decisions, Tracker: tracker, Records: keeper,
			Builder: trustroot.Builder{
				Reader: c, Namespace: o.Namespace, Formats: newFormats(memory, secrets.Keychain(), counts),
			},
		},
	}
	policies := &publication.ImagePolicyReconciler{Client: c, Store: decisions, Status: writer, Compliance: compliance,
		Gate: gated}
	primer := &publication.Primer{
		Client: c, Store: decisions, Tracker: tracker,
		Running: running.Needs{Client: c, Live: live, Store: decisions, Clock: now, Exempt: exempt},
	}
	evaluation := &running.Reconciler{
		Client: c, Live: live, Store: decisions, Tracker: tracker, Status: writer, Clock: now, Exempt: exempt,
		Changes: changed, Compliance: compliance,
	}
	configurations := &gate.Reconciler{
		Client: c, Live: live, Store: decisions, Namespace: o.Namespace, URL: o.WebhookURL, Certificate: serving,
		Exempt: exempt, Clock: now, Rules: webhooks.Rules(o.Kinds), MatchConditions: webhooks.MatchConditions(),
		MutatePath: webhooks.MutatePath, ValidatePath: webhooks.ValidatePath, Metrics: counts, Observation: gated,
	}
	server := newWebhook(mgr, serving, decisions, tracker, secrets, counts, o)
	return server, errors.Join(
		mgr.Add(replicated(tracker.Run)), keeper.SetupWithManager(mgr, heads),
		trustRoots.SetupWithManager(ctx, mgr), policies.SetupWithManager(ctx, mgr), primer.SetupWithManager(mgr),
		evaluation.SetupWithManager(mgr), reporter.SetupWithManager(mgr, compliance),
		configurations.SetupWithManager(mgr), certificate.SetupWithManager(mgr, serving), server.SetupWithManager(mgr),
	)
}
