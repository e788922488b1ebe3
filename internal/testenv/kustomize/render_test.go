package kustomize

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestImageOverlay(t *testing.T) {
	for ref, want := range map[string]map[string]string{
		"registry.example.com/countersign:v1": {
			"newName": "registry.example.com/countersign", "newTag": "v1",
		},
		"localhost:5001/countersign": {"newName": "localhost:5001/countersign"},
		"localhost:5001/countersign@sha256:ab": {
			"newName": "localhost:5001/countersign", "digest": "sha256:ab",
		},
		"registry.example.com/countersign:v1@sha256:ab": {
			"newName": "registry.example.com/countersign", "newTag": "v1", "digest": "sha256:ab",
		},
	} {
		want["name"] = "countersign"
		if diff := cmp.Diff(want, imageOverlay(ref)); diff != "" {
			t.Errorf("%s: %s", ref, diff)
		}
	}
}
