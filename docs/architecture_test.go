package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// declaredIn returns the functions of a Go file: "Parse", and "Server.ServeHTTP" for a method.
func declaredIn(t *testing.T, path string) map[string]bool {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, filepath.FromSlash(path)), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]bool{}
	for _, d := range file.Decls {
		function, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		name := function.Name.Name
		if function.Recv != nil {
			receiver := function.Recv.List[0].Type
			if pointer, ok := receiver.(*ast.StarExpr); ok {
				receiver = pointer.X
			}
			if typ, ok := receiver.(*ast.Ident); ok {
				name = typ.Name + "." + name
			}
		}
		declared[name] = true
	}
	return declared
}

// Each function in the two walks through the code is declared in the file beside it.
func TestArchitectureNamesFunctions(t *testing.T) {
	page := read(t, "docs/architecture.md")
	functions := 0
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+/[a-z0-9_/]+\\.go)` \\| ([^|]+) \\|").
		FindAllStringSubmatch(page, -1) {
		declared := declaredIn(t, row[1])
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[2], -1) {
			functions++
			if !declared[name[1]] {
				t.Errorf("docs/architecture.md names %s, which %s does not declare", name[1], row[1])
			}
		}
	}
	if functions < 25 {
		t.Fatalf("found only %d functions", functions)
	}
}

// Each file, folder and test that the page names exists.
func TestArchitectureNamesFiles(t *testing.T) {
	page := read(t, "docs/architecture.md")
	namedTests(t, "docs/architecture.md", declaredTests(t))
	top := regexp.MustCompile("`((?:api|bundle|config|controllers|hack|internal|test|webhooks)/[a-zA-Z0-9_./-]+)`")
	paths := 0
	for _, match := range top.FindAllStringSubmatch(page, -1) {
		if strings.Contains(match[1], "...") {
			continue
		}
		paths++
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(match[1]))); err != nil {
			t.Errorf("docs/architecture.md: %v", err)
		}
	}
	if paths < 80 {
		t.Fatalf("found only %d paths", paths)
	}
}

// The layout has every package: by its path, or for internal/testenv by its name.
func TestArchitectureHasEveryPackage(t *testing.T) {
	page := read(t, "docs/architecture.md")
	layout, _, _ := strings.Cut(page, "\n### Layers")
	packages := 0
	for _, pattern := range []string{"controllers/*", "internal/*", "internal/testenv/*", "test/*", "hack/*"} {
		folders, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		for _, folder := range folders {
			if info, err := os.Stat(folder); err != nil || !info.IsDir() {
				continue
			}
			packages++
			path := strings.TrimPrefix(filepath.ToSlash(folder), root+"/")
			name := path
			if strings.HasPrefix(path, "internal/testenv/") {
				name = filepath.Base(path)
			}
			if !strings.Contains(layout, "`"+name+"`") {
				t.Errorf("the layout of docs/architecture.md lacks %s", path)
			}
		}
	}
	if packages < 50 {
		t.Fatalf("found only %d packages", packages)
	}
}

// TestArchitectureNamesIdentifiers wants every identifier in lowerCamelCase that the page names in
// some source file: a name that was changed sends its reader nowhere.
func TestArchitectureNamesIdentifiers(t *testing.T) {
	named := map[string]bool{}
	for _, name := range regexp.MustCompile("`([a-z]+[A-Z][A-Za-z]*)`").
		FindAllStringSubmatch(read(t, "docs/architecture.md"), -1) {
		named[name[1]] = true
	}
	if len(named) < 5 {
		t.Fatalf("found only %d names", len(named))
	}
	err := filepath.WalkDir(filepath.FromSlash(root), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		for name := range named {
			if regexp.MustCompile(`\b` + name + `\b`).Match(text) {
				delete(named, name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range named {
		t.Errorf("docs/architecture.md names %s, which no source file does", name)
	}
}
