package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The licenses of linked modules are included, and two calls give the same result.
func TestLicenses(t *testing.T) {
	keepEnvironment(t)
	get := func() []packed {
		got, err := licenses(t.Context(), filepath.Join("..", ".."), manager(), []string{"linux/amd64", "linux/arm64"})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := get()
	if !slices.EqualFunc(got, get(),
		func(a, b packed) bool { return a.name == b.name && string(a.text) == string(b.text) }) {
		t.Error("got different licenses from two calls")
	}
	seen := map[string]bool{".": true}
	for _, f := range got {
		if parent := filepath.Dir(strings.TrimSuffix(f.name, "/")); !seen[parent] {
			t.Errorf("got %s before its folder", f.name)
		}
		seen[strings.TrimSuffix(f.name, "/")] = true
	}
	for _, want := range []string{
		"github.com/countersign-dev/countersign/LICENSE", "go/LICENSE", "go/PATENTS",
		"go.yaml.in/yaml/v2/LICENSE.libyaml", "k8s.io/client-go/LICENSE",
	} {
		if !seen["licenses/"+want] {
			t.Errorf("got no %s", want)
		}
	}
}

func TestLicenseMissing(t *testing.T) {
	keepEnvironment(t)
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.com/none\n", "main.go": "package main\n\nfunc main() {}\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := licenses(t.Context(), root, manager(), []string{"linux/amd64"}); err == nil ||
		!strings.Contains(err.Error(), "example.com/none has no file with its license") {
		t.Errorf("got %v, want an error that names the module", err)
	}
}
