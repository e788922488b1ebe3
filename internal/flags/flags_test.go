package flags

import (
	"errors"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/workload"
)

func TestParse(t *testing.T) {
	cases := map[string]struct {
		args []string
		want func(*Options)
		err  string
	}{
		"defaults": {want: func(*Options) {}},
		"uncovered": {
			args: []string{"--uncovered-images=Deny"}, want: func(o *Options) { o.Uncovered = policy.UncoveredDeny },
		},
		"url": {
			args: []string{"--webhook-url=https://127.0.0.1:9443"},
			want: func(o *Options) { o.WebhookURL = "https://127.0.0.1:9443" },
		},
		"exempt": {
			args: []string{"--exempt-namespaces=a,b"},
			want: func(o *Options) { o.ExemptNamespaces = []string{"a", "b"} },
		},
		"uncovered typo": {
			args: []string{"--uncovered-images=allow"}, err: "--uncovered-images=allow: must be Allow, Warn or Deny",
		},
		"short names": {args: []string{"--short-names=Deny"}, want: func(o *Options) { o.ShortNames = "Deny" }},
		"short names typo": {
			args: []string{"--short-names=dockerio"}, err: "--short-names=dockerio: must be DockerIO or Deny",
		},
		"short names none": {args: []string{"--short-names="}, err: "--short-names=: must be DockerIO or Deny"},
		"plain url":        {args: []string{"--webhook-url=http://127.0.0.1:9443"}, err: "--webhook-url"},
		"port":             {args: []string{"--webhook-port=70000"}, err: "--webhook-port=70000"},
		"namespace":        {args: []string{"--namespace=Not_One"}, err: `"Not_One" is not the name of a namespace`},
		"exempt pattern": {
			args: []string{"--exempt-namespaces=team-*"}, err: `"team-*" is not the name of a namespace`,
		},
		"forget never": {
			args: []string{"--forget-unused-after=0"}, want: func(o *Options) { o.ForgetUnusedAfter = 0 },
		},
		"forget too soon": {
			args: []string{"--forget-unused-after=1h"}, err: "--forget-unused-after=1h0m0s: must be at least 24h",
		},
		"no delay": {args: []string{"--shutdown-delay=0"}, want: func(o *Options) { o.ShutdownDelay = 0 }},
		"delay too long": {
			args: []string{"--shutdown-delay=61s"}, err: "--shutdown-delay=1m1s: must be from 0s to 1m",
		},
		"delay negative": {
			args: []string{"--shutdown-delay=-1s"}, err: "--shutdown-delay=-1s: must be from 0s to 1m",
		},
		"expiry warning": {
			args: []string{"--expiry-warning=24h"}, want: func(o *Options) { o.ExpiryWarning = 24 * time.Hour },
		},
		"no warning": {
			args: []string{"--expiry-warning=-1h"}, err: "--expiry-warning=-1h0m0s: must be from 0 to 8760h",
		},
		"plain metrics": {
			args: []string{"--metrics-secure=false"}, want: func(o *Options) { o.MetricsSecure = false },
		},
		"pull secrets": {args: []string{"--use-pull-secrets"}, want: func(o *Options) { o.UsePullSecrets = true }},
		"client CA": {
			args: []string{"--webhook-client-ca=/ca.crt"}, want: func(o *Options) { o.WebhookClientCA = "/ca.crt" },
		},
		"argument":         {args: []string{"serve"}, err: `unexpected argument "serve"`},
		"unknown flag":     {args: []string{"--webhok-port=1"}, err: "unknown flag"},
		"several problems": {args: []string{"--webhook-port=0", "--webhook-url=x"}, err: "--webhook-url=x"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(c.args)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error = %v, want it to say %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := Options{WebhookPort: 9443, LeaderElect: true, MetricsBindAddress: "0", MetricsSecure: true,
				HealthProbeBindAddress: ":8081",
				Settings: Settings{
					Namespace: "countersign-system", Uncovered: policy.UncoveredAllow,
					ExemptNamespaces: got.ExemptNamespaces[:0], Kinds: workload.Builtin(),
				},
				ForgetUnusedAfter: 720 * time.Hour, ShutdownDelay: 5 * time.Second, ExpiryWarning: 72 * time.Hour,
				LogLevel: "info", LogFormat: "json",
			}
			c.want(&want)
			byName := cmp.Transformer("name", func(k workload.Kind) string { return k.Name })
			if diff := cmp.Diff(want, got, byName); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The error names each bad value. The good ones are added to the builtin kinds.
func TestWorkloadKinds(t *testing.T) {
	const rollouts = "rollouts.v1alpha1.argoproj.io=spec.template"
	const services = "services.v1.serving.knative.dev=spec.template"
	for _, args := range [][]string{
		{"--workload-kinds=" + rollouts + "," + services},
		{"--workload-kinds", rollouts, "--workload-kinds=" + services},
	} {
		o, err := Parse(args)
		if err != nil {
			t.Fatal(err)
		}
		further := o.Kinds[len(workload.Builtin()):]
		if len(further) != 2 || further[0].Template != "spec.template" || further[0].Resource != "rollouts" ||
			further[1].Resource != "services" {
			t.Errorf("%q: got %+v", args, further)
		}
	}
	_, err := Parse([]string{
		"--webhook-port=0",
		"--workload-kinds=" + rollouts + ",deployments.v1.apps=spec.template,widgets.v1.example.com=template",
	})
	for _, want := range []string{
		"--webhook-port=0", "--workload-kinds: ",
		`"deployments.v1.apps=spec.template": Deployment is checked in any case`,
		`"widgets.v1.example.com=template": the path "template" must begin with spec`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want it to say %s", err, want)
		}
	}
}

// Further placeholders apply to the further kinds, too. The error names each bad value.
func TestImagePlaceholders(t *testing.T) {
	t.Setenv("COUNTERSIGN_IMAGE_PLACEHOLDERS", "later=example.com/inject,auto=inject=yes")
	o, err := Parse([]string{"--workload-kinds=rollouts.v1alpha1.argoproj.io=spec.template"})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range o.Kinds[len(workload.Builtin()):] {
		for image, want := range map[string]int{"later": 0, "auto": 1} {
			got, err := k.Read(
				[]byte(
					`{"spec":{"template":{"metadata":{"labels":{"example.com/inject":""}},"spec":{"containers":[{"image":"` +
						image +
						`"}]}}}}`))
			if err != nil || len(got.Images) != want {
				t.Errorf("%s: %+v, %v; want %d", image, got.Images, err, want)
			}
		}
	}
	_, err = Parse([]string{"--image-placeholders=auto,registry.example.com/app=inject", "--workload-kinds=x"})
	for _, want := range []string{
		"--workload-kinds: ", "--image-placeholders: ", `"auto": must be IMAGE=MARK`,
		`"registry.example.com/app=inject": "registry.example.com/app" is an image`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want it to say %s", err, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("COUNTERSIGN_EXEMPT_NAMESPACES", "a,b")
	t.Setenv("COUNTERSIGN_UNCOVERED_IMAGES", "Deny")
	t.Setenv("COUNTERSIGN_EXPIRY_WARNING", "24h")
	t.Setenv("COUNTERSIGN_WEBHOOK_CLIENT_CA", "/ca.crt")
	t.Setenv("COUNTERSIGN_WEBHOOK_PORT", "tcp://10.96.0.20:443") // as Kubernetes sets it for a Service of that name
	got, err := Parse([]string{"--exempt-namespaces=c", "--expiry-warning=48h"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"c"}, got.ExemptNamespaces); diff != "" {
		t.Errorf("an argument beside the environment: %s", diff)
	}
	if got.Uncovered != policy.UncoveredDeny || got.ExpiryWarning != 48*time.Hour || got.WebhookPort != 9443 ||
		got.WebhookClientCA != "/ca.crt" {
		t.Errorf("got %v, %s, %d, %s", got.Uncovered, got.ExpiryWarning, got.WebhookPort, got.WebhookClientCA)
	}
	if got, err = Parse(nil); err != nil || !slices.Equal(got.ExemptNamespaces, []string{"a", "b"}) {
		t.Errorf("the environment alone: %v, %v", got.ExemptNamespaces, err)
	}
	for variable, value := range map[string]string{
		"COUNTERSIGN_EXPIRY_WARNING": "soon", "COUNTERSIGN_UNCOVERED_IMAGES": "deny", "COUNTERSIGN_SHORT_NAMES": "deny",
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, value)
			if _, err := Parse(nil); err == nil || !strings.Contains(err.Error(), value) {
				t.Errorf("error = %v, want it to say %s", err, value)
			}
		})
	}
}

