package policyfiles

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The samples are valid, and Read returns what is in them with the defaults.
func TestSamples(t *testing.T) {
	s, err := Read(t.Context(), []string{"../../config/samples"}, Options{Namespace: "countersign-system"})
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]string{}
	for _, p := range s.ImagePolicies {
		modes[p.Name] = string(p.Spec.Mode)
	}
	want := map[string]string{
		"countersign": "Enforce", "platform": "Enforce", "production": "Enforce", "security-tryout": "Warn",
	}
	if diff := cmp.Diff(want, modes); diff != "" {
		t.Errorf("policies (-want +got):\n%s", diff)
	}
}
