package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// value is a value of values.yaml.
type value struct {
	name, comment string
	group         bool // it holds other values
}

// documented returns the values of config/chart/values.yaml in order, with their comments.
func documented(t *testing.T) []value {
	t.Helper()
	text, err := os.ReadFile("../../config/chart/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values []value
	comment, group := "", ""
	for line := range strings.Lines(string(text)) {
		if m := regexp.MustCompile(`^ *# (.*)\n`).FindStringSubmatch(line); m != nil {
			comment = strings.TrimSpace(comment + " " + m[1])
			continue
		}
		if m := regexp.MustCompile(`^( *)(\w+):(.*)\n`).FindStringSubmatch(line); m != nil {
			v := value{name: m[2], comment: comment, group: m[3] == ""}
			if m[1] != "" {
				v.name = group + "." + v.name
			} else {
				group = v.name
			}
			values = append(values, v)
		}
		comment = ""
	}
	return values
}

// schema has the fields of a JSON schema that the tests read.
type schema struct {
	Description string            `json:"description"`
	Properties  map[string]schema `json:"properties"`
	Additional  any               `json:"additionalProperties"`
	Maximum     int               `json:"maximum"`
}

func TestSchemaMatchesComments(t *testing.T) {
	var s schema
	if err := json.Unmarshal(theBed(t).files["values.schema.json"], &s); err != nil {
		t.Fatal(err)
	}
	if s.Additional != false {
		t.Error("the schema allows unknown values")
	}
	described := make(map[string]string)
	for name, property := range s.Properties {
		if name == "global" { // Helm passes it to every chart
			continue
		}
		described[name] = property.Description
		if name == "resources" || name == "affinity" || name == "updateStrategy" { // types of Kubernetes
			continue
		}
		if property.Properties != nil && property.Additional != false {
			t.Errorf("the schema allows unknown values in %s", name)
		}
		for inner, p := range property.Properties {
			described[name+"."+inner] = p.Description
		}
	}
	commented := make(map[string]string)
	for _, v := range documented(t) {
		commented[v.name] = v.comment
		if v.comment == "" {
			t.Errorf("values.yaml has no comment for %s", v.name)
		}
	}
	if diff := cmp.Diff(commented, described); diff != "" {
		t.Errorf("values.yaml and its schema differ: %s", diff)
	}
}

// TestTableOfValues compares the table of docs/helm.md with values.yaml.
func TestTableOfValues(t *testing.T) {
	var defaults map[string]any
	if err := yaml.Unmarshal(theBed(t).files["values.yaml"], &defaults); err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| value | default | meaning |\n|---|---|---|\n")
	for _, v := range documented(t) {
		if v.group {
			continue
		}
		var found any = defaults
		for step := range strings.SplitSeq(v.name, ".") {
			found = found.(map[string]any)[step]
		}
		text, err := json.Marshal(found)
		if err != nil {
			t.Fatal(err)
		}
		shown := "`" + string(text) + "`"
		switch {
		case strings.HasPrefix(v.name, "image.") && v.name != "image.pullPolicy":
			shown = "the release's"
		case len(text) > 100:
			shown = "see `helm show values`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", v.name, shown, v.comment)
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "helm.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "\n"+table.String()) {
		t.Errorf("docs/helm.md has another table of values than values.yaml; want:\n%s", table.String())
	}
}
