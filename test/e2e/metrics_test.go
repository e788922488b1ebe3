package e2e

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// testMetrics compares the manager's metrics before and after decisions of each kind.
func (b *bed) testMetrics(t *testing.T) {
	b.create(t, b.policy("measured", registry+"/**", "acme-notary", "ci", "qa"))
	b.ready(t, &v1alpha1.ImagePolicy{}, "measured", metav1.ConditionTrue, v1alpha1.ReasonInForce)
	root := b.trustRoot("unreachable-metrics")
	root.Spec.Notary.Server = "https://127.0.0.1:1"
	b.create(t, root)
	b.create(t, b.policy("faulty", registry+"/metrics-fault/**", "unreachable-metrics", "ci"))
	b.ready(t, &v1alpha1.ImagePolicy{}, "faulty", metav1.ConditionTrue, v1alpha1.ReasonInForce)
	gun := b.repository(t, "ci", "qa")
	b.sign(t, gun, "both", 1, "ci", "qa")
	b.sign(t, gun, "half", 2, "ci")

	before := b.scrape(t)
	for i := range 3 {
		b.admitted(t, pod(production, gun+":both"))
		b.denied(t, pod(production, gun+":half"), http.StatusForbidden, `role "qa" has not signed`)
		b.denied(t, pod(production, fmt.Sprintf("%s/metrics-fault/app-%d:v1", registry, i)),
			http.StatusServiceUnavailable, `TrustRoot "unreachable-metrics"`)
	}
	after := b.scrape(t)
	for name, least := range map[string]float64{
		`countersign_decisions_total{policy="measured",reason="Signed",verdict="Admitted"}`:                            3,
		`countersign_decisions_total{policy="production",reason="Signed",verdict="Admitted"}`:                          3,
		`countersign_decisions_total{policy="measured",reason="NotSigned",verdict="Denied"}`:                           3,
		`countersign_decisions_total{policy="faulty",reason="Unreachable",verdict="CouldNotCheck"}`:                    3,
		`countersign_admission_duration_seconds{handler="validate",outcome="admitted"}`:                                3,
		`countersign_admission_duration_seconds{handler="validate",outcome="denied"}`:                                  3,
		`countersign_admission_duration_seconds{handler="validate",outcome="could_not_check"}`:                         3,
		`countersign_admission_duration_seconds{handler="mutate",outcome="admitted"}`:                                  9,
		`countersign_verification_duration_seconds{format="Notary",result="ok",stage="first"}`:                         1,
		`countersign_verification_duration_seconds{format="Notary",result="ok",stage="refresh"}`:                       1,
		`countersign_refreshes_total{result="ok",trust_root="acme-notary"}`:                                            2,
		`countersign_registry_requests_total{host="` + strings.TrimPrefix(b.notary.URL, "https://") + `",result="ok"}`: 4,
		`countersign_registry_requests_total{host="127.0.0.1:1",result="Unreachable"}`:                                 1,
		// after one failure the server counts as down, and the manager only probes it
		`countersign_refreshes_total{result="Unreachable",trust_root="unreachable-metrics"}`: 1,
	} {
		if grown := after[name] - before[name]; grown < least {
			t.Errorf("got %s grown by %v, want at least %v", name, grown, least)
		}
	}
	for name, want := range map[string]float64{
		`countersign_gate_ready`: 1,
		`countersign_gated`:      1,
		`countersign_policy_info{mode="Enforce",policy="measured"}`:                                  1,
		`countersign_policy_ready{policy="measured"}`:                                                1,
		`countersign_trust_root_info{format="Notary",trust_root="acme-notary"}`:                      1,
		`countersign_trust_root_ready{trust_root="acme-notary"}`:                                     1,
		`countersign_trust_root_fresh{trust_root="unreachable-metrics"}`:                             0,
		`countersign_trust_root_repositories{state="failing",trust_root="acme-notary"}`:              0,
		`countersign_trust_root_refresh_interval_seconds{trust_root="acme-notary"}`:                  30,
		`countersign_break_glass_namespaces`:                                                         0,
		`countersign_webhook_configuration_writes_total{cause="created",configuration="validating"}`: 1,
	} {
		if got, there := after[name]; !there || got != want {
			t.Errorf("got %s %v (exported: %t), want %v", name, got, there, want)
		}
	}
	const expiry = `countersign_trust_root_expiry_timestamp_seconds{file="timestamp",trust_root="acme-notary"}`
	if after[expiry] <= after[`countersign_trust_root_last_refresh_timestamp_seconds{trust_root="acme-notary"}`] {
		t.Errorf("got a timestamp expiry of %v, want it after the last refresh", after[expiry])
	}
	b.awaitWorkloads(t)
	b.deletedAreGone(t, gun)
}

// awaitWorkloads waits until the workloads are counted. No kubelet runs the Pods, but they count by
// their spec.
func (b *bed) awaitWorkloads(t *testing.T) {
	t.Helper()
	poll.Await(t, "the count of workloads", func() error {
		if got := b.scrape(t)[`countersign_policy_workloads{policy="measured",state="compliant"}`]; got < 3 {
			return fmt.Errorf("got %v compliant workloads, want the 3 Pods", got)
		}
		return nil
	})
}

// deletedAreGone deletes two policies and a trust root, and checks that all their series disappear.
func (b *bed) deletedAreGone(t *testing.T, gun string) {
	t.Helper()
	for _, name := range []string{"measured", "faulty"} {
		must(t, b.Delete(t.Context(), b.policy(name, gun, "acme-notary", "ci")))
	}
	must(t, b.Delete(t.Context(), b.trustRoot("unreachable-metrics")))
	gone := regexp.MustCompile(`(policy="(measured|faulty)"|trust_root="unreachable-metrics")`)
	poll.Await(t, "the end of the series", func() error {
		left := slices.DeleteFunc(slices.Sorted(maps.Keys(b.scrape(t))),
			func(name string) bool { return !gone.MatchString(name) })
		if len(left) > 0 {
			return fmt.Errorf("got the series %q, want none", left)
		}
		return nil
	})
	if b.scrape(t)[`countersign_decisions_total{policy="production",reason="Signed",verdict="Admitted"}`] < 3 {
		t.Error("the series of the policy production have disappeared too, want them kept")
	}
}

// scrape returns the manager's own metrics by name and labels; of a histogram, the count. It fails
// the test if a name breaks Prometheus' naming rules, or a label contains an image.
func (b *bed) scrape(t *testing.T) map[string]float64 {
	t.Helper()
	resp, err := http.Get(b.manager.MetricsURL)
	must(t, err)
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	must(t, err)
	maps.DeleteFunc(families, func(name string, _ *dto.MetricFamily) bool {
		return !strings.HasPrefix(name, "countersign_")
	})
	problems, err := promlint.NewWithMetricFamilies(slices.Collect(maps.Values(families))).Lint()
	must(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	values := map[string]float64{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, pair := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", pair.GetName(), pair.GetValue()))
				value := pair.GetValue()
				if host, _, err := net.SplitHostPort(value); err == nil && pair.GetName() == "host" {
					value = host
				}
				if strings.ContainsAny(value, "/:@") {
					t.Errorf("got the label %s of %s, want none that contains an image", pair, name)
				}
			}
			series := name
			if len(labels) > 0 {
				series += "{" + strings.Join(labels, ",") + "}"
			}
			values[series] = m.GetCounter().GetValue() + m.GetGauge().GetValue() +
				float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}