// An argument or environment variable takes precedence over the default of the platform.
func TestReadShortNames(t *testing.T) {
	const dockerIO, deny = policy.ShortNamesDockerIO, policy.ShortNamesDeny
	for name, c := range map[string]struct {
		args             []string
		environment      string
		plain, openShift policy.ShortNames
	}{
		"default":              {nil, "", dockerIO, deny},
		"Deny":                 {[]string{"--short-names=Deny"}, "", deny, deny},
		"DockerIO":             {[]string{"--short-names=DockerIO"}, "", dockerIO, dockerIO},
		"environment":          {nil, "Deny", deny, deny},
		"environment, too":     {nil, "DockerIO", dockerIO, dockerIO},
		"argument before that": {[]string{"--short-names=DockerIO"}, "Deny", dockerIO, dockerIO},
	} {
		t.Run(name, func(t *testing.T) {
			if c.environment != "" {
				t.Setenv("COUNTERSIGN_SHORT_NAMES", c.environment)
			}
			o, err := Parse(c.args)
			if err != nil {
				t.Fatal(err)
			}
			if got := o.ReadShortNames(false); got != c.plain {
				t.Errorf("%s, want %s", got, c.plain)
			}
			if got := o.ReadShortNames(true); got != c.openShift {
				t.Errorf("on OpenShift %s, want %s", got, c.openShift)
			}
		})
	}
	if got := (Settings{ShortNames: "anything"}).ReadShortNames(false); got != deny {
		t.Errorf("a value that Parse refuses: %s", got)
	}
}

