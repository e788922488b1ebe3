package notation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/notation"
)

// realBed is the reference registry, and the real notation that signs in it.
type realBed struct {
	*bed

	server *distribution.Server
	client *notation.Client
}

func newRealBed(t *testing.T) *realBed {
	t.Helper()
	server := distribution.Run(t, distribution.Options{})
	b := &realBed{bed: &bed{t: t, now: time.Now()}, server: server, client: notation.NewClient(t, server.CA)}
	b.restart()
	return b
}

// trustRoot returns a TrustRoot that reads the registry.
func (b *realBed) trustRoot(roles ...v1alpha1.NotationRole) *v1alpha1.TrustRoot {
	return &v1alpha1.TrustRoot{Spec: v1alpha1.TrustRootSpec{
		Registries: []v1alpha1.Registry{{Host: b.server.Host, CABundle: v1alpha1.RegistryCABundle(b.server.CA.PEM)}},
		Notation:   &v1alpha1.NotationSpec{Roles: roles},
	}}
}

// push pushes an image.
func (b *realBed) push(tag string) image {
	b.t.Helper()
	ref, err := name.NewTag(b.server.Host + "/acme/app:" + tag)
	if err != nil {
		b.t.Fatal(err)
	}
	pushed, err := random.Image(64, 1)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := remote.Write(ref, pushed, b.server.Options(b.t.Context())...); err != nil {
		b.t.Fatal(err)
	}
	digest, err := pushed.Digest()
	if err != nil {
		b.t.Fatal(err)
	}
	return image{ref.Digest(digest.String())}
}

// signer gives the client the key of a certificate.
func (b *realBed) signer(name string, c *certificate, key crypto.PrivateKey) {
	b.t.Helper()
	if err := b.client.AddKey(name, key, c.chain()...); err != nil {
		b.t.Fatal(err)
	}
}

// withKey returns a certificate of a key by an issuer.
func withKey(t *testing.T, issuer *certificate, name string, key crypto.Signer) *certificate {
	t.Helper()
	template := edited(issue(t, issuer, name).Certificate)
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.Certificate, key.Public(), issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &certificate{Certificate: made, issuer: issuer}
}

// signingKeys returns a key of each type with which notation signs.
func signingKeys(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	all := map[string]crypto.Signer{}
	for name, curve := range map[string]elliptic.Curve{
		"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521(),
	} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = key
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	all["RSA-2048"] = key
	return all
}

// What the real notation signs with each type of key, in each envelope, proves the role of the
// certificate and no other. The reference registry has no referrers API, so that notation lists
// the signatures of an image under the fallback tag.
func TestRealNotation(t *testing.T) {
	t.Parallel()
	b := newRealBed(t)
	ca := issue(t, nil, "acme CA", asCA)
	qa := issue(t, ca, "qa")
	b.signer("qa", qa, qa.key)
	root := b.build(b.trustRoot(
		caRole(
			"ci",
			1,
			[]*certificate{ca},
			"C=US,ST=WA,O=acme,CN=ci",
		),
		caRole("qa", 1, []*certificate{ca}, "C=US,ST=WA,O=acme,CN=qa"),
	))
	var table strings.Builder
	fmt.Fprintf(&table, "%-10s %-9s %-8s %s\n", "key", "envelope", "by ci", "by ci and qa")
	keys := signingKeys(t)
	for _, kind := range slices.Sorted(maps.Keys(keys)) {
		signer := "ci-" + strings.ToLower(kind)
		b.signer(signer, withKey(t, ca, "ci", keys[kind]), keys[kind])
		for _, format := range []string{notation.JWS, notation.COSE} {
			on := b.push(signer + "-" + format)
			var got [2]string
			for i, by := range []string{signer, "qa"} {
				if err := b.client.Sign(t.Context(), on.String(), by, format); err != nil {
					t.Fatal(err)
				}
				e, err := b.fetch(root, on, nil)
				if err != nil {
					t.Fatalf("%s, %s: %v", kind, format, err)
				}
				got[i] = b.roles(e)
			}
			fmt.Fprintf(&table, "%-10s %-9s %-8s %s\n", kind, format, got[0], got[1])
			if got != [2]string{"ci", "ci,qa"} {
				t.Errorf("%s, %s: got %q, want ci, and then ci,qa", kind, format, got)
			}
		}
	}
	t.Log("\n" + table.String())
	tag, err := name.NewTag(b.server.Host + "/acme/app:ci-p-256-jws")
	if err != nil {
		t.Fatal(err)
	}
	e, err := b.fetch(root, tag, nil)
	if err != nil || len(e.Hints("ci-p-256-jws")) != 1 || e.Signed() {
		t.Errorf("the tag: got %v and %v, want a hint that is no signature", e, err)
	}
}

