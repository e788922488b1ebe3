// Package docs_test checks the documentation against the code.
package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

const root = ".."

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// fields returns the name of every property below a schema.
func fields(schema apiextensionsv1.JSONSchemaProps) []string {
	var names []string
	for name, property := range schema.Properties {
		names = append(names, name)
		if name == "namespaceSelector" || name == "conditions" { // Kubernetes' own types
			continue
		}
		names = append(names, fields(property)...)
		if property.Items != nil {
			names = append(names, fields(*property.Items.Schema)...)
		}
	}
	return names
}

func TestEveryFieldIsDocumented(t *testing.T) {
	for page, file := range map[string]string{
		"docs/spec/imagepolicy.md": "config/crd/countersign.dev_imagepolicies.yaml",
		"docs/spec/trustroot.md":   "config/crd/countersign.dev_trustroots.yaml",
	} {
		text := read(t, page)
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict([]byte(read(t, file)), &crd); err != nil {
			t.Fatal(err)
		}
		schema := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
		names := append(fields(schema.Properties["spec"]), fields(schema.Properties["status"])...)
		if len(names) < 10 {
			t.Fatalf("found only %v in %s", names, file)
		}
		for _, name := range names {
			if !regexp.MustCompile("`[^`]*\\b" + name + "\\b[^`]*`").MatchString(text) {
				t.Errorf("%s does not name the field %s", page, name)
			}
		}
	}
}

func TestEveryReasonIsDocumented(t *testing.T) {
	pages := read(t, "docs/spec/imagepolicy.md") + read(t, "docs/spec/trustroot.md")
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "api", "v1alpha1", "conditions.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constants := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, name := range spec.Names {
			literal, ok := spec.Values[i].(*ast.BasicLit)
			if !ok {
				t.Fatalf("%s is no literal", name.Name)
			}
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			constants++
			if !strings.Contains(pages, "`"+value+"`") {
				t.Errorf("no page of docs/spec names %s", value)
			}
		}
		return true
	})
	if constants < 10 {
		t.Fatalf("found only %d condition types and reasons", constants)
	}
}

// declaredTests returns the names of all tests and fuzz targets.
func declaredTests(t *testing.T) map[string]bool {
	t.Helper()
	declared := map[string]bool{}
	declaration := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]+)\(`)
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		content, err := os.ReadFile(path)
		for _, match := range declaration.FindAllStringSubmatch(string(content), -1) {
			declared[match[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return declared
}

// namedTests returns the names of the tests in a page. It fails if one does not exist.
func namedTests(t *testing.T, page string, declared map[string]bool) map[string]bool {
	t.Helper()
	named := map[string]bool{}
	for _, name := range regexp.MustCompile(`\b(Test|Fuzz)[A-Z][A-Za-z0-9_]+\b`).FindAllString(read(t, page), -1) {
		named[name] = true
		if !declared[name] {
			t.Errorf("%s names %s, which does not exist", page, name)
		}
	}
	return named
}

// Each test that the threat model names exists, and the threat model names each TestThreat.
func TestModelNamesTheThreats(t *testing.T) {
	declared := declaredTests(t)
	named := namedTests(t, "docs/threat-model.md", declared)
	if len(named) < 10 {
		t.Fatalf("docs/threat-model.md names only %d tests", len(named))
	}
	for name := range declared {
		if strings.HasPrefix(name, "TestThreat") && !named[name] {
			t.Errorf("docs/threat-model.md does not name %s", name)
		}
	}
}

// Each row of the tables of faults names its test, and the tables have each fault of TestOutages
// and TestRegistryOutages.
func TestFaultsAreNamedWithTheirTests(t *testing.T) {
	declared := declaredTests(t)
	page := read(t, "docs/reliability.md")
	namedTests(t, "docs/reliability.md", declared)
	rows := regexp.MustCompile(`(?m)^\| [^|]+ \| [^|]+ \| [^|]+ \| ([^|]+) \|$`).FindAllStringSubmatch(page, -1)
	if len(rows) < 10 {
		t.Fatalf("found only %d rows", len(rows))
	}
	for _, row := range rows {
		if !strings.HasPrefix(row[0], "| fault |") && !regexp.MustCompile("`Test[A-Z]").MatchString(row[1]) {
			t.Errorf("no test is named in %s", row[0])
		}
	}
	for test, file := range map[string]string{
		"TestOutages":         "test/e2e/outage_test.go",
		"TestRegistryOutages": "test/registries/outage_test.go",
	} {
		outages := regexp.MustCompile(`(?m)^\t\t"([-a-z0-9]+)": +\{`).FindAllStringSubmatch(read(t, file), -1)
		if len(outages) < 10 {
			t.Fatalf("found only %d outages in %s", len(outages), file)
		}
		named := map[string]bool{}
		for _, outage := range outages {
			named[outage[1]] = true
			if !strings.Contains(page, "`"+test+"/"+outage[1]+"`") {
				t.Errorf("docs/reliability.md does not name %s/%s", test, outage[1])
			}
		}
		for _, row := range regexp.MustCompile("`"+test+"/([-a-z0-9]+)`").FindAllStringSubmatch(page, -1) {
			if !named[row[1]] && row[1] != "made-up-names" { // which is not in the table of the test
				t.Errorf("docs/reliability.md names %s, which is no outage of %s", row[0], file)
			}
		}
	}
}

// The runbook says what to do about each reason.
func TestRunbookKnowsEveryFault(t *testing.T) {
	_, section, _ := strings.Cut(read(t, "docs/spec/trustroot.md"), "### Condition Fresh")
	section, _, _ = strings.Cut(section, "\n##")
	runbook := read(t, "docs/runbooks/CountersignTrustRootNotFresh.md")
	reasons := regexp.MustCompile("(?m)^\\| False \\| `([A-Za-z]+)`").FindAllStringSubmatch(section, -1)
	if len(reasons) < 10 {
		t.Fatalf("found only %d reasons", len(reasons))
	}
	for _, reason := range reasons {
		// TrustRootNotReady has its own alert and runbook
		if reason[1] != "TrustRootNotReady" && !strings.Contains(runbook, "`"+reason[1]+"`") {
			t.Errorf("the runbook does not name %s", reason[1])
		}
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"*.md", "spec/*.md", "runbooks/*.md"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, more...)
	}
	links, anchors := 0, map[string]map[string]bool{}
	for _, page := range pages {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`).FindAllStringSubmatch(string(content),
			-1) {
			links++
			target := page
			if match[1] != "" {
				target = filepath.Join(filepath.Dir(page), filepath.FromSlash(match[1]))
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			if match[2] == "" || !strings.HasSuffix(target, ".md") {
				continue
			}
			if anchors[target] == nil {
				anchors[target] = headings(t, target)
			}
			if !anchors[target][match[2]] {
				t.Errorf("%s: %s has no heading #%s", page, target, match[2])
			}
		}
	}
	if links < 5 {
		t.Fatalf("found only %d links in %v", links, pages)
	}
}

// headings returns the anchors of a page's headings, as GitHub makes them.
func headings(t *testing.T, page string) map[string]bool {
	t.Helper()
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	anchors := map[string]bool{}
	for _, match := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(content), -1) {
		plain := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(match[1]), "")
		anchors[strings.ReplaceAll(plain, " ", "-")] = true
	}
	return anchors
}
