package check_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/internal/olm"
	"github.com/countersign-dev/countersign/internal/olm/compose"
	"github.com/countersign-dev/countersign/internal/testenv/kustomize"
)

const operatorImage = "registry.example.com/countersign/countersign@" +
	"sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"

// rendered is the input of a bundle of the first version. All tests share one render.
var rendered = sync.OnceValues(func() (compose.Input, error) {
	in := compose.Input{
		Version: "0.1.0", Image: operatorImage,
		BundleImage: "registry.example.com/countersign/countersign-bundle:v0.1.0",
		Created:     time.Date(2026, time.January, 2, 1, 4, 5, 0, time.UTC),
	}
	text, err := kustomize.Render(context.Background(), os.Stderr, kustomize.Overlay{Base: "olm", Image: in.Image})
	if err != nil {
		return in, err
	}
	return in, in.ReadConfig(os.DirFS("../../../config"), text)
})

// input returns the input of a bundle. Its contents are shared: replace them, never change them.
func input(t *testing.T) compose.Input {
	t.Helper()
	in, err := rendered()
	must(t, err)
	return in
}

// files returns a bundle and a catalog that the caller may change.
func files(t *testing.T, in compose.Input) (bundle, catalog compose.Files) {
	t.Helper()
	bundle, err := compose.Bundle(in)
	must(t, err)
	catalog, err = compose.Catalog(bundle, in.BundleImage)
	must(t, err)
	return bundle, catalog
}

// edit changes the object of a file: change gets the value at the path, and returns the new one;
// nil removes it.
func edit(t *testing.T, f compose.Files, name string, change func(any) any, path ...any) {
	t.Helper()
	text, ok := f[name]
	if !ok {
		t.Fatalf("there is no %s among %v", name, slices.Sorted(maps.Keys(f)))
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
