package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/countersign-dev/countersign/internal/olm"
	"github.com/countersign-dev/countersign/internal/olm/compose"
)

const (
	operatorImage = "registry.example.com/countersign/countersign@" +
		"sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	commitTime = "2026-01-02T03:04:05+02:00"
)

// arguments returns arguments that write a bundle of the first version to out.
func arguments(out string, more ...string) []string {
	return append([]string{"--version=v0.1.0", "--image=" + operatorImage, "--created=" + commitTime, "--out=" + out},
		more...)
}

// rendered is the input of a bundle. All tests share one render.
var rendered = sync.OnceValues(func() (compose.Input, error) {
	in, err := settings{version: "0.1.0", image: operatorImage, created: commitTime}.input()
	if err != nil {
		return in, err
	}
	return in, render(context.Background(), &in)
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

// read returns the files in a folder and its subfolders.
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

// manifestFile is the path of a manifest of the bundle.
func manifestFile(name string) string { return olm.ManifestsDir + "/" + name + ".yaml" }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
