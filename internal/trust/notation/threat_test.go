package notation

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// forged is a signature, or what is in its place, that a test pushes.
type forged struct {
	push    func(b *bed, on image)
	because string // of the rejection
}

// What is in the place of a signature counts only where a certificate of the role has signed this
// image, and may sign code.
func TestThreatWhatIsNoNotationSignature(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ca := issue(t, nil, "ca", asCA)
	leaf, other := issue(t, ca, "ci"), issue(t, ca, "cj")
	root := b.build(b.trustRoot(caRole("ci", 1, []*certificate{ca}, "C=US,ST=WA,O=acme,CN=ci")))
	cases := badRequests(t, leaf)
	for name, c := range badChains(t, ca, leaf) {
		cases[name] = c
	}
	for name, c := range badManifests(leaf) {
		cases[name] = c
	}
	cases["a subject off by one letter"] = forged{
		func(b *bed, on image) { b.sign(on, other) }, `its subject is none of the identities of role "ci"`,
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b.t = t
			on := b.push()
			c.push(b, on)
			e, err := b.fetch(root, on, nil)
			if err != nil || b.roles(e) != "" || len(e.Faults()) > 0 {
				t.Fatalf("got %q, faults %v and %v, want a verdict without a role", b.roles(e), e.Faults(), err)
			}
			if got := whys(e, "ci"); !strings.Contains(got, c.because) {
				t.Errorf("got rejections %q, want them to say %q", got, c.because)
			}
			b.sign(on, leaf)
			if e, err = b.fetch(root, on, e); err != nil || b.roles(e) != "ci" {
				t.Errorf("beside a good signature: got %q and %v, want ci", b.roles(e), err)
			}
		})
	}
}

// badRequests are signatures by a certificate of the role that do not count for what they say.
func badRequests(t *testing.T, leaf *certificate) map[string]forged {
	t.Helper()
	edited := func(edit func(*signature.SignRequest)) func(b *bed, on image) {
		return func(b *bed, on image) {
			for _, mediaType := range mediaTypes() {
				req := request(b.t, leaf, on.DigestStr())
				edit(req)
				b.attach(on, mediaType, envelope(b.t, mediaType, req))
			}
		}
	}
	attribute := func(key string, critical bool) func(b *bed, on image) {
		return edited(func(r *signature.SignRequest) {
			r.ExtendedSignedAttributes = []signature.Attribute{{Key: key, Critical: critical, Value: "x"}}
		})
	}
	return map[string]forged{
		"another image": {
			func(b *bed, on image) {
				b.attach(on, jws.MediaTypeEnvelope, signed(b.t, leaf, "sha256:"+strings.Repeat("0", 64)))
			}, "is about another image, sha256:000",
		},
		"an unknown critical attribute": {
			attribute("com.example.only-on-mondays", true), "critical attribute \"com.example.only-on-mondays\"",
		},
		"a plugin that must verify it": {
			attribute("io.cncf.notary.verificationPlugin", true), "with a plugin of notation",
		},
		"a plugin that may verify it": {
			attribute("io.cncf.notary.verificationPlugin", false), "with a plugin of notation",
		},
		"the scheme of a signing authority": {
			edited(func(r *signature.SignRequest) { r.SigningScheme = signature.SigningSchemeX509SigningAuthority }),
			"has the signing scheme notary.x509.signingAuthority",
		},
		"an expired signature": {
			edited(func(r *signature.SignRequest) {
				r.SigningTime, r.Expiry = epoch.Add(-2*time.Minute), epoch.Add(-time.Minute)
			}),
			"in a signature that expired at ",
		},
		"a payload of another type": {
			edited(func(r *signature.SignRequest) { r.Payload.ContentType = "application/json" }),
			"has a payload of the type application/json",
		},
		"a payload that names no image": {
			edited(func(r *signature.SignRequest) { r.Payload.Content = []byte(`{"targetArtifact":[]}`) }),
			"names no image",
		},
	}
}