func TestHelp(t *testing.T) {
	if _, err := Parse([]string{"--help"}); !errors.Is(err, pflag.ErrHelp) {
		t.Errorf("error = %v, want pflag.ErrHelp", err)
	}
}

func TestExempt(t *testing.T) {
	o := Settings{Namespace: "countersign-system", ExemptNamespaces: []string{"legacy", "kube-system"}}
	plain, openShift := o.Exempt(false), o.Exempt(true)
	if diff := cmp.Diff(
		Exempt{Names: []string{"countersign-system", "kube-node-lease", "kube-public", "kube-system", "legacy"}},
		plain); diff != "" {
		t.Error(diff)
	}
	for namespace, want := range map[string]struct{ plain, openShift bool }{
		"kube-system":       {true, true},
		"legacy":            {true, true},
		"legacy-2":          {false, false},
		"openshift":         {false, true},
		"openshift-ingress": {false, true},
		"openshifty":        {false, false},
		"my-openshift-app":  {false, false},
		"shop":              {false, false},
	} {
		if got := plain.Has(namespace); got != want.plain {
			t.Errorf("%s is exempt: %t, want %t", namespace, got, want.plain)
		}
		if got := openShift.Has(namespace); got != want.openShift {
			t.Errorf("on OpenShift %s is exempt: %t, want %t", namespace, got, want.openShift)
		}
	}
}

func TestVersion(t *testing.T) {
	if _, err := Parse([]string{"--version"}); !errors.Is(err, ErrVersion) {
		t.Errorf("error = %v, want ErrVersion", err)
	}
	vcs := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs.revision", Value: "4f90c9c"}, {Key: "vcs.modified", Value: modified}}
	}
	for want, info := range map[string]*debug.BuildInfo{
		"v0.1.0 (commit 4f90c9c, go1.26.8)": {
			GoVersion: "go1.26.8", Main: debug.Module{Version: "v0.1.0"}, Settings: vcs("false"),
		},
		"v0.1.0 (commit 4f90c9c with changes, go1.26.8)": {
			GoVersion: "go1.26.8", Main: debug.Module{Version: "v0.1.0+dirty"}, Settings: vcs("true"),
		},
		"devel (go1.26.8)": {GoVersion: "go1.26.8", Main: debug.Module{Version: "(devel)"}},
		"devel (go1.26)":   {GoVersion: "go1.26"},
	} {
		if got := describe("", info); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got, want := describe("v0.2.0",
		&debug.BuildInfo{
			GoVersion: "go1.26.8", Main: debug.Module{Version: "v0.1.0"},
		}), "v0.2.0 (go1.26.8)"; got != want {
		t.Errorf("stamped: got %q, want %q", got, want)
	}
}
