package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/cosign"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/lookaside"
	"github.com/countersign-dev/countersign/internal/testenv/notation"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
	"github.com/countersign-dev/countersign/internal/testenv/tufserver"
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
	server := lookaside.Run(t)
	f.stops = append(f.stops, func() error { server.Stop(); return nil })
	root.Spec.SimpleSigning.Lookaside = server.URL
	root.Spec.SimpleSigning.LookasideCABundle = v1alpha1.RegistryCABundle(server.CA.PEM)
	keys, public := map[string]*lookaside.Key{}, map[string]string{}
	for _, role := range []string{"ci", "qa"} {
		key, err := lookaside.NewKey(role)
		must(t, err)
		keys[role], public[role+".asc"] = key, key.Public
	}
	b.material(t, "gpg-keys", public)
	f.sign["simpleSigning"] = func(t *testing.T, role string, on pushed) {
		t.Helper()
		must(t, server.Sign(keys[role], on.tag, on.hash()))
	}
}

// tuf lists images in one TUF repository.
func (f *formats) tuf(t *testing.T, b *bed) {
	t.Helper()
	root := documented(t, "tuf.md", "")
	f.roots["tuf"] = root
	server := tufserver.Run(t)
	f.stops = append(f.stops, func() error { server.Down(); return nil })
	repository, err := server.Create("/metadata", time.Now().AddDate(0, 1, 0).UTC().Truncate(time.Second), true)
	must(t, err)
	for _, role := range []string{"ci", "qa"} {
		_, err := repository.Delegate(metadata.TARGETS, role, 1, "*/acme/*")
		must(t, err)
	}
	must(t, repository.Publish(metadata.TARGETS, "ci", "qa"))
	b.material(t, "tuf-root", map[string]string{"root.json": repository.RootJSON(1)})
	root.Spec.TUF.Server = server.URL + "/metadata"
	root.Spec.TUF.CABundle = v1alpha1.PEMBundle(server.CA.PEM)
	f.sign["tuf"] = func(t *testing.T, role string, on pushed) {
		t.Helper()
		must(t, repository.Sign(role, on.tag, on.hash(), 512))
		must(t, repository.Publish(role))
	}
}