// badChains are signatures by the key of the leaf, with chains that cannot be used.
func badChains(t *testing.T, ca, leaf *certificate) map[string]forged {
	t.Helper()
	middle := issue(t, ca, "middle", asCA)
	below := issue(t, middle, "ci")
	otherCA := issue(t, nil, "ca", asCA)
	foreign := issue(t, otherCA, "ci")
	webCA := issue(t, ca, "web", asCA, usages(x509.ExtKeyUsageServerAuth))
	namedCA := issue(t, ca, "named", asCA, func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"example.com"}
	})
	long := issue(t, ca, "long", asCA)
	for range maxChain - 1 {
		long = issue(t, long, "longer", asCA)
	}
	swapped := func(by *certificate, chain ...*x509.Certificate) func(b *bed, on image) {
		return func(b *bed, on image) {
			b.attach(on, jws.MediaTypeEnvelope, withChain(b.t, signed(b.t, by, on.DigestStr()), chain...))
		}
	}
	other := func(edit ...func(*x509.Certificate)) func(b *bed, on image) {
		return swapped(leaf, leaf.reissue(t, edit...).chain()...)
	}
	by := func(c *certificate) func(b *bed, on image) { return func(b *bed, on image) { b.sign(on, c) } }
	longChain := issue(t, long, "ci").chain()
	return map[string]forged{
		"without the usage of code signing": {other(usages(x509.ExtKeyUsageServerAuth)), "must not contain ServerAuth"},
		"with any usage":                    {other(usages(x509.ExtKeyUsageAny)), "does not include code signing"},
		"without a digital signature": {
			other(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageContentCommitment }), "Digital Signature",
		},
		"a CA's own signature":   {other(asCA), "ca field must be set to false"},
		"an expired certificate": {other(until(epoch)), "which expired at "},
		"a certificate of tomorrow": {
			other(func(c *x509.Certificate) { c.NotBefore = epoch.Add(time.Hour) }),
			"is not valid before",
		},
		"an expired intermediate": {
			by(issue(t, issue(t, ca, "middle", asCA, until(epoch)), "ci")),
			"which expired at ",
		},
		"a chain out of order": {
			swapped(below, below.Certificate, ca.Certificate, middle.Certificate),
			"not issued by",
		},
		"a chain without its middle":  {swapped(below, below.Certificate, ca.Certificate), "not issued by"},
		"a chain without its root":    {swapped(below, below.Certificate, middle.Certificate), "self-signed"},
		"another CA of the same name": {by(issue(t, otherCA, "ci")), "no certificate is of a role's trust store"},
		"the CA appended":             {swapped(foreign, append(foreign.chain(), ca.Certificate)...), "self-signed"},
		"an intermediate for the web": {by(issue(t, webCA, "ci")), "whose chain does not verify"},
		"an intermediate for one name": {
			by(issue(t, namedCA, "ci", func(c *x509.Certificate) { c.DNSNames = []string{"example.org"} })),
			"whose chain does not verify",
		},
		"a chain of twelve": {swapped(leaf, longChain...), "has a chain of 12 certificates"},
		"no chain":          {swapped(leaf), "no certificate chain"},
		"the certificate of another key": {
			swapped(leaf, issue(t, ca, "ci").chain()...), "does not verify",
		},
		"a certificate that is none": {
			func(b *bed, on image) {
				raw := editHeader(b.t, signed(b.t, leaf, on.DigestStr()), func(header map[string]any, _ string) {
					header["x5c"] = [][]byte{[]byte("x")}
				})
				b.attach(on, jws.MediaTypeEnvelope, raw)
			}, "has a certificate that cannot be read",
		},
		"a key that takes seconds": {swapped(leaf, leaf.Certificate, hugeKey(t, ca)), "its RSA key has 16384 bits"},
	}
}

