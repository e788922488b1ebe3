package signers

import (
	"context"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/cosign"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
)

// sigstoreSigner signs with the real cosign: ci in the tag layout, and qa in a bundle.
type sigstoreSigner struct {
	registry *distribution.Server
	client   *cosign.Client
	keys     map[string]string
}

func startSigstore(ctx context.Context, o Options) (*sigstoreSigner, error) {
	client, err := cosign.New(ctx, o.Dir, o.Registry.CA, o.Progress)
	if err != nil {
		return nil, err
	}
	s := &sigstoreSigner{registry: o.Registry, client: client, keys: map[string]string{}}
	for _, role := range []string{CI, QA} {
		if s.keys[role], err = client.GenerateKey(ctx, role); err != nil {
			return nil, err
		}
	}
	client.Verbose = o.Verbose
	return s, nil
}

// Prepare implements Signer.
func (*sigstoreSigner) Prepare(context.Context, string) error { return nil }

// Stop implements Signer.
func (*sigstoreSigner) Stop() error { return nil }

// Sign implements Signer.
func (s *sigstoreSigner) Sign(ctx context.Context, role string, on Image) error {
	layout := map[string]string{CI: cosign.TagLayout, QA: cosign.BundleLayout}[role]
	return s.client.Sign(ctx, on.Repository+"@"+on.Digest, role, layout)
}

// Spec implements Signer.
func (s *sigstoreSigner) Spec() (v1alpha1.TrustRootSpec, error) {
	spec := &v1alpha1.SigstoreSpec{}
	for _, role := range []string{CI, QA} {
		spec.Roles = append(spec.Roles, v1alpha1.SigstoreRole{
			Name: v1alpha1.RoleName(role), Keys: []v1alpha1.PEM{v1alpha1.PEM(s.keys[role])},
		})
	}
	return v1alpha1.TrustRootSpec{Sigstore: spec, Registries: registriesOf(s.registry)}, nil
}
