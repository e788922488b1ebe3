package manifests

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/workload"
)

func read(t *testing.T, text string, further ...string) (*Set, error) {
	t.Helper()
	kinds, err := workload.Builtin().With(further)
	if err != nil {
		t.Fatal(err)
	}
	return Read([]string{"-"}, Options{Kinds: kinds, Namespace: "shop", Stdin: strings.NewReader(text)})
}

const (
	pod     = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: a:v1}]}\n"
	rollout = "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: r}\n" +
		"spec: {template: {spec: {containers: [{name: a, image: b:v1}]}}}\n"
)

// Every workload in a stream is found, in its document, whatever form the stream has.
func TestRead(t *testing.T) {
	further := "rollouts.v1alpha1.argoproj.io=spec.template"
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"documents": {"# a comment\n---\n" + pod + "---\n" + pod, []string{"2 shop/p a:v1", "3 shop/p a:v1"}},
		"list": {
			`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod",` +
				`"metadata":{"name":"q","namespace":"n"},"spec":{"containers":[{"image":"x"}]}}]}`,
			[]string{"1 n/q x"},
		},
		"typed list": {
			`{"apiVersion":"v1","kind":"PodList","items":[{"metadata":{"name":"q"},` +
				`"spec":{"containers":[{"image":"x"}]}}]}`,
			[]string{"1 shop/q x"},
		},
		"JSON stream": {
			`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"q"},"spec":{"containers":[{"image":"x"}]}} ` +
				`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"r"},"spec":{"containers":[{"image":"y"}]}}`,
			[]string{"1 shop/q x", "1 shop/r y"},
		},
		"further": {rollout, []string{"1 shop/r b:v1"}},
		"an irregular plural": {
			strings.Replace(rollout, "kind: Rollout", "kind: Odd", 1), []string{"1 shop/r b:v1"},
		},
		"another kind": {"apiVersion: v1\nkind: Service\nmetadata: {name: s}\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := read(t, c.text, further)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range set.Workloads {
				got = append(got, fmt.Sprintf("%d %s/%s %s", w.Document, w.Namespace, w.Name, w.Images[0].Image))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("workloads (-want +got):\n%s", diff)
			}
		})
	}
}

// What cannot be read for certain is an error of one line that names the document.
func TestManifestsAreRefused(t *testing.T) {
	bomb := "a: &a " + strings.Repeat("x", 1<<16) + "\nb: [" + strings.Repeat("*a,", 1100) + "]\n"
	for name, c := range map[string]struct{ text, want string }{
		"a template": {
			strings.Replace(pod, "image: a:v1", "image: {{ .Values.image }}", 1), "render its templates first",
		},
		"a quoted template": {
			strings.Replace(pod, "image: a:v1", `image: "{{ .Values.image }}"`, 1), "render it first",
		},
		"broken YAML": {"a: [\n", "document 1: "},
		"no kind":     {"apiVersion: v1\nmetadata: {name: p}\n", "kind is missing"},
		"no containers": {
			strings.Replace(pod, "spec: {containers: [{name: a, image: a:v1}]}", "spec: {}", 1), "containers: empty",
		},
		"an old version":   {"apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: {name: d}\n", "apps/v1"},
		"an end marker":    {"kind: Service\napiVersion: v1\n...\n" + pod, "kubectl would not read it"},
		"text after ---":   {"kind: Service\napiVersion: v1\n--- {}\n" + pod, "separator"},
		"aliases":          {bomb, "alias"},
		"JSON before YAML": {"{kind: Service, apiVersion: v1}\n" + pod, "text follows the document"},
		"carriage returns": {
			strings.ReplaceAll("kind: Service\napiVersion: v1\n---\n"+pod, "\n", "\r"), "text follows the document",
		},
		"a line separator": {"kind: Service\napiVersion: v1\u2028---\u2028" + pod, "text follows the document"},
		"a Pod with items": {pod + "items: []\n---\n" + pod, "makes it a list"},
		"nothing":          {"# nothing\n", "no object"},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := read(t, c.text)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %d workloads and %v, want one line with %q", len(set.Workloads), err, c.want)
			}
		})
	}
}
