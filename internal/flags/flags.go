// Package flags parses the manager's flags. It validates what it can without a cluster, and builds
// nothing but the logger.
package flags

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// namespaceFile holds the namespace of a Pod's service account, inside the Pod.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// Options are the manager's settings.
type Options struct {
	// Kubeconfig is a file; empty: in-cluster, or what $KUBECONFIG names.
	Kubeconfig string
	// WebhookPort is the port on which admission is served.
	WebhookPort int
	// WebhookURL, where set, is the base URL by which the API server reaches the webhook instead of
	// its Service.
	WebhookURL string
	// CertDir is a folder that may hold a serving certificate: tls.crt, tls.key and ca.crt.
	CertDir string
	// WebhookClientCA, where set, is a file with the CAs that client certificates of admission
	// requests must chain to.
	WebhookClientCA string
	// LeaderElect says whether replicas elect one that writes status and events.
	LeaderElect bool
	// MetricsBindAddress and HealthProbeBindAddress are listening addresses; "0" is off.
	MetricsBindAddress, HealthProbeBindAddress string
	// MetricsSecure serves metrics over TLS, with the certificate of the webhook, and only to
	// clients that the API server authenticates and authorizes to get /metrics.
	MetricsSecure bool
	Settings
	// UsePullSecrets says whether the pull secrets of a namespace may read a registry that refuses
	// the credentials of a trust root.
	UsePullSecrets bool
	// ForgetUnusedAfter is for how long the evidence of an unused repository is kept; 0: for ever.
	ForgetUnusedAfter time.Duration
	// ShutdownDelay is for how long a replica that ends reports not ready and goes on answering.
	ShutdownDelay time.Duration
	// ExpiryWarning is how long before metadata expires the condition Expiring says so.
	ExpiryWarning time.Duration
	// LogLevel is "debug", "info" or "error", and LogFormat "json" or "text".
	LogLevel, LogFormat string
}

// ErrVersion is the error of Parse for --version.
var ErrVersion = errors.New("the version is requested")

// declare adds the flags to f, with their defaults. It returns those of Settings, and whether the
// version is requested.
func declare(f *pflag.FlagSet, o *Options) (settings *SettingFlags, version *bool) {
	f.StringVar(&o.Kubeconfig, "kubeconfig", "",
		"kubeconfig file; default: the cluster that the manager runs in, or $KUBECONFIG")
	f.IntVar(&o.WebhookPort, "webhook-port", 9443, "port on which admission is served")
	f.StringVar(&o.WebhookURL, "webhook-url", "",
		"https:// URL by which the API server reaches the webhook, instead of its Service")
	f.StringVar(&o.CertDir, "cert-dir", "",
		"folder with tls.crt, tls.key and ca.crt to serve with; default: a certificate made by the manager")
	f.StringVar(&o.WebhookClientCA, "webhook-client-ca", "",
		"PEM file with the CAs of client certificates; admission requests without one are then refused, so "+
			"configure the API servers first; default: no client certificate is needed")
	f.BoolVar(&o.LeaderElect, "leader-elect", true, "elect one of several replicas to write status and events")
	f.StringVar(&o.MetricsBindAddress, "metrics-bind-address", "0",
		"address of the metrics endpoint, such as :8080; 0: off")
	f.BoolVar(&o.MetricsSecure, "metrics-secure", true,
		"serve metrics over TLS, with the webhook's certificate, only to clients that the RBAC of the cluster "+
			"allows to get /metrics; false: plain http, to every client")
	f.StringVar(&o.HealthProbeBindAddress, "health-probe-bind-address", ":8081",
		"address of /healthz and /readyz; 0: off")
	f.StringVar(&o.Namespace, "namespace", "",
		"the operator's own namespace; default: where its Pod runs, else countersign-system")
	settings = DeclareSettings(f)
	f.BoolVar(&o.UsePullSecrets, "use-pull-secrets", false,
		"read an image registry that refuses the credentials of a TrustRoot with the image pull secrets of the "+
			"Pod and of its service account, for images of their namespace; needs the right to get Secrets and "+
			"ServiceAccounts in every namespace")
	f.DurationVar(&o.ForgetUnusedAfter, "forget-unused-after", 30*24*time.Hour,
		"how long the evidence of a repository is kept that no running or requested image needs; at least 24h; "+
			"0: for ever")
	f.DurationVar(&o.ShutdownDelay, "shutdown-delay", 5*time.Second,
		"how long a replica that ends reports not ready and goes on answering, until clients use another one; at "+
			"most 1m. terminationGracePeriodSeconds should be 20 s longer")
	f.DurationVar(&o.ExpiryWarning, "expiry-warning", 72*time.Hour,
		"how long before signed metadata expires the condition Expiring of its TrustRoot warns; from 0 to 8760h")
	f.StringVar(&o.LogLevel, "log-level", "info", "least severe level that is logged: debug, info or error")
	f.StringVar(&o.LogFormat, "log-format", "json", "format of the log: json, one object a line, or text")
	return settings, f.Bool("version", false, "print the version, and nothing else")
}

