package prometheus_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// documented returns the labels of each metric in the table of docs/metrics.md. Another test
// compares that table with the metrics that the manager exports.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (counter|gauge|histogram) \\| ([^|]*) \\|")
	all := map[string][]string{}
	for _, match := range row.FindAllStringSubmatch(string(read(t, "docs/metrics.md")), -1) {
		var names []string
		for _, label := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(match[3], -1) {
			names = append(names, label[1])
		}
		if match[2] != "histogram" {
			all[match[1]] = names
			continue
		}
		all[match[1]+"_bucket"], all[match[1]+"_sum"], all[match[1]+"_count"] = append(names, "le"), names, names
	}
	if len(all) < 15 {
		t.Fatalf("got %d metrics from docs/metrics.md, want at least 15", len(all))
	}
	return all
}

// check parses an expression, and fails for metrics and labels that the manager does not export.
func check(t *testing.T, metrics map[string][]string, expr string) {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%q: %v", expr, err)
		return
	}
	selectors := 0
	var used []string // labels that are grouped by
	known := map[string]bool{}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			selectors++
			exported, there := metrics[n.Name]
			if !there {
				t.Errorf("%q: the manager exports no %q", expr, n.Name)
			}
			for _, name := range exported {
				known[name] = true
			}
			for _, m := range n.LabelMatchers {
				if m.Name != model.MetricNameLabel && !slices.Contains(append(exported, "job", "namespace"), m.Name) {
					t.Errorf("%q: %s has no label %q", expr, n.Name, m.Name)
				}
			}
		case *parser.AggregateExpr:
			used = append(used, n.Grouping...)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				used = append(used, n.VectorMatching.MatchingLabels...)
			}
		}
		return nil
	})
	if selectors == 0 {
		t.Errorf("%q has no metric", expr)
	}
	for _, name := range used {
		if !known[name] {
			t.Errorf("%q: none of its metrics has the label %q", expr, name)
		}
	}
}

func TestAlertsUseExportedMetrics(t *testing.T) {
	metrics := documented(t)
	for name, rule := range alerts(t) {
		t.Run(name, func(t *testing.T) { check(t, metrics, rule.Expr) })
	}
}

// panel has the fields of a Grafana panel that the test checks.
type panel struct {
	ID         int    `json:"id"`
	Type       string `json:"type"`
	Title      string `json:"title"`
	Datasource *struct {
		UID string `json:"uid"`
	} `json:"datasource"`
	GridPos struct{ H, W, X, Y int } `json:"gridPos"`
	Targets []struct {
		Expr  string `json:"expr"`
		RefID string `json:"refId"`
	} `json:"targets"`
	Panels []panel `json:"panels"`
}

func TestDashboard(t *testing.T) {
	var dashboard struct {
		UID        string  `json:"uid"`
		Title      string  `json:"title"`
		Panels     []panel `json:"panels"`
		Templating struct {
			List []struct{ Name, Type, Query string } `json:"list"`
		} `json:"templating"`
	}
	if err := json.Unmarshal(read(t, "config/grafana/countersign.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	if dashboard.UID == "" || dashboard.Title == "" {
		t.Error("the dashboard has no uid or no title")
	}
	variables := dashboard.Templating.List
	if len(variables) == 0 || variables[0].Name != "datasource" || variables[0].Type != "datasource" ||
		variables[0].Query != "prometheus" {
		t.Errorf("got variables %v, want the data source first", variables)
	}
	metrics := documented(t)
	ids, rows, cells, expressions := map[int]string{}, []string{}, map[string]string{}, 0
	for _, p := range dashboard.Panels {
		if first, twice := ids[p.ID]; twice || p.ID == 0 {
			t.Errorf("%q and %q have the id %d", p.Title, first, p.ID)
		}
		ids[p.ID] = p.Title
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				cell := fmt.Sprint(x, "/", y)
				if other, taken := cells[cell]; taken || x > 23 {
					t.Fatalf("%q overlaps %q, or exceeds the width of the grid, at %s", p.Title, other, cell)
				}
				cells[cell] = p.Title
			}
		}
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		t.Run(p.Title, func(t *testing.T) {
			if p.Datasource == nil || p.Datasource.UID != "${datasource}" {
				t.Error("the panel does not use the variable datasource")
			}
			if len(p.Targets) == 0 {
				t.Error("the panel has no targets")
			}
			for _, target := range p.Targets {
				expressions++
				check(t, metrics, strings.ReplaceAll(target.Expr, "$__rate_interval", "5m"))
			}
		})
	}
	if want := []string{"Decisions", "Admission latency", "Trust roots", "Compliance"}; !slices.Equal(rows, want) {
		t.Errorf("got rows %q, want %q", rows, want)
	}
	if expressions < 10 {
		t.Errorf("got %d expressions, want at least 10", expressions)
	}
}
