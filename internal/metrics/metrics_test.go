package metrics_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/metrics"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

func TestNamesFollowPrometheusRules(t *testing.T) {
	b := newBench(t)
	b.populate(t)
	families := b.gather(t)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	described := make(chan *prometheus.Desc)
	go func() {
		defer close(described)
		b.Describe(described)
	}()
	want := 0
	for range described {
		want++
	}
	if len(families) != want || want < 15 {
		t.Errorf("got series of %d metrics, want all %d", len(families), want)
	}
}

func TestDecided(t *testing.T) {
	ref := image(t, "registry.example.com/acme/app:v1")
	enforced := func(name string, v policy.Verdict, reason string) policy.Outcome {
		return policy.Outcome{Policy: name, Mode: v1alpha1.ModeEnforce, Verdict: v, Reason: reason}
	}
	tests := map[string]struct {
		decision policy.Decision
		want     []string
	}{
		"signed": {
			policy.Decision{
				Verdict: policy.Admitted, Image: ref,
				Outcomes: []policy.Outcome{enforced("a", policy.Admitted, v1alpha1.ReasonSigned)},
			},
			[]string{`countersign_decisions_total{policy="a",reason="Signed",verdict="Admitted"}`},
		},
		"by each policy": {
			policy.Decision{Image: ref, Outcomes: []policy.Outcome{
				enforced("a", policy.Admitted, v1alpha1.ReasonSigned),
				enforced("b", policy.Denied, v1alpha1.ReasonNotSigned),
				enforced("c", policy.CouldNotCheck, v1alpha1.ReasonTimeout),
			}},
			[]string{
				`countersign_decisions_total{policy="a",reason="Signed",verdict="Admitted"}`,
				`countersign_decisions_total{policy="b",reason="NotSigned",verdict="Denied"}`,
				`countersign_decisions_total{policy="c",reason="Timeout",verdict="CouldNotCheck"}`,
			},
		},
		"uncovered": {
			policy.Decision{Verdict: policy.Admitted, Image: ref},
			[]string{`countersign_decisions_total{policy="",reason="NotCovered",verdict="Admitted"}`},
		},
		"uncovered and denied": {
			policy.Decision{Image: ref},
			[]string{`countersign_decisions_total{policy="",reason="NotCovered",verdict="Denied"}`},
		},
		"unparsable": {
			policy.Decision{},
			[]string{`countersign_decisions_total{policy="",reason="InvalidImage",verdict="Denied"}`},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			b := &bench{Metrics: metrics.New(registry), registry: registry}
			b.Decided(test.decision)
			if diff := cmp.Diff(test.want, withPrefix(b.series(t), "countersign_")); diff != "" {
				t.Errorf("series (-want +got):\n%s", diff)
			}
		})
	}
}

func TestVerified(t *testing.T) {
	registry := prometheus.NewRegistry()
	b := &bench{Metrics: metrics.New(registry), registry: registry}
	fault := trust.NewFault(v1alpha1.ReasonRollback, "registry.example.com/acme/app went back")
	for _, v := range []store.Verification{
		{Stage: store.StageProbe},
		{Stage: store.StageFirst, Unsigned: true},
		{Stage: store.StageFirst, Fault: fault},
		{Stage: store.StageRefresh},
		{Stage: store.StageRefresh},
		{Stage: store.StageRecheck},
	} {
		v.Root, v.Format, v.Took = "acme", "Notary", time.Millisecond
		b.Verified(v)
	}
	want := map[string]float64{
		`countersign_verification_duration_seconds{format="Notary",result="ok",stage="probe"}`:       1,
		`countersign_verification_duration_seconds{format="Notary",result="unsigned",stage="first"}`: 1,
		`countersign_verification_duration_seconds{format="Notary",result="Rollback",stage="first"}`: 1,
		`countersign_verification_duration_seconds{format="Notary",result="ok",stage="refresh"}`:     2,
		`countersign_verification_duration_seconds{format="Notary",result="ok",stage="recheck"}`:     1,
		`countersign_refreshes_total{result="unsigned",trust_root="acme"}`:                           1,
		`countersign_refreshes_total{result="Rollback",trust_root="acme"}`:                           1,
		`countersign_refreshes_total{result="ok",trust_root="acme"}`:                                 2,
	}
	if diff := cmp.Diff(want, b.series(t)); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

// A client that may create Pods chooses the images. No image may create a series.
func TestThreatMetricsOfMadeUpNames(t *testing.T) {
	b := newBench(t)
	b.populate(t)
	before := b.series(t)
	for i := range 2000 {
		for _, pattern := range []string{
			"registry.example.com/team-a/made-up-unsigned-%d:v%[1]d",
			"registry.example.com/team-b/made-up-%d@sha256:%064[1]x",
			"registry-%d.example.com/app:v1", "MADE UP %d",
		} {
			b.decide(t, fmt.Sprintf(pattern, i))
		}
	}
	after := b.series(t)
	if len(after) != len(before) {
		t.Errorf("got %d series, want the %d of before:\n%s", len(after), len(before), cmp.Diff(before, after))
	}
	const counted = `countersign_decisions_total{policy="",reason="InvalidImage",verdict="Denied"}`
	if got := after[counted] - before[counted]; got != 2000 {
		t.Errorf("got %v decisions counted by %s, want 2000", got, counted)
	}
	for name := range after {
		if strings.Contains(strings.ToLower(name), "made") || strings.Contains(name, "sha256") {
			t.Errorf("got a made-up name in %s, want none", name)
		}
	}
}

func TestNilCountsNothing(*testing.T) {
	var m *metrics.Metrics
	m.Decided(policy.Decision{})
	m.Admission("validate", "denied", time.Second)
	m.BreakGlass("shop")
	m.BreakGlassUnrecorded("shop")
	m.Refused(metrics.RefusedBusy)
	m.Verified(store.Verification{})
	m.Requested(registry.Exchange{})
	m.ConfigurationWritten("mutating", metrics.CauseCreated)
}

func TestCountedWhileScraped(t *testing.T) {
	b := newBench(t)
	b.populate(t)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 200 {
				b.decide(t, "registry.example.com/team-a/app:v1")
				name := fmt.Sprintf("other-%d", i)
				b.putPolicy(name, v1alpha1.ModeEnforce)
				b.decide(t, "registry.example.com/"+name+"/app:v1")
				b.store.DropPolicy(name)
			}
		})
	}
	const counted = `countersign_decisions_total{policy="team-a",reason="NotSigned",verdict="Denied"}`
	before := b.series(t)[counted]
	for range 50 {
		b.series(t)
	}
	wg.Wait()
	after := b.series(t)
	if got := after[counted] - before; got > 800 || after[counted] < 800 {
		t.Errorf("got %v decisions counted, want 800", after[counted])
	}
	if left := withPrefix(after, `countersign_decisions_total{policy="other`); len(left) > 0 {
		t.Errorf("got series of deleted policies %q, want none", left)
	}
}

func BenchmarkDecided(b *testing.B) {
	m := metrics.New(prometheus.NewRegistry())
	d := policy.Decision{Verdict: policy.Admitted, Outcomes: []policy.Outcome{
		{Policy: "production", Mode: v1alpha1.ModeEnforce, Verdict: policy.Admitted, Reason: v1alpha1.ReasonSigned},
	}}
	b.ReportAllocs()
	for b.Loop() {
		m.Decided(d)
	}
}

func BenchmarkAdmission(b *testing.B) {
	m := metrics.New(prometheus.NewRegistry())
	b.ReportAllocs()
	for b.Loop() {
		m.Admission("validate", "admitted", 300*time.Microsecond)
	}
}
