// Package flags reads the manager's flags. It checks what can be checked without a cluster, and
// builds nothing but the logger.
package flags

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/workload"
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
	// CertDir is a folder that may hold tls.crt, tls.key and ca.crt to serve with.
	CertDir string
	// WebhookClientCA, where set, is a file with the CAs that the certificate of whoever asks for
	// admission must chain to.
	WebhookClientCA string
	// LeaderElect says whether replicas elect one that writes status and events.
	LeaderElect bool
	// MetricsBindAddress and HealthProbeBindAddress are listening addresses; "0" is off.
	MetricsBindAddress, HealthProbeBindAddress string
	// MetricsSecure has metrics served over TLS, with the certificate of the webhook, to those
	// alone whom the API server authenticates and authorizes to get /metrics.
	MetricsSecure bool
	// Namespace is the operator's own.
	Namespace string
	// Uncovered says what happens to an image that no policy covers.
	Uncovered policy.Uncovered
	// ShortNames says how an image without a registry host is read, as "DockerIO" or "Deny"; empty:
	// by the platform, as ReadShortNames says.
	ShortNames string
	// ExemptNamespaces are exempt from admission, besides the ones that always are.
	ExemptNamespaces []string
	// ForgetUnusedAfter is for how long what was verified of a repository is kept that nothing asks
	// for; 0: for ever.
	ForgetUnusedAfter time.Duration
	// ShutdownDelay is for how long a replica that is to end reports that it is not ready and goes
	// on answering.
	ShutdownDelay time.Duration
	// ExpiryWarning is how long before metadata expires the condition Expiring says so.
	ExpiryWarning time.Duration
	// Kinds are the kinds of workload that are checked: the builtin ones, and those that
	// --workload-kinds names. Their templates may hold the placeholders that --image-placeholders
	// names.
	Kinds workload.Kinds
	// LogLevel and LogFormat say what Logger writes: "debug", "info" or "error", as "json" or
	// "text".
	LogLevel, LogFormat string
}

// ErrVersion is the error of Parse where the version is asked for.
var ErrVersion = errors.New("the version is asked for")

// values are the flags that Parse reads further: text that stands for a value of another type.
type values struct {
	uncoveredImages     string
	kinds, placeholders []string
	version             bool
}

// declare gives f the flags, with their defaults, and returns what they set beside o.
func declare(f *pflag.FlagSet, o *Options) *values {
	v := &values{}
	f.StringVar(&o.Kubeconfig, "kubeconfig", "",
		"kubeconfig file; default: the cluster that the manager runs in, or $KUBECONFIG")
	f.IntVar(&o.WebhookPort, "webhook-port", 9443, "port on which admission is served")
	f.StringVar(&o.WebhookURL, "webhook-url", "",
		"https:// URL by which the API server reaches the webhook, instead of its Service")
	f.StringVar(&o.CertDir, "cert-dir", "",
		"folder with tls.crt, tls.key and ca.crt to serve with; default: a certificate made by the manager")
	f.StringVar(&o.WebhookClientCA, "webhook-client-ca", "",
		"PEM file with the CAs of client certificates; admission then answers nobody without one, so API servers "+
			"must be given theirs first; default: anybody is answered")
	f.BoolVar(&o.LeaderElect, "leader-elect", true, "elect one of several replicas to write status and events")
	f.StringVar(&o.MetricsBindAddress, "metrics-bind-address", "0",
		"address of the metrics endpoint, such as :8080; 0: off")
	f.BoolVar(&o.MetricsSecure, "metrics-secure", true,
		"serve metrics over TLS, with the webhook's certificate, to those alone who may get /metrics by the RBAC of "+
			"the cluster; false: plain http, to everybody")
	f.StringVar(&o.HealthProbeBindAddress, "health-probe-bind-address", ":8081",
		"address of /healthz and /readyz; 0: off")
	f.StringVar(&o.Namespace, "namespace", "",
		"the operator's own namespace; default: where its Pod runs, else countersign-system")
	f.StringVar(&v.uncoveredImages, "uncovered-images", "Allow",
		"what happens to an image that no policy covers: Allow, Warn or Deny")
	f.StringVar(&o.ShortNames, "short-names", "",
		"how an image without a registry host is read: DockerIO, as one of docker.io, or Deny, as a name that nodes "+
			"may read otherwise, which fails every policy that holds in the namespace; default: DockerIO, and on "+
			"OpenShift Deny")
	f.StringSliceVar(&o.ExemptNamespaces, "exempt-namespaces", nil,
		"namespaces exempt from admission, besides kube-system, kube-node-lease, kube-public and the operator's own; "+
			"and, on OpenShift, openshift and openshift-*")
	f.DurationVar(&o.ForgetUnusedAfter, "forget-unused-after", 30*24*time.Hour,
		"for how long what was verified of a repository is kept that no image that runs or is asked for belongs to; "+
			"at least 24h; 0: for ever")
	f.DurationVar(&o.ShutdownDelay, "shutdown-delay", 5*time.Second,
		"for how long a replica that is to end reports not ready and goes on answering, until nobody asks it; at "+
			"most 1m. terminationGracePeriodSeconds should be 20 s longer")
	f.DurationVar(&o.ExpiryWarning, "expiry-warning", 72*time.Hour,
		"how long before signed metadata expires the condition Expiring of its TrustRoot warns; from 0 to 8760h")
	f.StringSliceVar(&v.kinds, "workload-kinds", nil,
		"further kinds of workload to check, each RESOURCE.VERSION.GROUP=PATH with the path of its pod template, "+
			"such as rollouts.v1alpha1.argoproj.io=spec.template")
	f.StringSliceVar(&v.placeholders, "image-placeholders", nil,
		"further images that an injector replaces in Pods, each IMAGE=MARK or IMAGE=MARK=VALUE with the label or "+
			"annotation of the pod templates in which they are let through, such as "+
			"auto=sidecar.istio.io/inject=true, which is known in any case")
	f.StringVar(&o.LogLevel, "log-level", "info", "what is logged: debug, info or error, each with what is more severe")
	f.StringVar(&o.LogFormat, "log-format", "json", "how it is logged: json, one object a line, or text")
	f.BoolVar(&v.version, "version", false, "print the version, and nothing else")
	return v
}

