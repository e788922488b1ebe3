package formats

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/signers"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/test/gate"
)

// moved is a tag that Docker Content Trust has signed for one image, and that the registry has for
// a newer one.
type moved struct {
	name string
	// old and newer are the roles that have signed the one with notary, and the other with cosign.
	old, newer []string
	// roots are the trust roots of the policy, in their order.
	roots []v1alpha1.ObjectName
	// decides is the image that is pinned: "old" or "newer". Empty: neither counts.
	decides string
}

// TestThreatMovedTagFollowsTheOrderOfTrustRoots signs a tag with notary, and then pushes another
// image under it. The first trust root of the policy that names an image which counts decides. An
// image that no role set has signed in full never counts, whatever the registry says.
func TestThreatMovedTagFollowsTheOrderOfTrustRoots(t *testing.T) {
	t.Parallel()
	full, ci, qa := []string{signers.CI, signers.QA}, []string{signers.CI}, []string{signers.QA}
	notaryFirst := []v1alpha1.ObjectName{signers.Notary, signers.Sigstore}
	sigstoreFirst := []v1alpha1.ObjectName{signers.Sigstore, signers.Notary}
	cases := []moved{
		{name: "both-notary-first", old: full, newer: full, roots: notaryFirst, decides: "old"},
		{name: "both-sigstore-first", old: full, newer: full, roots: sigstoreFirst, decides: "newer"},
		{name: "old-in-part", old: ci, newer: full, roots: notaryFirst, decides: "newer"},
		{name: "newer-in-part", old: full, newer: ci, roots: sigstoreFirst, decides: "old"},
		{name: "one-role-each", old: ci, newer: qa, roots: notaryFirst},
		{name: "newer-unsigned", old: full, roots: sigstoreFirst, decides: "old"},
		{name: "old-alone-in-part", old: ci, roots: notaryFirst},
	}
	registry := distribution.Run(t, distribution.Options{})
	by := map[string]signers.Signer{
		signers.Notary:   signerOf(t, registry, signers.Notary),
		signers.Sigstore: signerOf(t, registry, signers.Sigstore),
	}
	policies, images := map[string]*v1alpha1.ImagePolicySpec{}, map[string]map[string]signers.Image{}
	for _, c := range cases {
		policies[c.name] = &v1alpha1.ImagePolicySpec{
			Images:     []v1alpha1.ImagePattern{v1alpha1.ImagePattern("*/acme/" + c.name)},
			TrustRoots: c.roots, RequiredRoles: []v1alpha1.RoleRequirement{{Role: signers.CI}, {Role: signers.QA}},
		}
		images[c.name] = map[string]signers.Image{}
		for _, step := range []struct {
			image, format string
			roles         []string
		}{{"old", signers.Notary, c.old}, {"newer", signers.Sigstore, c.newer}} {
			on, err := signers.Push(t.Context(), registry, "acme/"+c.name, "latest")
			if err != nil {
				t.Fatal(err)
			}
			images[c.name][step.image] = on
			for _, role := range step.roles {
				if err := by[step.format].Sign(t.Context(), role, on); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	g := gate.New(t, start(), policies)
	for format, s := range by {
		spec, err := s.Spec()
		if err != nil {
			t.Fatal(err)
		}
		tr := &v1alpha1.TrustRoot{ObjectMeta: metav1.ObjectMeta{Name: format}, Spec: spec}
		root, err := formats()[format].format.Build(tr, trust.Material{})
		if err != nil {
			t.Fatal(err)
		}
		g.Put(format, root)
	}
	for _, c := range cases {
		want, digest, says := gate.Denied, "", []string{"has not signed"}
		if c.decides != "" {
			want, digest = gate.Admitted, images[c.name][c.decides].Digest
		}
		got := g.Admit(t, images[c.name]["old"].Tagged())
		if err := got.Is(want, digest, says...); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
