package formats

import (
	"context"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/cosign"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/sigstore"
)

// sigstoreSigner signs with the real cosign: ci in the tag layout, and qa in a bundle.
type sigstoreSigner struct {
	registry *distribution.Server
	client   *cosign.Client
	keys     map[string]string
}

func newSigstore(t *testing.T, registry *distribution.Server) *sigstoreSigner {
	t.Helper()
	s := &sigstoreSigner{registry: registry, client: cosign.NewClient(t, registry.CA), keys: map[string]string{}}
	for _, role := range []string{"ci", "qa"} {
		key, err := s.client.GenerateKey(t.Context(), role)
		if err != nil {
			t.Fatal(err)
		}
		s.keys[role] = key
	}
	return s
}

func (*sigstoreSigner) format() trust.Format { return sigstore.Format{} }

func (s *sigstoreSigner) sign(ctx context.Context, role string, on image) error {
	layout := map[string]string{"ci": cosign.TagLayout, "qa": cosign.BundleLayout}[role]
	return s.client.Sign(ctx, on.repository+"@"+on.digest, role, layout)
}

func (s *sigstoreSigner) spec() (v1alpha1.TrustRootSpec, error) {
	spec := &v1alpha1.SigstoreSpec{}
	for role, key := range s.keys {
		spec.Roles = append(spec.Roles, v1alpha1.SigstoreRole{
			Name: v1alpha1.RoleName(role), Keys: []v1alpha1.PEM{v1alpha1.PEM(key)},
		})
	}
	return v1alpha1.TrustRootSpec{Sigstore: spec, Registries: registriesOf(s.registry)}, nil
}

// registriesOf returns the settings with which a trust root reads the registry.
func registriesOf(registry *distribution.Server) []v1alpha1.Registry {
	return []v1alpha1.Registry{{Host: registry.Host, CABundle: v1alpha1.RegistryCABundle(registry.CA.PEM)}}
}

func (*sigstoreSigner) broken(spec *v1alpha1.TrustRootSpec) { spec.Registries = nil }
