// Package prometheus_test runs the unit tests of the alerts in config/prometheus with the query
// engine of Prometheus. It also checks that alerts and dashboard use only metrics that
// docs/metrics.md lists. It is a separate module, so that the manager's module stays small.
package prometheus_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/template"
	"sigs.k8s.io/yaml"
)

// suite is a test file in the format of promtool, with the fields for alerts only.
type suite struct {
	RuleFiles          []string       `json:"rule_files"`
	EvaluationInterval model.Duration `json:"evaluation_interval"`
	Tests              []struct {
		Name           string         `json:"name"`
		Interval       model.Duration `json:"interval"`
		InputSeries    []series       `json:"input_series"`
		AlertRuleTests []expectation  `json:"alert_rule_test"`
	} `json:"tests"`
}

type series struct {
	Series string `json:"series"`
	Values string `json:"values"`
}

type expectation struct {
	EvalTime  model.Duration `json:"eval_time"`
	Alertname string         `json:"alertname"`
	ExpAlerts []fired        `json:"exp_alerts"`
}

// fired is a firing alert.
type fired struct {
	Labels      map[string]string `json:"exp_labels"`
	Annotations map[string]string `json:"exp_annotations"`
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// alerts returns the alerts of the PrometheusRule by name. It checks them as Prometheus does when
// it loads them.
func alerts(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	var resource struct {
		APIVersion string         `json:"apiVersion"`
		Kind       string         `json:"kind"`
		Metadata   map[string]any `json:"metadata"`
		Spec       map[string]any `json:"spec"`
	}
	if err := yaml.UnmarshalStrict(read(t, "config/prometheus/rules.yaml"), &resource); err != nil {
		t.Fatal(err)
	}
	if resource.APIVersion != "monitoring.coreos.com/v1" || resource.Kind != "PrometheusRule" {
		t.Errorf("got a %s %s, want a PrometheusRule of monitoring.coreos.com/v1", resource.APIVersion, resource.Kind)
	}
	spec, err := yaml.Marshal(resource.Spec)
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(spec, false, model.UTF8Validation, parser.NewParser(parser.Options{}),
		promslog.NewNopLogger())
	for _, err := range errs {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
	all := map[string]rulefmt.Rule{}
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			if _, twice := all[rule.Alert]; twice || rule.Alert == "" {
				t.Errorf("%q is not an alert, or is a duplicate", rule.Alert+rule.Record)
			}
			all[rule.Alert] = rule
		}
	}
	return all
}

func TestAlertsAreComplete(t *testing.T) {
	all := alerts(t)
	if len(all) < 10 {
		t.Fatalf("got %d alerts, want at least 10", len(all))
	}
	for name, rule := range all {
		if severity := rule.Labels["severity"]; severity != "critical" && severity != "warning" {
			t.Errorf("%s: got severity %q, want critical or warning", name, severity)
		}
		for _, text := range []string{"summary", "description"} {
			if rule.Annotations[text] == "" {
				t.Errorf("%s has no %s", name, text)
			}
		}
		if want := "https://github.com/countersign-dev/countersign/blob/main/docs/runbooks/" + name +
			".md"; rule.Annotations["runbook_url"] != want {
			t.Errorf("%s: got runbook %q, want %q", name, rule.Annotations["runbook_url"], want)
		}
	}
}