// The commands of docs/notation.md: notation makes a self-signed certificate, which is the trust
// store.
func TestRealNotationOfThePage(t *testing.T) {
	t.Parallel()
	b := newRealBed(t)
	on := b.push("page")
	var roles []v1alpha1.NotationRole
	for _, signer := range []string{"ci", "qa"} {
		if _, err := b.client.Run(t.Context(), "cert", "generate-test", signer); err != nil {
			t.Fatal(err)
		}
		cert, err := os.ReadFile(b.client.Dir + "/notation/localkeys/" + signer + ".crt")
		if err != nil {
			t.Fatal(err)
		}
		role := caRole(signer, 1, nil, "C=US,ST=WA,O=Notary,CN="+signer)
		role.Certificates = []v1alpha1.PEM{v1alpha1.PEM(cert)}
		roles = append(roles, role)
	}
	b.now = time.Now().Add(time.Second) // the certificates are valid from now
	root := b.build(b.trustRoot(roles...))
	for _, want := range []string{"ci", "qa"} {
		if err := b.client.Sign(t.Context(), on.String(), want, notation.JWS); err != nil {
			t.Fatal(err)
		}
		e, err := b.fetch(root, on, nil)
		if err != nil || !strings.HasSuffix(b.roles(e), want) {
			t.Errorf("got %q and %v, want it to end with %s: %s", b.roles(e), err, want, whys(e, want))
		}
		if want == "ci" &&
			!strings.Contains(whys(e, "qa"), `the certificate "CN=ci,O=Notary,L=Seattle,ST=WA,C=US" (key `) {
			t.Errorf("got rejections %q, want the certificate of ci", whys(e, "qa"))
		}
	}
}

// Where the real notation accepts an image, so does the role, and where it does not, neither does
// the role.
func TestRealNotationAgrees(t *testing.T) {
	t.Parallel()
	b := newRealBed(t)
	server := newRevoking(t)
	ca := issue(t, nil, "acme CA", asCA)
	server.issuer = ca
	leaf, revoked := issue(t, ca, "ci"), issue(t, ca, "ci", server.byCRL)
	checked := issue(t, ca, "ci", server.byOCSP)
	server.revoked[revoked.SerialNumber.String()] = true
	for name, c := range map[string]*certificate{"leaf": leaf, "revoked": revoked, "checked": checked} {
		b.signer(name, c, c.key)
	}
	other := issue(t, nil, "other CA", asCA)
	for name, c := range map[string]struct {
		by         string
		cas        []*certificate
		identities []string
		more       []string
		want       bool
	}{
		"a signature": {
			by: "leaf", cas: []*certificate{ca}, identities: []string{"C=US,ST=WA,O=acme,CN=ci"}, want: true,
		},
		"any subject": {by: "leaf", cas: []*certificate{ca}, identities: []string{"*"}, want: true},
		"some attributes": {
			by: "leaf", cas: []*certificate{ca}, identities: []string{"C=US,ST=WA,O=acme"}, want: true,
		},
		"one of two subjects": {
			by: "leaf", cas: []*certificate{ca},
			identities: []string{"C=US,ST=WA,O=acme,CN=qa", "C=US,ST=WA,O=acme,CN=ci"}, want: true,
		},
		"another subject": {by: "leaf", cas: []*certificate{ca}, identities: []string{"C=US,ST=WA,O=acme,CN=qa"}},
		"another case":    {by: "leaf", cas: []*certificate{ca}, identities: []string{"C=US,ST=WA,O=acme,CN=CI"}},
		"another CA":      {by: "leaf", cas: []*certificate{other}, identities: []string{"*"}},
		"two CAs":         {by: "leaf", cas: []*certificate{other, ca}, identities: []string{"*"}, want: true},
		"revoked by CRL":  {by: "revoked", cas: []*certificate{ca}, identities: []string{"*"}},
		"checked by OCSP": {by: "checked", cas: []*certificate{ca}, identities: []string{"*"}, want: true},
		"that will expire": {
			by: "leaf", cas: []*certificate{ca}, identities: []string{"*"}, more: []string{"--expiry", "1h"},
			want: true,
		},
	} {
		on := b.push(strings.ReplaceAll(strings.ToLower(name), " ", "-"))
		if err := b.client.Sign(t.Context(), on.String(), c.by, notation.JWS, c.more...); err != nil {
			t.Fatal(err)
		}
		listed := make([]string, len(c.identities))
		certificates := make([]*x509.Certificate, len(c.cas))
		for i, identity := range c.identities {
			if listed[i] = identity; identity != "*" {
				listed[i] = "x509.subject: " + identity
			}
		}
		for i, one := range c.cas {
			certificates[i] = one.Certificate
		}
		if err := b.client.Trust(listed, certificates...); err != nil {
			t.Fatal(err)
		}
		accepted, says := b.client.Verify(t.Context(), on.String())
		e, err := b.fetch(b.build(b.trustRoot(caRole("ci", 1, c.cas, c.identities...))), on, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := b.roles(e) == "ci"; got != c.want || accepted != c.want {
			t.Errorf("%s: got %t and by notation %t, want %t\n%s\n%s", name, got, accepted, c.want, says, whys(e, "ci"))
		}
	}
}
