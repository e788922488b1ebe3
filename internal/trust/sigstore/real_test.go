package sigstore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/testenv/cosign"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
	"github.com/countersign-dev/countersign/internal/trust"
)

// keyRole returns a role with these keys.
func keyRole(name string, threshold int, keys ...string) v1alpha1.SigstoreRole {
	role := v1alpha1.SigstoreRole{Name: v1alpha1.RoleName(name), Threshold: int32(threshold)}
	for _, k := range keys {
		role.Keys = append(role.Keys, v1alpha1.PEM(k))
	}
	return role
}

// trustRoot returns a TrustRoot of the format.
func trustRoot(registries []v1alpha1.Registry, roles ...v1alpha1.SigstoreRole) *v1alpha1.TrustRoot {
	return &v1alpha1.TrustRoot{
		ObjectMeta: metav1.ObjectMeta{Name: "acme-sigstore"},
		Spec:       v1alpha1.TrustRootSpec{Registries: registries, Sigstore: &v1alpha1.SigstoreSpec{Roles: roles}},
	}
}

// build compiles a TrustRoot.
func build(t *testing.T, tr *v1alpha1.TrustRoot) *Root {
	t.Helper()
	root, err := Format{}.Build(tr, trust.Material{})
	if err != nil {
		t.Fatal(err)
	}
	return root.(*Root)
}

// registryOf returns the settings that read a registry.
func registryOf(server *distribution.Server) []v1alpha1.Registry {
	return []v1alpha1.Registry{{Host: server.Host, CABundle: v1alpha1.RegistryCABundle(server.CA.PEM)}}
}

// parse parses a reference.
func parse(t *testing.T, image string) imageref.Ref {
	t.Helper()
	ref, err := imageref.Parse(image)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// fetch returns the evidence about an image.
func fetch(t *testing.T, root trust.Root, image string, held trust.Evidence) (trust.Evidence, error) {
	t.Helper()
	return root.Fetch(t.Context(), root.Subject(parse(t, image)), held)
}

// rolesOf returns the roles that have signed, joined by commas.
func rolesOf(e trust.Evidence) string {
	if e == nil {
		return "no evidence"
	}
	var roles []string
	for _, st := range e.Statements("", "") {
		roles = append(roles, st.Role)
	}
	return strings.Join(roles, ",")
}

// keysOf returns a private key of each type that may sign.
func keysOf(t *testing.T) map[string]crypto.PrivateKey {
	t.Helper()
	all := map[string]crypto.PrivateKey{}
	for name, curve := range map[string]elliptic.Curve{
		"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521(),
	} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = k
	}
	for _, bits := range []int{2048, 3072, 4096} {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		all[fmt.Sprint("RSA-", bits)] = k
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	all["Ed25519"] = edwards
	return all
}

// pushImage pushes an image, and returns its reference by digest.
func pushImage(t *testing.T, server *distribution.Server, tag string) string {
	t.Helper()
	ref, err := name.NewTag(server.Host + "/acme/" + tag)
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image, server.Options(t.Context())...); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return ref.Repository.Name() + "@" + digest.String()
}

// What the real cosign signs with each type of key, in each layout, proves the role of the key and
// no other.
func TestRealSignatures(t *testing.T) {
	t.Parallel()
	server := distribution.Run(t, distribution.Options{})
	client := cosign.NewClient(t, server.CA)
	qa, err := client.GenerateKey(t.Context(), "qa")
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%-10s %-7s %-8s %s\n", "key", "layout", "by ci", "by ci and qa")
	kinds := keysOf(t)
	kinds["cosign"] = nil
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		signer := "ci-" + strings.ToLower(kind)
		ci, err := importKey(t, client, signer, kinds[kind])
		if err != nil {
			t.Fatal(err)
		}
		root := build(t, trustRoot(registryOf(server), keyRole("ci", 1, ci), keyRole("qa", 1, qa)))
		for _, layout := range cosign.Layouts() {
			image := pushImage(t, server, "app:"+signer+"-"+layout)
			got := [2]string{}
			for i, by := range []string{signer, "qa"} {
				if err := client.Sign(t.Context(), image, by, layout); err != nil {
					t.Fatal(err)
				}
				e, err := fetch(t, root, image, nil)
				if err != nil {
					t.Fatalf("%s, %s: %v", kind, layout, err)
				}
				got[i] = rolesOf(e)
			}
			fmt.Fprintf(&table, "%-10s %-7s %-8s %s\n", kind, layout, got[0], got[1])
			if got != [2]string{"ci", "ci,qa"} {
				t.Errorf("%s, %s: got %q, want ci, and then ci,qa", kind, layout, got)
			}
		}
	}
	t.Log("\n" + table.String())
}

