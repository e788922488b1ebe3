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

// bed is the chart as it was made for testImage, and the Helm client.
type bed struct {
	files files
	dir   string // the chart
	helm  string
	scrap string // where Helm may write
}

// made is what theBed has made, in a folder that TestMain removes.
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

// theBed makes the chart the first time. It is made within a test, so that Go knows what it was
// made from when it keeps the result of the tests.
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
	if _, err := readFiles(filepath.Join(root, "config")); err != nil { // kubectl reads it, which Go does not see
		return nil, err
	}
	b := &bed{dir: filepath.Join(dir, chartName), scrap: filepath.Join(dir, "helm")}
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

// run runs Helm, with values from standard input where the arguments say "--values -", and returns
// what it printed on both outputs.
func (b *bed) run(ctx context.Context, values string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, b.helm, args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+b.scrap, "HELM_CONFIG_HOME="+b.scrap, "HELM_DATA_HOME="+b.scrap,
		"KUBECONFIG=/dev/null", "KUBECACHEDIR="+b.scrap)
	cmd.Stdin = strings.NewReader(values)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("helm %s: %w\n%s", args[0], err, stderr.Bytes())
	}
	return stdout.String(), nil
}

const testNamespace = "countersign-system"

// template renders the chart with values, in the namespace of config/ unless further arguments say
// otherwise, and without what helm test makes.
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

// differences returns what of b is not as in a, by path; nil stands for what b does not have.
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
