package notarysign

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// TrustRoot returns the manifest of a TrustRoot that pins a root. The comment at its beginning says
// what to compare before anybody applies it. Empty ca: the server's certificate has a public CA.
func (s *Shown) TrustRoot(name, server, ca string) ([]byte, error) {
	root := v1alpha1.TrustRoot{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "TrustRoot"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.TrustRootSpec{
			RefreshInterval: metav1.Duration{Duration: 5 * time.Minute},
			Notary: &v1alpha1.NotarySpec{
				Server: server, CABundle: v1alpha1.PEMBundle(ca),
			},
		},
	}
	for _, k := range s.Keys {
		root.Spec.Notary.Root.KeyIDs = append(root.Spec.Notary.Root.KeyIDs, v1alpha1.KeyID(k.ID))
	}
	text, err := yaml.Marshal(root)
	if err != nil {
		return nil, fmt.Errorf("writing the TrustRoot: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# The root of %s, version %d, as %s shows it.\n", s.Repository, s.Version, server)
	b.WriteString("# Nothing vouches for it yet. Before you apply this, compare each key ID with the one that the\n" +
		"# publisher tells you by another way.\n")
	for _, k := range s.Keys {
		fmt.Fprintf(&b, "#   %s", k.ID)
		if !k.NotAfter.IsZero() {
			fmt.Fprintf(&b, " (certificate of %q until %s)", k.CommonName, k.NotAfter.Format(time.DateOnly))
		}
		b.WriteString("\n")
	}
	return append([]byte(b.String()), text...), nil
}

// TrustRootName returns a name for the TrustRoot of a repository.
func TrustRootName(repository string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(repository))
	return strings.Trim(name[:min(len(name), 60)], "-")
}
