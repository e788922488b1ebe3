package compose_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/internal/olm/compose"
	"github.com/countersign-dev/countersign/internal/testenv/kustomize"
)

func input(t *testing.T) compose.Input {
	t.Helper()
	in := compose.Input{
		Version: "0.1.0", Image: "registry.example.com/countersign:v0.1.0",
		Created: time.Date(2026, time.January, 2, 1, 4, 5, 0, time.UTC),
	}
	text, err := kustomize.Render(t.Context(), os.Stderr, kustomize.Overlay{Base: "olm", Image: in.Image})
	must(t, err)
	must(t, in.ReadConfig(os.DirFS("../../../config"), text))
	return in
}

// Bundle refuses a hand-written part that sets a generated field, so that every field has one
// source.
func TestHandWrittenPartIsKeptApart(t *testing.T) {
	in := input(t)
	for _, line := range []string{
		"metadata: {name: countersign.v9.9.9}", "spec: {version: 9.9.9}", "spec: {replaces: countersign.v9.9.8}",
		"spec: {relatedImages: [{name: a, image: b}]}", "spec: {install: {strategy: deployment}}",
		"spec: {install: {spec: {clusterPermissions: [{serviceAccountName: a, rules: []}]}}}",
		"metadata: {namespace: a}",
		"spec: {customresourcedefinitions: {owned: [{name: imagepolicies.countersign.dev, kind: ImagePolicy}]}}",
		"metadata: {annotations: {createdAt: today}}",
	} {
		t.Run(line, func(t *testing.T) {
			in := in
			var base, more map[string]any
			must(t, yaml.Unmarshal(in.CSV, &base))
			must(t, yaml.Unmarshal([]byte(line), &more))
			merge(base, more)
			var err error
			in.CSV, err = json.Marshal(base)
			must(t, err)
			if _, err := compose.Bundle(in); err == nil || !strings.Contains(err.Error(), "remove it") {
				t.Errorf("got %v, want a refusal", err)
			}
		})
	}
}

func merge(into, from map[string]any) {
	for k, v := range from {
		a, isMap := into[k].(map[string]any)
		if b, ok := v.(map[string]any); ok && isMap {
			merge(a, b)
			continue
		}
		into[k] = v
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