// Parse reads the environment and the arguments that follow the program's name. The error of a
// request for help is pflag.ErrHelp, and that of one for the version ErrVersion.
func Parse(args []string) (Options, error) {
	var o Options
	f := pflag.NewFlagSet("countersign", pflag.ContinueOnError)
	v := declare(f, &o)
	if err := f.Parse(args); err != nil {
		return Options{}, err
	}
	if v.version {
		return Options{}, ErrVersion
	}
	if err := fromEnvironment(f, os.LookupEnv); err != nil {
		return Options{}, err
	}
	if f.NArg() > 0 {
		return Options{}, fmt.Errorf("unexpected argument %q: the manager takes flags only", f.Arg(0))
	}
	if o.Namespace == "" {
		o.Namespace = ownNamespace()
	}
	switch v.uncoveredImages {
	case "Allow":
		o.Uncovered = policy.UncoveredAllow
	case "Warn":
		o.Uncovered = policy.UncoveredWarn
	case "Deny":
		o.Uncovered = policy.UncoveredDeny
	default:
		return Options{}, fmt.Errorf("--uncovered-images=%s: must be Allow, Warn or Deny", v.uncoveredImages)
	}
	if f.Changed("short-names") && o.ShortNames != policy.ShortNamesDockerIO.String() &&
		o.ShortNames != policy.ShortNamesDeny.String() {
		return Options{}, fmt.Errorf(
			"--short-names=%s: must be DockerIO or Deny; leave it out for the default of the platform", o.ShortNames)
	}
	var kinds error
	o.Kinds, kinds = readKinds(v.kinds, v.placeholders)
	return o, errors.Join(o.validate(), kinds)
}

// readKinds returns the builtin kinds of workload and further ones, with further placeholders.
func readKinds(further, placeholders []string) (workload.Kinds, error) {
	kinds, err := workload.Builtin().With(further)
	if err != nil {
		err = fmt.Errorf("--workload-kinds: %w", err)
	}
	kinds, odd := kinds.WithPlaceholders(placeholders)
	if odd != nil {
		odd = fmt.Errorf("--image-placeholders: %w", odd)
	}
	return kinds, errors.Join(err, odd)
}

// fromEnvironment sets flags that are not given as arguments, and that an administrator may want to
// set where no argument can be given, as through a Subscription of OLM:
// COUNTERSIGN_EXEMPT_NAMESPACES is --exempt-namespaces.
func fromEnvironment(f *pflag.FlagSet, lookup func(string) (string, bool)) error {
	for _, name := range []string{
		"uncovered-images", "short-names", "exempt-namespaces", "workload-kinds", "image-placeholders",
		"forget-unused-after", "shutdown-delay", "expiry-warning", "webhook-client-ca", "log-level", "log-format",
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

// ReadShortNames returns how short names are read: as --short-names says, and by default as the
// nodes of the platform are set up to. Those of OpenShift search several registries for such a
// name.
func (o Options) ReadShortNames(openShift bool) policy.ShortNames {
	if o.ShortNames == policy.ShortNamesDockerIO.String() || o.ShortNames == "" && !openShift {
		return policy.ShortNamesDockerIO
	}
	return policy.ShortNamesDeny
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
	for _, ns := range append([]string{o.Namespace}, o.ExemptNamespaces...) {
		if problems := validation.IsDNS1123Label(ns); len(problems) > 0 {
			errs = append(errs,
				fmt.Errorf("--namespace or --exempt-namespaces: %q is not the name of a namespace: %s", ns,
					strings.Join(problems, "; ")))
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

// WebhookHost returns the host by which the API server reaches the webhook: that of WebhookURL, or
// without one that of a Service in Namespace.
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
