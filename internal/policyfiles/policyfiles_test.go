package policyfiles

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/documents"
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

// A namespace of a policy counts as none, as in the API server. So two policies of one name are
// one, whatever namespaces they name.
func TestNamespaceOfAPolicy(t *testing.T) {
	const policy = `{apiVersion: countersign.dev/v1alpha1, kind: ImagePolicy, metadata: {name: a, namespace: %s},
  spec: {images: ["registry.example.com/%s"], trustRoots: [r], requiredRoles: [{role: ci}]}}
`
	read := func(text string) (*Set, error) {
		return Read(t.Context(), []string{"-"}, Options{Documents: documents.Options{Stdin: strings.NewReader(text)}})
	}
	set, err := read(fmt.Sprintf(policy, "one", "x"))
	if err != nil || len(set.ImagePolicies) != 1 || set.ImagePolicies[0].Namespace != "" {
		t.Errorf("got %v, want one policy without a namespace", err)
	}
	_, err = read(fmt.Sprintf(policy, "one", "x") + "---\n" + fmt.Sprintf(policy, "two", "y"))
	if err == nil || !strings.Contains(err.Error(), "document 1 too, with other content") {
		t.Errorf("got %v, want that there are two of one name", err)
	}
}