// hugeKey returns a certificate with an RSA key that takes long to verify with.
func hugeKey(t *testing.T, ca *certificate) *x509.Certificate {
	t.Helper()
	der := slices.Clone(ca.Raw)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(
			1,
		),
		Subject:   pkix.Name{CommonName: "huge"},
		NotBefore: epoch,
		NotAfter:  epoch.Add(time.Hour),
	}
	made, err := x509.CreateCertificate(rand.Reader, template, cert, hugePublic(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(made); err != nil {
		t.Fatal(err)
	}
	return cert
}

// badManifests are manifests and envelopes that no signature has.
func badManifests(leaf *certificate) map[string]forged {
	raw := func(mediaType, content string) func(b *bed, on image) {
		return func(b *bed, on image) { b.attach(on, mediaType, []byte(content)) }
	}
	swapped := func(of, as string) func(b *bed, on image) {
		return func(b *bed, on image) { b.attach(on, as, envelope(b.t, of, request(b.t, leaf, on.DigestStr()))) }
	}
	return map[string]forged{
		"JWS that is none":  {raw(jws.MediaTypeEnvelope, "<html>"), "is no readable JWS envelope"},
		"JWS of nothing":    {raw(jws.MediaTypeEnvelope, "{}"), "no certificate chain"},
		"COSE that is none": {raw(cose.MediaTypeEnvelope, "\xd2\x84"), "is no readable COSE envelope"},
		"JWS named COSE":    {swapped(jws.MediaTypeEnvelope, cose.MediaTypeEnvelope), "is no readable COSE envelope"},
		"COSE named JWS":    {swapped(cose.MediaTypeEnvelope, jws.MediaTypeEnvelope), "is no readable JWS envelope"},
		"another media type": {
			swapped(
				jws.MediaTypeEnvelope,
				"application/json",
			),
			"has the media type application/json, which is no envelope",
		},
		"bulky JSON": {
			raw(
				jws.MediaTypeEnvelope,
				`{"header":{"x":[`+strings.Repeat("0,", 20<<10)+`0]}}`,
			),
			"is no readable JWS envelope",
		},
		"a changed payload": {
			func(b *bed, on image) {
				good := signed(b.t, leaf, on.DigestStr())
				b.attach(
					on,
					jws.MediaTypeEnvelope,
					bytes.Replace(good, []byte(`"payload":"eyJ`), []byte(`"payload":"eyI`), 1),
				)
			}, "does not verify",
		},
		"two layers": {
			func(b *bed, on image) {
				layer := static.NewLayer(signed(b.t, leaf, on.DigestStr()), jws.MediaTypeEnvelope)
				b.attachLayers(on, layer, static.NewLayer([]byte("{}"), jws.MediaTypeEnvelope))
			}, "has a manifest with 2 layers",
		},
		"no layer": {func(b *bed, on image) { b.attachLayers(on) }, "has a manifest without layers"},
	}
}

// A role is proven by distinct keys: not by one key in several signatures and certificates.
func TestThreatOneNotationKeyCountsOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ca, otherCA := issue(t, nil, "ca", asCA), issue(t, nil, "other ca", asCA)
	first, second := issue(t, ca, "first"), issue(t, ca, "second")
	elsewhere := *first
	elsewhere.issuer = otherCA
	root := b.build(
		b.trustRoot(caRole("ci", 2, []*certificate{ca, otherCA}), caRole("qa", 1, []*certificate{ca}, "CN=second")),
	)
	on := b.push()
	for _, by := range []*certificate{first, first.reissue(t), elsewhere.reissue(t)} {
		b.sign(on, by)
	}
	e, err := b.fetch(root, on, nil)
	if err != nil || b.roles(e) != "" {
		t.Fatalf("by one key, in three certificates: got %q and %v, want no role", b.roles(e), err)
	}
	if got := whys(e, "ci"); !strings.Contains(got, `role "ci" needs 2 keys`) {
		t.Errorf("got rejections %q, want the threshold", got)
	}
	b.sign(on, second)
	if e, err = b.fetch(root, on, e); err != nil || b.roles(e) != "ci,qa" {
		t.Fatalf("by a second key: got %q and %v, want both roles", b.roles(e), err)
	}
	if keys := e.Statements("", "")[0].Keys; len(keys) != 2 || !slices.IsSorted(keys) {
		t.Errorf("got keys %q, want both, sorted", keys)
	}
	if got := whys(e, "release"); got != "" {
		t.Errorf("got rejections %q for a role that is not listed, want none", got)
	}
}

