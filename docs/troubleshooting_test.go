package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// literals returns the string literals of Go files. Literals joined with + are one.
func literals(t *testing.T, patterns ...string) []string {
	t.Helper()
	var found []string
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, path := range files {
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			parts := make(map[ast.Node]bool) // of what is joined already
			ast.Inspect(file, func(n ast.Node) bool {
				expr, ok := n.(ast.Expr)
				if !ok {
					return true
				}
				if sum, ok := n.(*ast.BinaryExpr); ok {
					parts[sum.X], parts[sum.Y] = true, true
				}
				if text := joined(expr); text != "" && !parts[n] {
					found = append(found, text)
				}
				return true
			})
		}
	}
	return found
}

func joined(expr ast.Expr) string {
	switch expr := expr.(type) {
	case *ast.BasicLit:
		if expr.Kind == token.STRING {
			text, _ := strconv.Unquote(expr.Value)
			return text
		}
	case *ast.BinaryExpr:
		return joined(expr.X) + joined(expr.Y)
	}
	return ""
}

// says reports whether a text contains a quotation, in which "..." stands for any text.
func says(text, quoted string) bool {
	for _, part := range strings.Split(quoted, "...") {
		_, after, found := strings.Cut(text, part)
		if !found {
			return false
		}
		text = after
	}
	return true
}

// quoted returns the denials and warnings in the first column of docs/troubleshooting.md.
func quoted(t *testing.T) []string {
	t.Helper()
	var all []string
	table := false
	for line := range strings.Lines(read(t, "docs/troubleshooting.md")) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			table = false
			continue
		}
		if strings.TrimSpace(cells[1]) == "it says" {
			table = true
		}
		if !table {
			continue
		}
		for _, match := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
			all = append(all, match[1])
		}
	}
	if len(all) < 25 {
		t.Fatalf("found only %d texts", len(all))
	}
	return all
}

// Each denial on the page is one that the product prints: it is in the sources, or in the tests
// that compare messages word for word.
func TestTroubleshootingQuotesTheDenials(t *testing.T) {
	said := literals(t, "internal/policy/*.go", "internal/trust/notary/*.go", "internal/trust/sigstore/*.go",
		"internal/decision/*.go", "internal/registry/*.go", "internal/store/*.go", "webhooks/*.go",
		"test/e2e/messages_test.go")
	const ofTheAPIServer = `failed calling webhook "validate.countersign.dev"`
	for _, quote := range quoted(t) {
		if quote != ofTheAPIServer && !slices.ContainsFunc(said, func(text string) bool { return says(text, quote) }) {
			t.Errorf("no source or test prints %q", quote)
		}
	}
}

// The page has every text about signatures that do not count. rejected_test.go of the format has
// these texts word for word.
func TestTroubleshootingKnowsWhatDoesNotCount(t *testing.T) {
	quotes, told := quoted(t), 0
	for _, text := range literals(t, "internal/trust/notary/rejected_test.go") {
		if !regexp.MustCompile(`^(targets|delegations? |role ).* (signed|is|are|cannot) .*[^ ]$`).MatchString(text) ||
			len(text) < 30 {
			continue // no such text, or the beginning of one
		}
		told++
		if !slices.ContainsFunc(quotes, func(quote string) bool { return says(text, quote) }) {
			t.Errorf("docs/troubleshooting.md lacks %q", text)
		}
	}
	if told < 15 {
		t.Fatalf("found only %d texts", told)
	}
}
