package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv/build"
)

const testImage = "registry.example.com/countersign/countersign:v0.1.0@" +
	"sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"

// bed holds the chart for testImage, and the Helm client.
type bed struct {
	files files
	dir   string // of the chart
	helm  string
	home  string // of Helm
}

// made is the bed that all tests share, in a folder that TestMain removes.
var made struct {
	sync.Once
	dir string
	bed *bed
	err error
}

func TestMain(m *testing.M) {
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	if made.dir, err = os.MkdirTemp("", "countersign-chart-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(made.dir)
	return m.Run(), nil
}

// theBed returns the shared bed, and makes it on the first call. It does so within a test, so that
// go test's cache knows the files that the chart is made from.
func theBed(t *testing.T) *bed {
	t.Helper()
	made.Do(func() { made.bed, made.err = newBed(t.Context(), made.dir) })
	if made.err != nil {
		t.Fatal(made.err)
	}
	return made.bed
}

func newBed(ctx context.Context, dir string) (*bed, error) {
	root, err := build.ModuleRoot()
	if err != nil {
		return nil, err
	}
	// Only kubectl opens these files otherwise, and the cache of go test would not know them.
	if _, err := readFiles(filepath.Join(root, "config")); err != nil {
		return nil, err
	}
	b := &bed{dir: filepath.Join(dir, chartName), home: filepath.Join(dir, "helm")}
	if b.helm, err = build.Helm(ctx, os.Stderr); err != nil {
		return nil, err
	}
	r, err := newRelease("v0.1.0", testImage)
	if err != nil {
		return nil, err
	}
	if b.files, err = generate(ctx, root, r); err != nil {
		return nil, err
	}
	return b, b.files.write(b.dir)
}

// run runs Helm and returns its standard output. Helm reads values from standard input if args have
// "--values -". An error has the standard error output.
func (b *bed) run(ctx context.Context, values string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, b.helm, args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+b.home, "HELM_CONFIG_HOME="+b.home, "HELM_DATA_HOME="+b.home,
		"KUBECONFIG=/dev/null", "KUBECACHEDIR="+b.home)
	cmd.Stdin = strings.NewReader(values)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("helm %s: %w\n%s", args[0], err, stderr.Bytes())
	}
	return stdout.String(), nil
}

const testNamespace = "countersign-system"

// template renders the chart with values, without the objects of helm test. The namespace is that
// of config/, unless args set another.
func (b *bed) template(ctx context.Context, values string, args ...string) (map[string]any, error) {
	text, err := b.run(ctx, values,
		append([]string{"template", chartName, b.dir, "--skip-tests", "--values", "-", "--namespace", testNamespace},
			args...)...)
	if err != nil {
		return nil, err
	}
	return readObjects(strings.NewReader(text))
}

func rendered(t *testing.T, values string, args ...string) map[string]any {
	t.Helper()
	objects, err := theBed(t).template(t.Context(), values, args...)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// differences returns the parts of b that differ from a, by path. A part that b lacks is nil.
func differences(a, b any) map[string]any {
	found := make(map[string]any)
	compare("", a, b, found)
	return found
}

func compare(path string, a, b any, found map[string]any) {
	if reflect.DeepEqual(a, b) {
		return
	}
	switch old := a.(type) {
	case map[string]any:
		if next, ok := b.(map[string]any); ok {
			for key := range merged(old, next) {
				compare(strings.TrimPrefix(path+"."+key, "."), old[key], next[key], found)
			}
			return
		}
	case []any:
		if next, ok := b.([]any); ok && len(next) >= len(old) {
			for i := range next {
				var was any
				if i < len(old) {
					was = old[i]
				}
				compare(fmt.Sprintf("%s[%d]", path, i), was, next[i], found)
			}
			return
		}
	}
	found[path] = b
}

func merged(a, b map[string]any) map[string]any {
	all := make(map[string]any)
	for _, m := range []map[string]any{a, b} {
		for key, value := range m {
			all[key] = value
		}
	}
	return all
}
