// Package docs_test holds the documentation to the code that it speaks of.
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
				t.Errorf("%s does not speak of the field %s", page, name)
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
				t.Errorf("the pages of docs/spec do not speak of %s", value)
			}
		}
		return true
	})
	if constants < 10 {
		t.Fatalf("found only %d condition types and reasons", constants)
	}
}

// The threat model names the tests that stand for it; each must exist, and each TestThreat must be in it.
func TestModelNamesTheThreats(t *testing.T) {
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
	named := map[string]bool{}
	for _, name := range regexp.MustCompile(`\b(Test|Fuzz)[A-Z][A-Za-z0-9_]+\b`).FindAllString(read(t, "docs/threat-model.md"), -1) {
		named[name] = true
		if !declared[name] {
			t.Errorf("docs/threat-model.md names %s, which does not exist", name)
		}
	}
	for name := range declared {
		if strings.HasPrefix(name, "TestThreat") && !named[name] {
			t.Errorf("docs/threat-model.md does not name %s", name)
		}
	}
	if len(named) < 10 {
		t.Fatalf("docs/threat-model.md names only %d tests", len(named))
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
	links := 0
	for _, page := range pages {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`).FindAllStringSubmatch(string(content), -1) {
			links++
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), filepath.FromSlash(match[1]))); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
	if links < 5 {
		t.Fatalf("found only %d links in %v", links, pages)
	}
}
