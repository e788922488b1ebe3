package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/cosign"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/notation"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/signers"
	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
)

// formats has a registry, and a signer and a trust root of each format beside Notary.
type formats struct {
	registry *distribution.Server
	roots    map[string]*v1alpha1.TrustRoot
	// sign signs an image as a role.
	sign  map[string]func(t *testing.T, role string, on pushed)
	stops []func() error
}

func newFormats(t *testing.T, b *bed) *formats {
	t.Helper()
	f := &formats{
		registry: distribution.Run(t, distribution.Options{}), roots: map[string]*v1alpha1.TrustRoot{},
		sign: map[string]func(*testing.T, string, pushed){},
	}
	f.stops = append(f.stops, f.registry.Stop)
	f.sigstore(t, b)
	f.notation(t, b)
	f.simpleSigning(t, b)
	f.tuf(t, b)
	for _, root := range f.roots {
		if root.Spec.TUF == nil {
			root.Spec.Registries = []v1alpha1.Registry{{
				Host: f.registry.Host, CABundle: v1alpha1.RegistryCABundle(f.registry.CA.PEM),
			}}
		}
	}
	return f
}

// stop ends all servers.
func (f *formats) stop(t *testing.T) {
	t.Helper()
	for _, stop := range f.stops {
		must(t, stop())
	}
}

// material creates a ConfigMap for trust roots.
func (b *bed) material(t *testing.T, name string, entries map[string]string) {
	t.Helper()
	b.create(t, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: operator.Namespace, Name: name}, Data: entries,
	})
}

// sigstore proves ci by an identity, and qa by a key of the real cosign.
func (f *formats) sigstore(t *testing.T, b *bed) {
	t.Helper()
	root := documented(t, "sigstore.md", "identities:")
	f.roots["sigstore"] = root
	keys := cosign.NewClient(t, f.registry.CA)
	public, err := keys.GenerateKey(t.Context(), "qa")
	must(t, err)
	instance := sigstoreinstance.New(t)
	b.material(t, "cosign-keys", map[string]string{"qa.pub": public})
	b.material(t, "trusted-root", map[string]string{"trusted_root.json": string(instance.TrustedRoot())})
	identity := root.Spec.Sigstore.Roles[0].Identities[0]
	f.sign["sigstore"] = func(t *testing.T, role string, on pushed) {
		t.Helper()
		if role == "qa" {
			must(t, keys.Sign(t.Context(), on.digest, role, cosign.BundleLayout))
			return
		}
		made := instance.SignImage(on.hash(),
			sigstoreinstance.Certificate{Issuer: identity.Issuer, Subject: identity.Subject})
		const simple = "application/vnd.dev.cosign.simplesigning.v1+json"
		layers, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{
			Layer: static.NewLayer(made.Payload, simple), MediaType: simple, Annotations: made.Annotations,
		})
		must(t, err)
		digest, err := name.NewDigest(on.digest)
		must(t, err)
		tag := digest.Context().Tag(strings.Replace(on.hash(), ":", "-", 1) + ".sig")
		must(t, remote.Write(tag, layers, f.registry.Options(t.Context())...))
	}
}

// notation signs with the real notation and the certificates that it makes.
func (f *formats) notation(t *testing.T, b *bed) {
	t.Helper()
	f.roots["notation"] = documented(t, "notation.md", "")
	signer := notation.NewClient(t, f.registry.CA)
	certificates := map[string]string{}
	for _, role := range []string{"ci", "qa"} {
		_, err := signer.Run(t.Context(), "cert", "generate-test", role)
		must(t, err)
		certificate, err := os.ReadFile(filepath.Join(signer.Dir, "notation", "localkeys", role+".crt"))
		must(t, err)
		certificates[role+".crt"] = string(certificate)
	}
	b.material(t, "notation-cas", certificates)
	f.sign["notation"] = func(t *testing.T, role string, on pushed) {
		t.Helper()
		must(t, signer.Sign(t.Context(), on.digest, role, notation.JWS))
	}
}

// simpleSigning signs with OpenPGP keys, for a lookaside server.
func (f *formats) simpleSigning(t *testing.T, b *bed) {
	t.Helper()
	root := documented(t, "simple-signing.md", "")
	f.roots["simpleSigning"] = root
	spec := f.start(t, signers.SimpleSigning).SimpleSigning
	root.Spec.SimpleSigning.Lookaside = spec.Lookaside
	root.Spec.SimpleSigning.LookasideCABundle = spec.LookasideCABundle
	public := map[string]string{}
	for _, role := range spec.Roles {
		public[string(role.Name)+".asc"] = string(role.Keys[0])
	}
	b.material(t, "gpg-keys", public)
}

// tuf lists images in one TUF repository.
func (f *formats) tuf(t *testing.T, b *bed) {
	t.Helper()
	root := documented(t, "tuf.md", "")
	f.roots["tuf"] = root
	spec := f.start(t, signers.TUF).TUF
	root.Spec.TUF.Server, root.Spec.TUF.CABundle = spec.Server, spec.CABundle
	b.material(t, "tuf-root", map[string]string{"root.json": spec.Root})
}

// start starts the signer of a format, and returns the settings that it needs.
func (f *formats) start(t *testing.T, format string) v1alpha1.TrustRootSpec {
	t.Helper()
	signer, err := signers.Start(t.Context(), format, signers.Options{Registry: f.registry, Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { _ = signer.Stop() })
	f.stops = append(f.stops, signer.Stop)
	f.sign[format] = func(t *testing.T, role string, on pushed) {
		t.Helper()
		repository, _, _ := strings.Cut(on.digest, "@")
		must(t, signer.Sign(t.Context(), role, signers.Image{
			Repository: repository, Tag: strings.TrimPrefix(on.tag, repository+":"), Digest: on.hash(), Size: 512,
		}))
	}
	spec, err := signer.Spec()
	must(t, err)
	return spec
}