// The real cosign writes a certificate chain into a bundle of a version that may not have one. Such
// a bundle is refused, with the reason, and so it is by a key. Without the chain, or in the other
// layout, it counts: docs/sigstore.md says so.
func TestRealCertificateChain(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	client := cosign.NewClient(t, b.CA)
	private, ci := newPrivate(t)
	if _, err := client.ImportKey(t.Context(), "ci", private); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"leaf.pem":  sigstoreinstance.PEM(b.Certify(private.Public(), *certificate())),
		"chain.pem": sigstoreinstance.PEM(b.Fulcio.Intermediate, b.Fulcio.Root),
	} {
		if err := os.WriteFile(filepath.Join(client.Dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root := build(t, trustRoot(b.settings(), keyRole("ci", 1, ci.pem)))
	leaf := []string{"--certificate", filepath.Join(client.Dir, "leaf.pem")}
	chain := append(slices.Clone(leaf), "--certificate-chain", filepath.Join(client.Dir, "chain.pem"))
	for _, c := range []struct {
		layout string
		more   []string
		want   string
	}{
		{cosign.BundleLayout, leaf, "ci"}, {cosign.BundleLayout, chain, ""},
		{cosign.TagLayout, leaf, "ci"}, {cosign.TagLayout, chain, "ci"},
	} {
		on := b.push()
		if err := client.Sign(t.Context(), on.Name(), "ci", c.layout, c.more...); err != nil {
			t.Errorf("%s, %q: %v", c.layout, c.more, err)
			continue
		}
		e, err := fetch(t, root, on.Name(), nil)
		if err != nil || rolesOf(e) != c.want {
			t.Errorf("%s, %q: got %q and %v, want %q: %s", c.layout, c.more, rolesOf(e), err, c.want, whys(e, "ci"))
			continue
		}
		const refused = "is no Sigstore bundle of a version from 0.1 to 0.3"
		if why := whys(e, "ci"); c.want == "" && !strings.Contains(why, refused) {
			t.Errorf("%s, %q: got the reason %q, want that it is no bundle", c.layout, c.more, why)
		}
	}
}

// importKey gives cosign a private key; nil: it makes one.
func importKey(t *testing.T, client *cosign.Client, name string, private crypto.PrivateKey) (string, error) {
	t.Helper()
	if private == nil {
		return client.GenerateKey(t.Context(), name)
	}
	return client.ImportKey(t.Context(), name, private)
}

// An index does not sign its images, and an image does not sign its index. A signature by the
// tag means the digest that the tag has.
func TestRealIndex(t *testing.T) {
	t.Parallel()
	server := distribution.Run(t, distribution.Options{})
	client := cosign.NewClient(t, server.CA)
	ci, err := client.GenerateKey(t.Context(), "ci")
	if err != nil {
		t.Fatal(err)
	}
	root := build(t, trustRoot(registryOf(server), keyRole("ci", 1, ci)))
	for _, layout := range cosign.Layouts() {
		ref, err := name.NewTag(server.Host + "/acme/multi:" + layout)
		if err != nil {
			t.Fatal(err)
		}
		index, err := random.Index(64, 1, 2)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(ref, index, server.Options(t.Context())...); err != nil {
			t.Fatal(err)
		}
		digest, err := index.Digest()
		if err != nil {
			t.Fatal(err)
		}
		children, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		parent := ref.Repository.Name() + "@" + digest.String()
		if err := client.Sign(t.Context(), parent, "ci", layout); err != nil {
			t.Fatal(err)
		}
		child := ref.Repository.Name() + "@" + children.Manifests[0].Digest.String()
		for image, want := range map[string]string{parent: "ci", child: ""} {
			if e, err := fetch(t, root, image, nil); err != nil || rolesOf(e) != want {
				t.Errorf("%s: %s: got %q and %v, want %q", layout, image, rolesOf(e), err, want)
			}
		}
		tag, err := fetch(t, root, ref.Name(), nil)
		if err != nil || len(tag.Hints(layout)) != 1 || tag.Hints(layout)[0] != digest.String() {
			t.Errorf("%s: got the hints %v and %v, want the index", layout, tag, err)
		}
		if err := client.Attest(t.Context(), child, "ci", layout, "https://slsa.dev/provenance/v1", "{}"); err != nil {
			t.Fatal(err)
		}
		if e, err := fetch(t, root, child, nil); err != nil || rolesOf(e) != "" {
			t.Errorf("%s: an attestation on the image: got %q and %v, want no role", layout, rolesOf(e), err)
		}
	}
}

// The real cosign accepts what the instance of the tests makes, by the same trusted root. So the
// tests of identities are about signatures as the client knows them.
func TestRealClientVerifiesIdentities(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	client := cosign.NewClient(t, b.CA)
	if err := os.WriteFile(filepath.Join(client.Dir, "root.json"), b.TrustedRoot(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, l := range both() {
		on := b.push()
		b.pushSigned(on, b.sign(l, on, certificate()).logged())
		verify := func(subject string) error {
			_, err := client.Run(t.Context(), "verify", "--trusted-root", "root.json",
				fmt.Sprintf("--new-bundle-format=%t", l == layoutBundle), "--certificate-identity", subject,
				"--certificate-oidc-issuer", testIssuer, on.Name())
			return err
		}
		if err := verify(testSubject); err != nil {
			t.Errorf("%s: got %v, want it accepted", l, err)
		}
		if verify(testSubject+"x") == nil {
			t.Errorf("%s: another subject: got it accepted", l)
		}
	}
}
