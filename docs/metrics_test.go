package docs_test

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/internal/metrics"
)

// A test in hack/prometheus compares the expressions of alerts and dashboard with this table, using
// the parser of Prometheus.
func TestEveryMetricIsDocumented(t *testing.T) {
	documented := map[string]string{} // labels by name
	for _, row := range regexp.MustCompile("(?m)^\\| `(countersign_[a-z_]+)` \\| [a-z]+ \\| ([^|]*) \\|").
		FindAllStringSubmatch(read(t, "docs/metrics.md"), -1) {
		documented[row[1]] = strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(row[2]), "`", ""), " ", "")
	}
	exported := make(chan *prometheus.Desc)
	go func() {
		defer close(exported)
		metrics.New(prometheus.NewRegistry()).Describe(exported)
	}()
	description := regexp.MustCompile(`fqName: "([a-z_]+)".*variableLabels: \{([a-z_,]*)\}`)
	found := map[string]bool{}
	for desc := range exported {
		match := description.FindStringSubmatch(desc.String())
		if match == nil {
			t.Errorf("cannot read %s", desc)
			continue
		}
		found[match[1]] = true
		if labels, there := documented[match[1]]; !there || labels != match[2] {
			t.Errorf("docs/metrics.md has %s with the labels %q (%t), want %q", match[1], labels, there, match[2])
		}
	}
	for name := range documented {
		if !found[name] {
			t.Errorf("docs/metrics.md has %s, which the manager does not export", name)
		}
	}
	if len(found) < 15 {
		t.Fatalf("found only %d metrics", len(found))
	}
}

func TestEveryAlertHasItsRunbook(t *testing.T) {
	var rules struct {
		Spec struct {
			Groups []struct {
				Rules []struct{ Alert, Labels any }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "config/prometheus/rules.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	index := read(t, "docs/metrics.md")
	var alerts []string
	for _, group := range rules.Spec.Groups {
		for _, rule := range group.Rules {
			name, _ := rule.Alert.(string)
			alerts = append(alerts, name)
			labels, _ := rule.Labels.(map[string]any)
			severity, _ := labels["severity"].(string)
			if row := regexp.MustCompile("(?m)^\\| `" + name + "` \\| " + severity + " \\|.*\\(runbooks/" + name +
				"\\.md\\) \\|$"); !row.MatchString(index) {
				t.Errorf("docs/metrics.md does not list %s with the severity %s", name, severity)
			}
			page := read(t, "docs/runbooks/"+name+".md")
			if !strings.HasPrefix(page, "# "+name+"\n\nSeverity: "+severity+".") {
				t.Errorf("the runbook of %s does not begin with its name and severity", name)
			}
			for _, section := range []string{"Meaning", "Impact", "Diagnosis", "Mitigation"} {
				_, after, there := strings.Cut(page, "\n## "+section+"\n\n")
				if text, _, _ := strings.Cut(after, "\n## "); !there || len(text) < 20 || section == "Diagnosis" &&
					!strings.Contains(text, "\n$ kubectl ") {
					t.Errorf("the runbook of %s has no %s, or no command in it", name, section)
				}
			}
		}
	}
	pages, err := filepath.Glob("runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if name := strings.TrimSuffix(filepath.Base(page), ".md"); !slices.Contains(alerts, name) {
			t.Errorf("%s belongs to no alert", page)
		}
	}
	if len(alerts) < 10 {
		t.Fatalf("found only %d alerts", len(alerts))
	}
}
