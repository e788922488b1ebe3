package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/hack/bundle/compose"
	"github.com/countersign-dev/countersign/hack/bundle/olm"
)

const (
	operatorImage = "registry.example.com/countersign/countersign@" +
		"sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	commitTime = "2026-01-02T03:04:05+02:00"
)

// arguments are those of a bundle of the first version, written to out.
func arguments(out string, more ...string) []string {
	return append([]string{"--version=v0.1.0", "--image=" + operatorImage, "--created=" + commitTime, "--out=" + out},
		more...)
}

// made is what goes into a bundle, rendered once for all tests.
var made = sync.OnceValues(func() (compose.Input, error) {
	in, err := settings{version: "0.1.0", image: operatorImage, created: commitTime}.input()
	if err != nil {
		return in, err
	}
	return in, render(context.Background(), &in)
})

// input returns what goes into a bundle. It is shared: change a copy.
func input(t *testing.T) compose.Input {
	t.Helper()
	in, err := made()
	must(t, err)
	return in
}

// files returns a bundle and a catalog, to be changed.
func files(t *testing.T, in compose.Input) (bundle, catalog compose.Files) {
	t.Helper()
	bundle, err := compose.Bundle(in)
	must(t, err)
	catalog, err = compose.Catalog(bundle, in.BundleImage)
	must(t, err)
	return bundle, catalog
}

// read returns the files below a folder.
func read(t *testing.T, dir string) compose.Files {
	t.Helper()
	found := compose.Files{}
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		found[filepath.ToSlash(name)], err = os.ReadFile(path)
		return err
	}))
	return found
}

// runBundle runs the command.
func runBundle(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	err := run(t.Context(), args, io.Writer(&out))
	return out.String(), err
}

// edit changes the object of a file: change gets the value at the path, and returns the new one;
// nil removes it.
func edit(t *testing.T, f compose.Files, name string, change func(any) any, path ...any) {
	t.Helper()
	text, ok := f[name]
	if !ok {
		t.Fatalf("there is no %s among %v", name, maps.Keys(f))
	}
	var object map[string]any
	must(t, yaml.Unmarshal(text, &object))
	changed := replaced(t, object, change, path)
	text, err := yaml.Marshal(changed)
	must(t, err)
	if string(text) == string(f[name]) {
		t.Fatalf("nothing was changed at %v of %s", path, name)
	}
	f[name] = text
}

// replaced returns v with what lies at the path replaced. A step is a key or an index.
func replaced(t *testing.T, v any, change func(any) any, path []any) any {
	t.Helper()
	if len(path) == 0 {
		return change(v)
	}
	switch step := path[0].(type) {
	case int:
		items, ok := v.([]any)
		if !ok || step >= len(items) {
			t.Fatalf("no item %d in %v", step, v)
		}
		items[step] = replaced(t, items[step], change, path[1:])
	case string:
		m, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("no field %q in %v", step, v)
		}
		if m[step] = replaced(t, m[step], change, path[1:]); m[step] == nil {
			delete(m, step)
		}
	default:
		t.Fatalf("a step of type %T", step)
	}
	return v
}

// to replaces a value.
func to(v any) func(any) any { return func(any) any { return v } }

// with adds a field to a map.
func with(name string, v any) func(any) any {
	return func(old any) any {
		m, ok := old.(map[string]any)
		if !ok {
			return fmt.Sprintf("not a map: %v", old)
		}
		m[name] = v
		return m
	}
}

// manifestFile is the path of a manifest of the bundle.
func manifestFile(name string) string { return olm.ManifestsDir + "/" + name + ".yaml" }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