// Parse reads the environment and the arguments that follow the program's name. The error is
// pflag.ErrHelp for --help, and ErrVersion for --version.
func Parse(args []string) (Options, error) {
	var o Options
	f := pflag.NewFlagSet("countersign", pflag.ContinueOnError)
	settings, version := declare(f, &o)
	if err := f.Parse(args); err != nil {
		return Options{}, err
	}
	if *version {
		return Options{}, ErrVersion
	}
	if err := fromEnvironment(f, os.LookupEnv); err != nil {
		return Options{}, err
	}
	if f.NArg() > 0 {
		return Options{}, fmt.Errorf("unexpected argument %q: the manager takes flags only", f.Arg(0))
	}
	namespace := o.Namespace
	if namespace == "" {
		namespace = ownNamespace()
	}
	var err error
	o.Settings, err = settings.Read(namespace)
	return o, errors.Join(o.validate(), err)
}

// fromEnvironment sets flags that are not among the arguments from variables such as
// COUNTERSIGN_EXEMPT_NAMESPACES for --exempt-namespaces. It is for installations that cannot add
// arguments, such as a Subscription of OLM.
func fromEnvironment(f *pflag.FlagSet, lookup func(string) (string, bool)) error {
	for _, name := range []string{
		"uncovered-images", "short-names", "exempt-namespaces", "workload-kinds", "image-placeholders",
		"use-pull-secrets", "forget-unused-after", "shutdown-delay", "expiry-warning", "webhook-client-ca", "log-level",
		"log-format",
	} {
		variable := "COUNTERSIGN_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		value, ok := lookup(variable)
		if !ok || f.Changed(name) {
			continue
		}
		if err := f.Set(name, value); err != nil {
			return fmt.Errorf("environment variable %s: %w", variable, err)
		}
	}
	return nil
}

func (o Options) validate() error {
	errs := o.validateLog()
	if o.WebhookPort < 1 || o.WebhookPort > 65535 {
		errs = append(errs, fmt.Errorf("--webhook-port=%d: must be from 1 to 65535", o.WebhookPort))
	}
	if o.ForgetUnusedAfter != 0 && o.ForgetUnusedAfter < 24*time.Hour {
		errs = append(errs,
			fmt.Errorf("--forget-unused-after=%s: must be at least 24h, or 0 for never", o.ForgetUnusedAfter))
	}
	if o.ShutdownDelay < 0 || o.ShutdownDelay > time.Minute {
		errs = append(errs, fmt.Errorf("--shutdown-delay=%s: must be from 0s to 1m", o.ShutdownDelay))
	}
	if o.ExpiryWarning < 0 || o.ExpiryWarning > 365*24*time.Hour {
		errs = append(errs, fmt.Errorf("--expiry-warning=%s: must be from 0 to 8760h", o.ExpiryWarning))
	}
	if o.WebhookURL != "" {
		u, err := url.Parse(o.WebhookURL)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" ||
			u.User != nil {
			errs = append(errs,
				fmt.Errorf("--webhook-url=%s: must be an https:// URL without user, query or fragment", o.WebhookURL))
		}
	}
	return errors.Join(errs...)
}

func ownNamespace() string {
	if b, err := os.ReadFile(namespaceFile); err == nil {
		return strings.TrimSpace(string(b))
	}
	return "countersign-system"
}

// WebhookHost returns the host by which the API server reaches the webhook: the host of WebhookURL,
// or without one the host name of a Service in Namespace.
func (o Options) WebhookHost(service string) (string, error) {
	if o.WebhookURL == "" {
		return fmt.Sprintf("%s.%s.svc", service, o.Namespace), nil
	}
	u, err := url.Parse(o.WebhookURL)
	if err != nil {
		return "", err
	}
	return u.Hostname(), nil
}
