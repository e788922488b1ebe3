package inspection

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
)

// The trust roots and roles of a repository are those of all policies that match it, each once.
func TestRelevant(t *testing.T) {
	policy := func(spec v1alpha1.ImagePolicySpec) *v1alpha1.ImagePolicy {
		return &v1alpha1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: spec}
	}
	policies := []*v1alpha1.ImagePolicy{
		policy(v1alpha1.ImagePolicySpec{
			Images:        []v1alpha1.ImagePattern{"registry.example.com/acme/**"},
			TrustRoots:    []v1alpha1.ObjectName{"b", "a"},
			RequiredRoles: []v1alpha1.RoleRequirement{{Role: "qa"}, {AnyOf: []v1alpha1.RoleName{"ci", "nightly"}}},
		}),
		policy(v1alpha1.ImagePolicySpec{
			Images:       []v1alpha1.ImagePattern{"registry.example.com/**"},
			ExceptImages: []v1alpha1.ImagePattern{"registry.example.com/acme/tools"},
			TrustRoots:   []v1alpha1.ObjectName{"c", "a"}, RequiredRoles: []v1alpha1.RoleRequirement{{Role: "qa"}},
		}),
		policy(v1alpha1.ImagePolicySpec{
			Images: []v1alpha1.ImagePattern{"**bad**/x"}, TrustRoots: []v1alpha1.ObjectName{"unread"},
			RequiredRoles: []v1alpha1.RoleRequirement{{Role: "unread"}},
		}),
	}
	for image, want := range map[string]struct{ roots, roles []string }{
		"registry.example.com/acme/app":   {[]string{"a", "b", "c"}, []string{"ci", "nightly", "qa"}},
		"registry.example.com/acme/tools": {[]string{"a", "b"}, []string{"ci", "nightly", "qa"}},
		"registry.example.com/other":      {[]string{"a", "c"}, []string{"qa"}},
		"other.example.com/acme/app":      {},
	} {
		ref, err := imageref.Parse(image)
		if err != nil {
			t.Fatal(err)
		}
		roots, roles := Relevant(policies, ref)
		if !slices.Equal(roots, want.roots) || !slices.Equal(roles, want.roles) {
			t.Errorf("%s: got %v and %v, want %v and %v", image, roots, roles, want.roots, want.roles)
		}
	}
}
