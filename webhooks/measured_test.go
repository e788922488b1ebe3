package webhooks

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/ptr"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/metrics"
	"github.com/countersign-dev/countersign/internal/trust"
)

// counted gives the gate metrics of its own. The function that it returns returns their counts: the
// value of a counter, the number of samples of a histogram.
func (b *bench) counted(t *testing.T) func() map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	b.Metrics = metrics.New(registry)
	return func() map[string]float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		counts := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				var labels []string
				for _, l := range m.GetLabel() {
					labels = append(labels, l.GetValue())
				}
				counts[strings.TrimPrefix(f.GetName(), "countersign_")+" "+strings.Join(labels, " ")] =
					m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
		return counts
	}
}

// Validation counts each distinct image once, with the final decision. Each request is counted
// once, by its handler.
func TestEachDecisionIsCountedOnce(t *testing.T) {
	b := newBench(t)
	counts := b.counted(t)
	_, got := b.admit(t, request{kind: "Pod", object: object("Pod", signed, signed, ciOnly, elsewhere)})
	wantDenied(t, got, 403)
	want := map[string]float64{
		"decisions_total policy-0 Signed Admitted":   1,
		"decisions_total policy-0 NotSigned Denied":  1,
		"decisions_total  NotCovered Admitted":       1,
		"admission_duration_seconds mutate admitted": 1,
		"admission_duration_seconds validate denied": 1,
	}
	if diff := cmp.Diff(want, counts()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A denial whose evidence could not be refreshed is counted as a fault.
func TestFailedRefreshIsCountedAsAFault(t *testing.T) {
	b := newBench(t)
	wantDenied(t, b.validate(t, request{kind: "Pod", object: object("Pod", ciOnly)}), 403)
	counts := b.counted(t)
	b.root.answers(nil, trust.NewFault(v1alpha1.ReasonUnreachable, "no connection to notary.example.com"))
	b.clock.Step(5e9)
	wantDenied(t, b.validate(t, request{kind: "Pod", object: object("Pod", ciOnly)}), 503)
	want := map[string]float64{
		"decisions_total policy-0 Unreachable CouldNotCheck":  1,
		"admission_duration_seconds validate could_not_check": 1,
	}
	if diff := cmp.Diff(want, counts()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Admissions by break-glass are counted by namespace. Dry runs are not counted.
func TestBreakGlassIsCounted(t *testing.T) {
	b := broken(t)
	counts := b.counted(t)
	review := request{kind: "Pod", object: object("Pod", ciOnly)}.review(t)
	wantAdmitted(t, b.send(t, ValidatePath, review))
	review.Request.DryRun = ptr.To(true)
	wantAdmitted(t, b.send(t, ValidatePath, review))
	want := map[string]float64{
		"break_glass_admissions_total shop":               1,
		"decisions_total policy-0 NotSigned Denied":       2,
		"admission_duration_seconds validate break_glass": 2,
	}
	if diff := cmp.Diff(want, counts()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
