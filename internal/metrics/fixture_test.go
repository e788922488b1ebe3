package metrics_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/metrics"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

var expiry = time.Unix(1_900_000_000, 0)

// signed is evidence of a signed repository without statements, which expires at expiry.
type signed struct {
	trust.Unsigned
	file, kind string
}

func (*signed) Signed() bool { return true }

func (s *signed) Expiry() (at time.Time, f string) { return expiry, s.file }

func (s *signed) Files() []trust.File {
	return []trust.File{{Name: s.file, Kind: s.kind, NotAfter: expiry}}
}

// answers is a trust root with a fault for some repositories.
type answers struct{ faults map[string]error }

func (*answers) Probe(context.Context, string) error { return nil }

func (*answers) Host(trust.Subject) string { return "notary.example.com" }

func (a *answers) Fetch(_ context.Context, about trust.Subject, _ trust.Evidence) (trust.Evidence, error) {
	repository := about.Repository
	if err := a.faults[repository]; err != nil {
		return nil, err
	}
	if strings.Contains(repository, "unsigned") {
		return trust.Unsigned{}, nil
	}
	if strings.HasSuffix(repository, "/app") { // a file with a kind
		return &signed{file: "timestamp.json", kind: "timestamp"}, nil
	}
	return &signed{file: "targets/" + repository + ".json"}, nil
}

func (*answers) Recheck(_ trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	return held, nil
}

func (*answers) Subject(image imageref.Ref) trust.Subject {
	return trust.Subject{Repository: image.Name()}
}

// namespaces is a cache of Namespaces, each with the value of its break-glass label, "-" for none.
// A nil map is a cache that is not filled yet.
type namespaces map[string]string

func (namespaces) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return fmt.Errorf("only lists")
}

func (n namespaces) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if n == nil {
		return fmt.Errorf("not filled yet")
	}
	into, ok := list.(*corev1.NamespaceList)
	if !ok {
		return fmt.Errorf("got a %T, want a list of Namespaces", list)
	}
	for name, reason := range n {
		namespace := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "x"}}}
		if reason != "-" {
			namespace.Labels[v1alpha1.LabelBreakGlass] = reason
		}
		into.Items = append(into.Items, namespace)
	}
	return nil
}

// bench is Metrics with the sources of its gauges.
type bench struct {
	*metrics.Metrics
	registry   *prometheus.Registry
	store      *store.Store
	tracker    *store.Tracker
	namespaces namespaces
	ran        *compliance.Result
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	b := &bench{
		registry:   prometheus.NewPedanticRegistry(),
		namespaces: namespaces{"shop": "-", "empty": "", "fire": "incident-7"},
	}
	b.Metrics = metrics.New(b.registry)
	b.store = store.New(store.Options{
		Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO, Observer: b.Metrics,
	})
	b.tracker = store.NewTracker(b.store, clock.RealClock{}, func(string) {})
	b.Show(metrics.State{
		Store: b.store, Tracker: b.tracker, Namespaces: b.namespaces, Ran: func() *compliance.Result { return b.ran },
		Gated: func() (bool, bool) { return false, true },
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Leaf: &x509.Certificate{NotAfter: time.Unix(1_900_000_000, 0)}}, nil
		},
	})
	return b
}

func (b *bench) putPolicy(name string, mode v1alpha1.PolicyMode, roots ...v1alpha1.ObjectName) {
	// without a trust root the policy cannot be used
	p, _ := policy.Compile(name, &v1alpha1.ImagePolicySpec{
		Images:        []v1alpha1.ImagePattern{v1alpha1.ImagePattern("registry.example.com/" + name + "/**")},
		TrustRoots:    roots,
		RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}}, Mode: mode, PinDigests: v1alpha1.PinPods,
	})
	b.store.PutPolicy(p, "1")
}

func (b *bench) putRoot(name string, root trust.Root) {
	b.store.PutRoot(name, store.Root{Verifier: root, Format: "Notary"})
	b.tracker.Reset(name, time.Minute)
}

// decide decides on an image as the gate does, and counts the decision.
func (b *bench) decide(tb testing.TB, image string) {
	tb.Helper()
	request := policy.Request{Image: image, Now: time.Unix(1_800_000_000, 0)}
	d := b.store.Load().Policies.Decide(request, b.store.Load())
	for _, k := range d.NotLoaded {
		_ = b.tracker.Ensure(tb.Context(), k) // the error is in the decision
		d = b.store.Load().Policies.Decide(request, b.store.Load())
	}
	b.Decided(d)
}

// populate creates at least one series of every metric.
func (b *bench) populate(t *testing.T) {
	t.Helper()
	b.putRoot("acme-notary", &answers{
		map[string]error{"registry.example.com/team-a/down": trust.NewFault(v1alpha1.ReasonTimeout, "no answer")},
	})
	b.store.PutRoot("broken", store.Root{Fault: trust.NewFault(v1alpha1.ReasonInvalidKey, "no key"), Format: "Notary"})
	b.putPolicy("team-a", v1alpha1.ModeEnforce, "acme-notary")
	b.putPolicy("team-b", v1alpha1.ModeWarn, "broken")
	b.putPolicy("team-c", v1alpha1.ModeEnforce)
	b.store.MarkPrimed()
	for _, image := range []string{
		"registry.example.com/team-a/app:v1", "registry.example.com/team-a/unsigned:v1",
		"registry.example.com/team-a/down:v1", "registry.example.com/team-a/other:v1",
		"registry.example.com/team-b/app:v1", "nginx:1", "NOT AN IMAGE",
	} {
		b.decide(t, image)
	}
	running := func(repository string) trust.Key {
		return trust.Key{
			Root: "acme-notary", Subject: trust.Subject{Repository: "registry.example.com/team-a/" + repository},
		}
	}
	b.tracker.Retain([]trust.Key{running("unsigned"), running("down")})
	b.Verified(store.Verification{
		Root: "acme-notary", Format: "Notary", Stage: store.StageProbe, Took: 20 * time.Millisecond,
	})
	b.Admission("validate", "admitted", 200*time.Microsecond)
	b.Requested(registry.Exchange{
		Host: "notary.example.com", Named: true, Result: registry.ResultOK, Sent: true, Took: 20 * time.Millisecond,
		Ended: noon,
	})
	b.BreakGlass("fire")
	b.BreakGlassUnrecorded("fire")
	b.Refused(metrics.RefusedBusy)
	b.ConfigurationWritten("validating", metrics.CauseRestored)
	b.ran = &compliance.Result{
		Policies: map[string]compliance.Summary{
			"team-a": {Covered: 8, Violating: 2, Unchecked: 1}, "deleted": {Covered: 1},
		},
	}
}

// series returns the value of every series except histogram buckets, by name and labels in the
// notation of Prometheus.
func (b *bench) series(t *testing.T) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for _, family := range b.gather(t) {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, pair := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", pair.GetName(), pair.GetValue()))
			}
			name := family.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			switch family.GetType() {
			case dto.MetricType_COUNTER:
				all[name] = m.GetCounter().GetValue()
			case dto.MetricType_GAUGE:
				all[name] = m.GetGauge().GetValue()
			default:
				all[name] = float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return all
}

func (b *bench) gather(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// withPrefix returns the names of the series that begin with prefix, sorted.
func withPrefix(series map[string]float64, prefix string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(series)),
		func(s string) bool { return !strings.HasPrefix(s, prefix) })
}

// image parses an image.
func image(tb testing.TB, name string) imageref.Ref {
	tb.Helper()
	ref, err := imageref.Parse(name)
	if err != nil {
		tb.Fatal(err)
	}
	return ref
}