func TestAlerts(t *testing.T) {
	var s suite
	if err := yaml.UnmarshalStrict(read(t, "config/prometheus/rules_test.yaml"), &s); err != nil {
		t.Fatal(err)
	}
	all := alerts(t)
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1_000_000, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true,
	})
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range s.Tests {
		t.Run(test.Name, func(t *testing.T) {
			stored := load(t, test.InputSeries, time.Duration(test.Interval))
			for _, want := range test.AlertRuleTests {
				rule, there := all[want.Alertname]
				if !there {
					t.Fatalf("rules.yaml has no alert %q", want.Alertname)
				}
				r := run{engine: engine, stored: stored, rule: rule, interval: time.Duration(s.EvaluationInterval)}
				got := r.until(t, time.Duration(want.EvalTime))
				at := fmt.Sprintf("%s after %s", want.Alertname, want.EvalTime)
				if len(got) != len(want.ExpAlerts) {
					t.Fatalf("%s: got alerts %v, want %v", at, got, want.ExpAlerts)
				}
				fires[rule.Alert] = fires[rule.Alert] || len(got) > 0
				silent[rule.Alert] = silent[rule.Alert] || len(got) == 0
				for i, alert := range want.ExpAlerts {
					if !maps.Equal(got[i].Labels, alert.Labels) {
						t.Errorf("%s: got labels %v, want %v", at, got[i].Labels, alert.Labels)
					}
					for name, text := range alert.Annotations { // annotations that the case leaves out are not compared
						if got[i].Annotations[name] != text {
							t.Errorf("%s: got %s\n%q, want\n%q", at, name, got[i].Annotations[name], text)
						}
					}
				}
			}
		})
	}
	for name := range all {
		if !fires[name] || !silent[name] {
			t.Errorf("%s: has a case in which it fires: %t, and one in which it does not: %t; want both", name,
				fires[name],
				silent[name])
		}
	}
}

// run evaluates one alert at each interval, as Prometheus does. The alert fires after it was active
// at every evaluation for the time of its "for".
type run struct {
	engine   *promql.Engine
	stored   storageOf
	rule     rulefmt.Rule
	interval time.Duration
}

// until returns the alerts that fire end after the first sample, sorted by labels.
func (r run) until(t *testing.T, end time.Duration) []fired {
	t.Helper()
	since := map[string]time.Time{}
	var now []fired
	for at := start; !at.After(start.Add(end)); at = at.Add(r.interval) {
		vector := r.query(t, r.rule.Expr, at)
		active := map[string]time.Time{}
		now = nil
		for _, sample := range vector {
			sample.Metric = sample.Metric.DropReserved(func(name string) bool { return name == model.MetricNameLabel })
			key := sample.Metric.String()
			if _, twice := active[key]; twice {
				t.Fatalf("%s: got two samples with labels %s", r.rule.Alert, key)
			}
			active[key] = at
			if began, was := since[key]; was {
				active[key] = began
			}
			if at.Sub(active[key]) >= time.Duration(r.rule.For) {
				now = append(now, r.alert(t, sample, at))
			}
		}
		since = active
	}
	slices.SortFunc(now, func(a, b fired) int { return cmp.Compare(fmt.Sprint(a.Labels), fmt.Sprint(b.Labels)) })
	return now
}

func (r run) query(t *testing.T, expr string, at time.Time) promql.Vector {
	t.Helper()
	query, err := r.engine.NewInstantQuery(t.Context(), r.stored, nil, expr, at)
	if err != nil {
		t.Fatal(err)
	}
	defer query.Close()
	result := query.Exec(t.Context())
	if len(result.Warnings.AsErrors()) > 0 {
		t.Errorf("%s: %v", r.rule.Alert, result.Warnings.AsErrors())
	}
	vector, err := result.Vector()
	if err != nil {
		t.Fatalf("%s: %v", r.rule.Alert, err)
	}
	return slices.Clone(vector)
}

// alert expands the templates of labels and annotations. Unlike Prometheus, it fails for a label
// that the alert does not have.
func (r run) alert(t *testing.T, sample promql.Sample, at time.Time) fired {
	t.Helper()
	a := fired{Labels: sample.Metric.Map(), Annotations: map[string]string{}}
	expand := func(text string) string {
		const definitions = `{{$labels := .Labels}}{{$value := .Value}}`
		data := template.AlertTemplateData(sample.Metric.Map(), nil, "", sample)
		none := func(context.Context, string, time.Time) (promql.Vector, error) {
			return nil, fmt.Errorf("annotations must not query")
		}
		expander := template.NewTemplateExpander(t.Context(), definitions+text, r.rule.Alert, data,
			model.TimeFromUnixNano(at.UnixNano()), none, &url.URL{}, []string{"missingkey=error"})
		expanded, err := expander.Expand()
		if err != nil {
			t.Errorf("%s: %v", r.rule.Alert, err)
		}
		return expanded
	}
	for name, text := range r.rule.Labels {
		a.Labels[name] = expand(text)
	}
	for name, text := range r.rule.Annotations {
		a.Annotations[name] = expand(text)
	}
	return a
}
