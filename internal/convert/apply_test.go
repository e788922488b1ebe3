package convert_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/convert"
	"github.com/countersign-dev/countersign/internal/formats"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/trust"
)

// kube is the API server that the tests of this package share; TestMain starts it.
var kube *kubeserver.Server

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	var err error
	if kube, err = kubeserver.Start(context.Background(), kubeserver.Options{}); err != nil {
		fmt.Fprintln(os.Stderr, "starting the API server:", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := kube.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// results converts every case of testdata.
func results(t *testing.T) map[string]*convert.Result {
	t.Helper()
	folders, err := filepath.Glob("testdata/*")
	if err != nil || len(folders) < 7 {
		t.Fatalf("got %d cases, %v", len(folders), err)
	}
	all := map[string]*convert.Result{}
	for _, folder := range folders {
		inputs := func(pattern string) []convert.File {
			paths, err := filepath.Glob(filepath.Join(folder, pattern))
			if err != nil {
				t.Fatal(err)
			}
			var files []convert.File
			for _, path := range paths {
				if strings.HasPrefix(filepath.Base(path), "want") {
					continue
				}
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, convert.File{Name: path, Data: data})
			}
			return files
		}
		for suffix, signers := range map[string][]string{"": nil, " with signers": {"ci", "targets"}} {
			r, err := convert.Convert(inputs("*.*[nl]"), convert.Options{
				Namespace: "default", RegistriesD: inputs("registries.d/*"), Signers: signers,
			})
			if err != nil {
				t.Fatalf("%s: %v", folder, err)
			}
			all[filepath.Base(folder)+suffix] = r
		}
	}
	return all
}

// The API server accepts everything that a conversion makes, as kubectl applies it, in YAML and in
// JSON. Each policy compiles, and each TrustRoot becomes Ready once it is filled in.
func TestResultsAreAccepted(t *testing.T) {
	binaries, err := build.Kube(t.Context(), os.Stderr, "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	kube.Kubectl = binaries.Kubectl
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(kube.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	built, incomplete := 0, 0
	for name, r := range results(t) {
		t.Run(name, func(t *testing.T) {
			for _, format := range []string{"yaml", "json"} {
				if format == "json" && name != "connaisseur-3" {
					continue
				}
				var out bytes.Buffer
				if err := r.Write(&out, format); err != nil {
					t.Fatal(err)
				}
				if text, err := kube.RunKubectl(t.Context(), out.String(), "apply", "-f", "-"); err != nil {
					t.Fatalf("%s: %v: %s", format, err, text)
				}
			}
			for _, want := range r.Policies {
				var got v1alpha1.ImagePolicy
				if err := c.Get(t.Context(), client.ObjectKeyFromObject(&want), &got); err != nil {
					t.Fatal(err)
				}
				if _, err := policy.Compile(got.Name, &got.Spec); err != nil {
					t.Errorf("ImagePolicy %s: got %v, want it to compile", got.Name, err)
				}
			}
			b, i := checkBuilt(t, c, r)
			built, incomplete = built+b, incomplete+i
		})
	}
	if built < 30 || incomplete < 10 {
		t.Errorf("got %d TrustRoots built and %d to be filled in, want more", built, incomplete)
	}
}

// checkBuilt builds each TrustRoot as the API server stores it, with its defaults. What a person
// has to fill in is the only thing that may be missing.
func checkBuilt(t *testing.T, c client.Client, r *convert.Result) (built, incomplete int) {
	t.Helper()
	material := materialOf(r)
	for i := range r.TrustRoots {
		var tr v1alpha1.TrustRoot
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(&r.TrustRoots[i]), &tr); err != nil {
			t.Fatal(err)
		}
		options := formats.Options{Hosts: registry.NewHosts(time.Now), Budget: budget.New(64 << 20)}
		for _, format := range formats.All(options) {
			if !format.Of(&tr.Spec) {
				continue
			}
			missing := false
			for _, ref := range format.Refers(&tr.Spec) {
				if _, has := material[ref.KeySource]; !has {
					missing = true
					if !told(r, string(ref.Name)) {
						t.Errorf("TrustRoot %s refers to %s %s, and no note says so", tr.Name, ref.Kind, ref.Name)
					}
				}
			}
			if missing {
				incomplete++
				continue
			}
			built++
			if _, err := format.Build(&tr, material); err != nil {
				t.Errorf("TrustRoot %s: got %v, want it to be built", tr.Name, err)
			}
		}
	}
	return built, incomplete
}

// told reports whether a note names an object.
func told(r *convert.Result, name string) bool {
	return slices.ContainsFunc(r.Notes, func(n convert.Note) bool { return strings.Contains(n.Text, `"`+name+`"`) })
}

// materialOf returns the entries of the ConfigMaps.
func materialOf(r *convert.Result) trust.Material {
	material := trust.Material{}
	for _, m := range r.ConfigMaps {
		source := v1alpha1.KeySource{Kind: "ConfigMap", Name: v1alpha1.ObjectName(m.Name)}
		for key, text := range m.Data {
			source.Key = key
			material[source] = text
		}
		for key, data := range m.BinaryData {
			source.Key = key
			material[source] = string(data)
		}
	}
	return material
}

// Applying a result again does not empty the ConfigMaps that a person has filled.
func TestFilledConfigMapsAreKept(t *testing.T) {
	binaries, err := build.Kube(t.Context(), os.Stderr, "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	kube.Kubectl = binaries.Kubectl
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(kube.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	r := results(t)["portieris"]
	var out bytes.Buffer
	if err := r.Write(&out, "yaml"); err != nil {
		t.Fatal(err)
	}
	m := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "notary.example.com-root", Namespace: "default"}}
	for range 2 {
		if text, err := kube.RunKubectl(t.Context(), out.String(), "apply", "-f", "-"); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(&m), &m); err != nil {
			t.Fatal(err)
		}
		m.Data = map[string]string{"root.pub": "filled"}
		if err := c.Update(t.Context(), &m); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := kube.RunKubectl(t.Context(), out.String(), "apply", "-f", "-"); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(&m), &m); err != nil {
		t.Fatal(err)
	}
	if got := m.Data["root.pub"]; got != "filled" {
		t.Errorf("got %q, want what was filled in", got)
	}
}