// A key of spec.revokedKeys counts for no role, wherever in the chain it is: in what is fetched,
// held and recorded.
func TestThreatRevokedNotationKey(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ca := issue(t, nil, "ca", asCA)
	middle := issue(t, ca, "middle", asCA)
	leaf := issue(t, middle, "ci")
	tr := b.trustRoot(caRole("ci", 1, []*certificate{middle}))
	before := b.build(tr)
	on := b.push()
	b.sign(on, leaf)
	held, err := b.fetch(before, on, nil)
	if err != nil || b.roles(held) != "ci" {
		t.Fatalf("before: got %q and %v", b.roles(held), err)
	}
	for name, c := range map[string]*certificate{"leaf": leaf, "intermediate": middle, "root": ca} {
		revoking := tr.DeepCopy()
		revoking.Spec.RevokedKeys = []v1alpha1.KeyID{v1alpha1.KeyID(keyID(c.Certificate))}
		after := b.build(revoking)
		fetched, err := b.fetch(after, on, held)
		if err != nil {
			t.Fatal(err)
		}
		checked, err := after.Recheck(about(t, after, on), held)
		if err != nil {
			t.Fatal(err)
		}
		for how, e := range map[string]trust.Evidence{
			"fetched": fetched, "held": checked, "recorded": b.record(before, after, on, held),
		} {
			if got := b.roles(e); got != "" {
				t.Errorf("%s, %s: got %q, want no role by a revoked key", name, how, got)
			}
			if got := whys(e, "ci"); !strings.Contains(got, "spec.revokedKeys lists the key of the certificate") {
				t.Errorf("%s, %s: got rejections %q, want the revocation", name, how, got)
			}
		}
		if noted := len(after.Notes()) > 0; noted != (c == middle) {
			t.Errorf("%s: got a note %t, want one only of the trust store's key", name, noted)
		}
	}
	if checked, err := before.Recheck(about(t, before, on), held); err != nil || b.roles(checked) != "ci" {
		t.Errorf("no longer revoked: got %q and %v, want ci", b.roles(checked), err)
	}
}

// Signatures in the hundreds: the first 64 are read. Beyond that, what is missing could not be
// checked, and what is met counts.
func TestThreatNotationSignaturesInTheHundreds(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ca := issue(t, nil, "ca", asCA)
	leaf := issue(t, ca, "ci")
	root := b.build(b.trustRoot(caRole("ci", 1, []*certificate{ca})))
	on := b.push()
	list := &listing{}
	root.Verifier.(*verifier).registry = list
	for i := range 65 {
		list.add(fmt.Sprintf("%064d", i), artifactType, []byte("{}"))
	}
	e, err := b.fetch(root, on, nil)
	if f := trust.AsFault(err, ""); err == nil || f.Reason != v1alpha1.ReasonTooLarge {
		t.Fatalf("65 that are none: got %v and %v, want that it could not be checked", b.roles(e), err)
	}
	list.add(strings.Repeat("f", 64), artifactType, signed(t, leaf, on.DigestStr()))
	slices.Reverse(list.all)
	e, err = b.fetch(root, on, nil)
	if err != nil || b.roles(e) != "ci" || len(e.Faults()) != 1 {
		t.Errorf("a good one before them: got %q, %v and %v, want ci and a fault", b.roles(e), e.Faults(), err)
	}
	slices.Reverse(list.all) // the good one is now the last
	later, err := b.fetch(root, on, e)
	if err != nil || b.roles(later) != "ci" || len(later.Faults()) != 1 {
		t.Errorf("held, and then behind them: got %q, %v and %v, want ci and a fault", b.roles(later), later, err)
	}
	list.all = nil
	for i := range 1000 {
		list.add(fmt.Sprintf("%064d", i), "", []byte("{}"))
	}
	list.add(strings.Repeat("f", 64), artifactType, signed(t, leaf, on.DigestStr()))
	e, err = b.fetch(root, on, nil)
	if err != nil || b.roles(e) != "ci" {
		t.Errorf("after 1,000 manifests without a type: got %q and %v, want ci", b.roles(e), err)
	}
	if list.read > 4*2*(maxSignatures+1) {
		t.Errorf("got %d requests, want at most two for each of 64 signatures", list.read)
	}
}

// A file that is larger than any signature is not read, and hides no signature.
func TestThreatNotationSignaturesOfMegabytes(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ca := issue(t, nil, "ca", asCA)
	root := b.build(b.trustRoot(caRole("ci", 1, []*certificate{ca})))
	on := b.push()
	b.attach(on, jws.MediaTypeEnvelope, bytes.Repeat([]byte(" "), maxSignature+1))
	b.attach(on, "application/"+strings.Repeat("x", maxSignature), []byte("x"))
	e, err := b.fetch(root, on, nil)
	if err != nil || len(e.Faults()) > 0 || b.roles(e) != "" {
		t.Fatalf("got %q, %v and %v, want a verdict", b.roles(e), e, err)
	}
	if got := whys(e, "ci"); !strings.Contains(got, "has a layer of more than 64 KiB") ||
		!strings.Contains(got, "has a manifest of more than 64 KiB") {
		t.Errorf("got rejections %q, want both sizes", got)
	}
	b.sign(on, issue(t, ca, "ci"))
	if e, err = b.fetch(root, on, nil); err != nil || b.roles(e) != "ci" {
		t.Errorf("beside a good signature: got %q and %v, want ci", b.roles(e), err)
	}
}

// A record is verified again: with the roles of the TrustRoot, and for the image that it is of.
func TestThreatForgedNotationRecord(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ca, otherCA := issue(t, nil, "ca", asCA), issue(t, nil, "other ca", asCA)
	root := b.build(b.trustRoot(caRole("ci", 1, []*certificate{ca})))
	on, second := b.push(), b.push()
	b.sign(on, issue(t, ca, "ci"))
	b.sign(on, issue(t, otherCA, "ci"))
	e, err := b.fetch(root, on, nil)
	if err != nil || b.roles(e) != "ci" {
		t.Fatalf("got %q and %v", b.roles(e), err)
	}
	if got := b.record(root, root, on, e); b.roles(got) != "ci" || len(got.(*evidence).judged) != 1 {
		t.Errorf(
			"got %q by %d signatures, want ci by the only one of a role",
			b.roles(got),
			len(got.(*evidence).judged),
		)
	}
	other := b.build(b.trustRoot(caRole("ci", 1, []*certificate{otherCA})))
	if got := b.record(root, other, on, e); b.roles(got) != "" {
		t.Errorf("under another trust store: got %q, want no role", b.roles(got))
	}
	v := root.Verifier.(*verifier)
	packed, err := v.Pack(e)
	if err != nil {
		t.Fatal(err)
	}
	moved, err := v.Unpack(about(t, root, second), packed, nil)
	if err != nil || b.roles(moved) != "" {
		t.Errorf("as the record of another image: got %q and %v, want no role", b.roles(moved), err)
	}
	for name, damaged := range map[string][]byte{
		"no gzip": []byte("x"), "cut": packed[:len(packed)/2], "empty": pack(t, v, &collection{}),
		"none that is one": pack(t, v, &collection{Signatures: []kept{{ID: "x", Why: "is none"}}}),
		"too many":         pack(t, v, &collection{Signatures: make([]kept, 2*maxSignatures+1)}),
	} {
		if got, err := v.Unpack(about(t, root, on), damaged, nil); err == nil ||
			trust.AsFault(err, "").Reason != v1alpha1.ReasonMetadataInvalid {
			t.Errorf("%s: got %v and %v, want a fault", name, got, err)
		}
	}
}

func pack(t *testing.T, v *verifier, c *collection) []byte {
	t.Helper()
	packed, err := v.packer.Pack(c)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}
