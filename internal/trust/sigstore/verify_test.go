package sigstore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

// message returns a bundle with a signature over content.
func message(t testing.TB, by signer, content []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(content)
	return fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":"x"}},"messageSignature":`+
		`{"messageDigest":{"algorithm":"SHA2_256","digest":%q},"signature":%q}}`, bundleType,
		base64.StdEncoding.EncodeToString(sum[:]), by.sign(t, content))
}

// signature is one signature on an image that a test pushes.
type pushing func(b *registryBed, on image, ci, other signer)

// simple pushes a payload in the tag layout, which by signs.
func simple(kind, repository string, ofOther bool, by string) pushing {
	return func(b *registryBed, on image, ci, other signer) {
		digest := on.DigestStr()
		if ofOther {
			digest = b.push().DigestStr()
		}
		content := payload(kind, repository, digest)
		b.tagged(on, layerOf(content, pick(by, ci, other).sign(b.t, content), simpleSigning))
	}
}

func pick(by string, ci, other signer) signer {
	if by == "ci" {
		return ci
	}
	return other
}

// statementBy pushes a bundle with a statement about the image and a second digest.
func statementBy(by, predicateType, mediaType string) pushing {
	return func(b *registryBed, on image, ci, other signer) {
		second := "sha256:" + strings.Repeat("0", 64)
		b.bundle(on, mediaType, envelope(b.t, pick(by, ci, other), mediaType,
			statementOf(predicateType, second, on.DigestStr())))
	}
}

// What an attacker may push beside an image counts only where the key of the role has signed this
// image.
func TestThreatWhatIsNoSignature(t *testing.T) {
	t.Parallel()
	b, ci, other := newRegistryBed(t), newSigner(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), keyRole("ci", 1, ci.pem)))
	cases := map[string]struct {
		push    pushing
		signed  bool
		because string // of the rejection
	}{
		"tag": {
			push: simple(cosignType, "registry.example.com/acme/app", false, "ci"), signed: true,
		},
		"tag, the type that podman writes": {push: simple(atomicType, "", false, "ci"), signed: true},
		"tag, another type": {
			push: simple("blob signature", "", false, "ci"), because: `of the type "blob signature"`,
		},
		"tag, another image": {push: simple(cosignType, "", true, "ci"), because: "is about another image, sha256:"},
		"tag, another key": {
			push: simple(cosignType, "", false, "other"), because: "a key that no role of this trust root lists",
		},
		"tag, another media type": {
			push: func(b *registryBed, on image, ci, _ signer) {
				content := payload(cosignType, "", on.DigestStr())
				b.tagged(on, layerOf(content, ci.sign(b.t, content), "application/vnd.dsse.envelope.v1+json"))
			},
			because: "has the media type application/vnd.dsse.envelope.v1+json",
		},
		"tag, no signature in the annotation": {
			push: func(b *registryBed, on image, _, _ signer) {
				b.tagged(on, layerOf(payload(cosignType, "", on.DigestStr()), "not base64!", simpleSigning))
			},
			because: "has no readable signature",
		},
		"tag, not JSON": {
			push: func(b *registryBed, on image, ci, _ signer) {
				b.tagged(on, layerOf([]byte("{"), ci.sign(b.t, []byte("{")), simpleSigning))
			},
			because: "is not JSON",
		},
		"bundle": {push: statementBy("ci", signPredicate, bundleType), signed: true},
		"bundle 0.1, the older spelling": {
			push: statementBy("ci", signPredicate, bundlePrefix+"+json;version=0.1"), signed: true,
		},
		"bundle 0.2, the older spelling": {
			push: statementBy("ci", signPredicate, bundlePrefix+"+json;version=0.2"), signed: true,
		},
		"bundle 0.3, the older spelling": {
			push: statementBy("ci", signPredicate, bundlePrefix+"+json;version=0.3"), signed: true,
		},
		"bundle 0.1": {push: statementBy("ci", signPredicate, bundlePrefix+".v0.1+json"), signed: true},
		"bundle 0.4": {
			push:    statementBy("ci", signPredicate, bundlePrefix+".v0.4+json"),
			because: "is no Sigstore bundle of a version",
		},
		"bundle, another key": {
			push:    statementBy("other", signPredicate, bundleType),
			because: "a key that no role of this trust root lists",
		},
		"bundle, an attestation": {
			push:    statementBy("ci", "https://slsa.dev/provenance/v1", bundleType),
			because: "is an attestation (https://slsa.dev/provenance/v1), which is no signature",
		},
		"bundle, other images": {
			push: func(b *registryBed, on image, ci, _ signer) {
				b.bundle(on, bundleType,
					envelope(b.t, ci, bundleType, statementOf(signPredicate, b.push().DigestStr())))
			},
			because: "is about other images",
		},
		"bundle, a second signature in the envelope": {
			push: func(b *registryBed, on image, ci, _ signer) {
				content := statementOf(signPredicate, on.DigestStr())
				text := envelope(b.t, ci, bundleType, content)
				b.bundle(on, bundleType,
					bytes.Replace(text, []byte(`"signatures":[`), []byte(`"signatures":[{"sig":"eA=="},`), 1))
			},
			because: "a key that no role of this trust root lists",
		},
		"bundle, not JSON": {
			push:    func(b *registryBed, on image, _, _ signer) { b.bundle(on, bundleType, []byte("<html>")) },
			because: "is not JSON",
		},
		"bundle of a signature over the manifest": {
			push: func(b *registryBed, on image, ci, _ signer) {
				b.bundle(on, bundleType, message(b.t, ci, on.manifest))
			},
			signed: true,
		},
		"bundle of a signature over something else": {
			push: func(b *registryBed, on image, ci, _ signer) {
				b.bundle(on, bundleType, message(b.t, ci, b.push().manifest))
			},
			because: "a key that no role of this trust root lists",
		},
		"nothing": {push: func(*registryBed, image, signer, signer) {}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b.t = t
			on := b.push()
			c.push(b, on, ci, other)
			e, err := fetch(t, root, on.Name(), nil)
			if err != nil {
				t.Fatalf("got %v, want a verdict", err)
			}
			want := ""
			if c.signed {
				want = "ci"
			}
			if got := rolesOf(e); got != want || len(e.Faults()) > 0 {
				t.Errorf("got roles %q and faults %v, want %q and none", got, e.Faults(), want)
			}
			if got := whys(e, "ci"); !strings.Contains(got, c.because) || (got == "") != (c.because == "") {
				t.Errorf("got rejections %q, want them to say %q", got, c.because)
			}
			if e.Signed() != c.signed {
				t.Errorf("got Signed %t, want %t", e.Signed(), c.signed)
			}
			packed, err := root.Pack(map[trust.Subject]trust.Evidence{root.Subject(parse(t, on.Name())): e})
			if err != nil || (packed != nil) != c.signed {
				t.Errorf("got a record of %d bytes and %v, want one only of a verified signature", len(packed), err)
			}
		})
	}
}

// Every scheme in which cosign's libraries sign with a type of key counts.
func TestSchemes(t *testing.T) {
	t.Parallel()
	b := newRegistryBed(t)
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	schemes := map[string]func() (signature.Signer, error){
		"Ed25519":   func() (signature.Signer, error) { return signature.LoadED25519Signer(edwards) },
		"Ed25519ph": func() (signature.Signer, error) { return signature.LoadED25519phSigner(edwards) },
	}
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		schemes["RSA PKCS #1 v1.5 with "+hash.String()] = func() (signature.Signer, error) {
			return signature.LoadRSAPKCS1v15Signer(long, hash)
		}
		schemes["RSA PSS with "+hash.String()] = func() (signature.Signer, error) {
			return signature.LoadRSAPSSSigner(long, hash, nil)
		}
	}
	for name, c := range map[string]struct {
		curve elliptic.Curve
		hash  crypto.Hash
	}{
		"P-256": {elliptic.P256(), crypto.SHA256}, "P-384": {elliptic.P384(), crypto.SHA384},
		"P-521": {elliptic.P521(), crypto.SHA512}, "P-384 with SHA-256": {elliptic.P384(), crypto.SHA256},
		"P-521 with SHA-256": {elliptic.P521(), crypto.SHA256},
	} {
		private, err := ecdsa.GenerateKey(c.curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		schemes[name] = func() (signature.Signer, error) { return signature.LoadECDSASigner(private, c.hash) }
	}
	for name, load := range schemes {
		t.Run(name, func(t *testing.T) {
			b.t = t
			s, err := load()
			if err != nil {
				t.Fatal(err)
			}
			by := signerOf(t, s)
			root := build(t, trustRoot(b.settings(), keyRole("ci", 1, by.pem)))
			for layout, push := range map[string]pushing{
				"tag":       simple(cosignType, "", false, "ci"),
				"statement": statementBy("ci", signPredicate, bundleType),
				"message": func(b *registryBed, on image, ci, _ signer) {
					b.bundle(on, bundleType, message(b.t, ci, on.manifest))
				},
			} {
				on := b.push()
				push(b, on, by, by)
				e, err := fetch(t, root, on.Name(), nil)
				if err != nil || rolesOf(e) != "ci" {
					t.Errorf("%s: got %q and %v, want the role", layout, rolesOf(e), err)
				}
			}
		})
	}
}

// A role is proven by distinct keys: not by one key in several signatures, layouts and entries.
func TestThreatOneSigstoreKeyCountsOnce(t *testing.T) {
	t.Parallel()
	b, first, second := newRegistryBed(t), newSigner(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), keyRole("ci", 2, first.pem, first.pem, second.pem),
		keyRole("qa", 1, second.pem)))
	on := b.push()
	content := payload(cosignType, "", on.DigestStr())
	again := payload(cosignType, "registry.example.com/acme/app", on.DigestStr())
	b.tagged(on, layerOf(content, first.sign(t, content), simpleSigning),
		layerOf(again, first.sign(t, again), simpleSigning))
	statementBy("ci", signPredicate, bundleType)(b, on, first, second)
	e, err := fetch(t, root, on.Name(), nil)
	if err != nil || rolesOf(e) != "" {
		t.Errorf("by one key, three times: got %q and %v, want no role", rolesOf(e), err)
	}
	if got := whys(e, "ci"); !strings.Contains(got, `role "ci" needs 2 signers`) {
		t.Errorf("got rejections %q, want the threshold", got)
	}
	statementBy("other", signPredicate, bundleType)(b, on, first, second)
	e, err = fetch(t, root, on.Name(), e)
	if err != nil || rolesOf(e) != "ci,qa" {
		t.Fatalf("by a second key: got %q and %v, want both roles", rolesOf(e), err)
	}
	if keys := e.Statements("", "")[0].Keys; len(keys) != 2 || !slices.IsSorted(keys) {
		t.Errorf("got keys %q, want both, sorted", keys)
	}
	_, err = Format{}.Build(trustRoot(b.settings(), keyRole("ci", 2, first.pem, first.pem)), nil)
	if err == nil || !strings.Contains(err.Error(), "spec.sigstore.roles[0].threshold: 2 keys and identities must "+
		"sign, and the role has 1 distinct ones") {
		t.Errorf("a threshold that cannot be met: got %v, want the field named", err)
	}
}

// A revoked key counts for no role: in what is fetched, in what is held, and in records. Once it is
// no longer revoked, it counts again without a request.
func TestThreatRevokedSigstoreKey(t *testing.T) {
	t.Parallel()
	b, ci := newRegistryBed(t), newSigner(t)
	tr := trustRoot(b.settings(), keyRole("ci", 1, ci.pem))
	before := build(t, tr)
	revoking := tr.DeepCopy()
	revoking.Spec.RevokedKeys = []v1alpha1.KeyID{v1alpha1.KeyID(ci.id)}
	after := build(t, revoking)
	on := b.push()
	simple(cosignType, "", false, "ci")(b, on, ci, ci)
	about := before.Subject(parse(t, on.Name()))
	held, err := before.Fetch(t.Context(), about, nil)
	if err != nil || rolesOf(held) != "ci" {
		t.Fatalf("before: got %q and %v", rolesOf(held), err)
	}
	packed, err := before.Pack(map[trust.Subject]trust.Evidence{about: held})
	if err != nil {
		t.Fatal(err)
	}
	fetched, err := after.Fetch(t.Context(), about, nil)
	if err != nil {
		t.Fatal(err)
	}
	checked, err := after.Recheck(about, held)
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := after.Unpack(about.InRepository(), packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]trust.Evidence{"fetched": fetched, "held": checked, "recorded": recorded[about]} {
		if got := rolesOf(e); got != "" {
			t.Errorf("%s: got %q, want no role of a revoked key", name, got)
		}
		if got := whys(e, "ci"); !strings.Contains(got, "spec.revokedKeys lists that key") {
			t.Errorf("%s: got rejections %q, want the revocation", name, got)
		}
		again, err := before.Recheck(about, e)
		if err != nil || rolesOf(again) != "ci" {
			t.Errorf("%s, no longer revoked: got %q and %v, want the role", name, rolesOf(again), err)
		}
	}
	if notes := after.Notes(); len(notes) != 1 || !strings.Contains(notes[0], short(ci.id)) {
		t.Errorf("got notes %q, want the revoked key of a role", notes)
	}
}

// Under signedRepository: Match only signatures that name the repository count.
func TestThreatSignatureOfAnotherRepository(t *testing.T) {
	t.Parallel()
	b, ci := newRegistryBed(t), newSigner(t)
	tr := trustRoot(b.settings(), keyRole("ci", 1, ci.pem))
	ignoring := build(t, tr)
	tr.Spec.Sigstore.SignedRepository = v1alpha1.SignedRepositoryMatch
	tr.Spec.IdentityRemap = []v1alpha1.IdentityRemap{{Prefix: b.Host + "/", SignedPrefix: "registry.example.com/"}}
	matching := build(t, tr)
	for repository, counts := range map[string]bool{
		"registry.example.com/acme/app": true, "registry.example.com:443/acme/app:v1": true,
		"registry.example.com/acme/other": false, b.Host + "/acme/app": false, "": false, "::": false,
	} {
		on := b.push()
		simple(cosignType, repository, false, "ci")(b, on, ci, ci)
		for name, c := range map[string]struct {
			root   trust.Root
			counts bool
		}{"Ignore": {ignoring, true}, "Match": {matching, counts}} {
			e, err := fetch(t, c.root, on.Name(), nil)
			if err != nil || (rolesOf(e) == "ci") != c.counts {
				t.Errorf("%s, signed as %q: got %q and %v, want it to count: %t", name, repository, rolesOf(e), err,
					c.counts)
			}
			if got := whys(e, "ci"); !c.counts && !strings.Contains(got, "signedRepository is Match") {
				t.Errorf("%s, signed as %q: got rejections %q, want the reason", name, repository, got)
			}
		}
	}
	on := b.push()
	statementBy("ci", signPredicate, bundleType)(b, on, ci, ci)
	if e, err := fetch(t, matching, on.Name(), nil); err != nil || rolesOf(e) != "" ||
		!strings.Contains(whys(e, "ci"), "names no repository") {
		t.Errorf("a bundle that names none: got %q and %v, want no role, and why", rolesOf(e), err)
	}
}

// faulty is a registry that fails where a test wants it to, and counts requests.
type faulty struct {
	registries
	mu                  sync.Mutex
	requests            []string
	tag, referrers, any error
	attestations        error // of the tag of attestations
}

func (f *faulty) count(what string, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, what)
	return errors.Join(f.any, err)
}

func (f *faulty) Tagged(ctx context.Context, repository, tag string) (registry.Manifest, error) {
	what, fault := "tag", f.tag
	if strings.HasSuffix(tag, ".att") {
		what, fault = "att", f.attestations
	}
	if err := f.count(what, fault); err != nil {
		return registry.Manifest{}, err
	}
	return f.registries.Tagged(ctx, repository, tag)
}

func (f *faulty) Manifest(ctx context.Context, repository, digest string, limit int64) (registry.Manifest,
	error) {
	if err := f.count("manifest", nil); err != nil {
		return registry.Manifest{}, err
	}
	return f.registries.Manifest(ctx, repository, digest, limit)
}

func (f *faulty) Referrers(ctx context.Context, repository, digest, artifactType string) ([]registry.Descriptor,
	error) {
	if err := f.count("referrers", f.referrers); err != nil {
		return nil, err
	}
	return f.registries.Referrers(ctx, repository, digest, artifactType)
}

func (f *faulty) Blob(ctx context.Context, repository, digest string, limit int64) ([]byte, error) {
	if err := f.count("blob", nil); err != nil {
		return nil, err
	}
	return f.registries.Blob(ctx, repository, digest, limit)
}

// withFaults makes the registry of a root fail where the test wants it to.
func withFaults(root *Root) *faulty {
	v := root.Verifier.(*verifier)
	f := &faulty{registries: v.registry}
	v.registry = f
	return f
}

// A fault in one layout hides no signature in the other, and withdraws none that was fetched
// before. A fault in both leaves the evidence as it is.
func TestThreatFaultInOneLayout(t *testing.T) {
	t.Parallel()
	b, ci, qa := newRegistryBed(t), newSigner(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), keyRole("ci", 1, ci.pem), keyRole("qa", 1, qa.pem)))
	f := withFaults(root)
	down := trust.NewFault(v1alpha1.ReasonServerError, "the server failed")
	on := b.push()
	simple(cosignType, "", false, "ci")(b, on, ci, qa)
	statementBy("other", signPredicate, bundleType)(b, on, ci, qa)

	f.tag = down
	e, err := fetch(t, root, on.Name(), nil)
	if err != nil || rolesOf(e) != "qa" || len(e.Faults()) != 1 {
		t.Errorf("the tag fails: got %q, %v, want qa and a fault", rolesOf(e), err)
	}
	f.tag, f.referrers = nil, down
	e, err = fetch(t, root, on.Name(), nil)
	if err != nil || rolesOf(e) != "ci" || len(e.Faults()) != 1 {
		t.Errorf("the referrers fail: got %q, %v, want ci and a fault", rolesOf(e), err)
	}
	f.referrers = nil
	whole, err := fetch(t, root, on.Name(), e)
	if err != nil || rolesOf(whole) != "ci,qa" || len(whole.Faults()) != 0 {
		t.Fatalf("nothing fails: got %q, %v, want both and no fault", rolesOf(whole), err)
	}
	f.referrers = down
	e, err = fetch(t, root, on.Name(), whole)
	if err != nil || rolesOf(e) != "ci,qa" || len(e.Faults()) != 1 {
		t.Errorf("the referrers fail later: got %q, %v, want both and a fault", rolesOf(e), err)
	}
	f.tag = down
	if e, err := fetch(t, root, on.Name(), whole); err == nil {
		t.Errorf("both fail: got %v, want a fault", rolesOf(e))
	}
	if e, err := fetch(t, root, b.push().Name(), nil); err == nil {
		t.Errorf("both fail for an image without signatures: got %v, want a fault", rolesOf(e))
	}
	f.referrers = nil
	if e, err := fetch(t, root, b.push().Name(), nil); err == nil {
		t.Errorf("one fails for an image without signatures: got %v, want a fault", rolesOf(e))
	}
}

// A refresh that finds the same signatures costs two requests, and returns the evidence itself.
func TestRefreshOfTheSame(t *testing.T) {
	t.Parallel()
	b, ci, qa := newRegistryBed(t), newSigner(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), keyRole("ci", 1, ci.pem), keyRole("qa", 1, qa.pem)))
	f := withFaults(root)
	on := b.push()
	simple(cosignType, "", false, "ci")(b, on, ci, qa)
	statementBy("other", signPredicate, bundleType)(b, on, ci, qa)
	held, err := fetch(t, root, on.Name(), nil)
	if err != nil || rolesOf(held) != "ci,qa" {
		t.Fatalf("got %q and %v", rolesOf(held), err)
	}
	slices.Sort(f.requests)
	if got := strings.Join(f.requests, " "); got != "blob blob manifest referrers tag" {
		t.Errorf("first: got requests %q", got)
	}
	f.requests = nil
	again, err := fetch(t, root, on.Name(), held)
	if err != nil || again != held {
		t.Errorf("again: got %v and %v, want the same evidence", again, err)
	}
	slices.Sort(f.requests)
	if got := strings.Join(f.requests, " "); got != "referrers tag" {
		t.Errorf("again: got requests %q, want only these two", got)
	}
}

// A record that was forged or damaged proves nothing.
func TestThreatForgedSigstoreRecord(t *testing.T) {
	t.Parallel()
	b, ci, other := newRegistryBed(t), newSigner(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), keyRole("ci", 1, ci.pem)))
	on, second := b.push(), b.push()
	simple(cosignType, "", false, "ci")(b, on, ci, other)
	b.bundle(second, bundleType, message(t, ci, second.manifest))
	record := func(on image) []byte {
		about := root.Subject(parse(t, on.Name()))
		e, err := root.Fetch(t.Context(), about, nil)
		if err != nil {
			t.Fatal(err)
		}
		packed, err := root.Verifier.Pack(e)
		if err != nil {
			t.Fatal(err)
		}
		return packed
	}
	edit := func(packed []byte, change func(*collection)) []byte {
		c, err := unpack(packed)
		if err != nil {
			t.Fatal(err)
		}
		change(c)
		edited, err := (&bydigest.Packer{}).Pack(c)
		if err != nil {
			t.Fatal(err)
		}
		return edited
	}
	forged := payload(cosignType, "", second.DigestStr())
	for name, c := range map[string]struct {
		packed []byte
		about  image
		role   bool
	}{
		"as it was":                  {record(on), on, true},
		"as it was, over a manifest": {record(second), second, true},
		"of another image":           {record(on), second, false},
		"over another manifest":      {record(second), on, false},
		"truncated":                  {record(on)[:20], on, false},
		"by another key": {
			edit(record(on),
				func(c *collection) { c.Signatures[0].Signature = other.sign(t, c.Signatures[0].Payload) }), on, false,
		},
		"another payload": {
			edit(record(on), func(c *collection) { c.Signatures[0].Payload = forged }), second, false,
		},
		"what proves nothing, said so": {
			edit(record(on), func(c *collection) { c.Signatures[0].Why = "a made-up reason" }), on, false,
		},
	} {
		e, err := root.Verifier.Unpack(root.Subject(parse(t, c.about.Name())), c.packed, nil)
		if got := err == nil && rolesOf(e) == "ci"; got != c.role {
			t.Errorf("%s: got %q and %v, want the role: %t", name, rolesOf(e), err, c.role)
		}
		if err == nil && strings.Contains(whys(e, "ci"), "made-up") {
			t.Errorf("%s: a denial shows the text of a record", name)
		}
	}
}

// What is wrong with a TrustRoot names its field.
func TestUnusableSigstoreTrustRoot(t *testing.T) {
	t.Parallel()
	ci := newSigner(t)
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for want, edit := range map[string]func(*v1alpha1.TrustRoot){
		"spec.sigstore.roles[0].keys[0]: not PEM": func(tr *v1alpha1.TrustRoot) {
			tr.Spec.Sigstore.Roles[0].Keys[0] = "-----BEGIN "
		},
		"spec.sigstore.roles[0].keys[0]: more than one PEM block": func(tr *v1alpha1.TrustRoot) {
			tr.Spec.Sigstore.Roles[0].Keys[0] += v1alpha1.PEM(ci.pem)
		},
		"spec.sigstore.roles[0].keysFrom[0] (ConfigMap keys, entry qa.pub): not PEM": func(tr *v1alpha1.TrustRoot) {
			tr.Spec.Sigstore.Roles[0].KeysFrom = []v1alpha1.KeySource{{Kind: "ConfigMap", Name: "keys", Key: "qa.pub"}}
		},
		`spec.sigstore.signatureRepository: "registry/acme" is read as the repository "docker.io/registry/acme"`: func(tr *v1alpha1.TrustRoot) {
			tr.Spec.Sigstore.SignatureRepository = "registry/acme"
		},
		`spec.registries[0].host: "index.docker.io" names no registry of its own`: func(tr *v1alpha1.TrustRoot) {
			tr.Spec.Registries = []v1alpha1.Registry{{Host: "index.docker.io"}}
		},
		"spec.registries[0].caBundle: holds no PEM certificate": func(tr *v1alpha1.TrustRoot) {
			tr.Spec.Registries = []v1alpha1.Registry{{Host: "registry.example.com", CABundle: "x"}}
		},
	} {
		tr := trustRoot(nil, keyRole("ci", 1, ci.pem))
		edit(tr)
		_, err := Format{}.Build(tr, trust.Material{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := newKey(&short.PublicKey); err == nil || !strings.Contains(err.Error(), "RSA key of 1024 bits") {
		t.Errorf("a short key: got %v, want it refused", err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newKey(&p224.PublicKey); err == nil || !strings.Contains(err.Error(), "curve") {
		t.Errorf("an unknown curve: got %v, want it refused", err)
	}
}

// Megabytes beside a signature are not read, and do not hide it, whichever comes first.
func TestThreatSigstoreSignaturesOfMegabytes(t *testing.T) {
	t.Parallel()
	b, ci := newRegistryBed(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), keyRole("ci", 1, ci.pem)))
	large := func(c byte) []byte { return bytes.Repeat([]byte{c}, 9<<20) }
	for name, push := range map[string]func(image){
		"in the tag layout": func(on image) {
			content := payload(cosignType, "", on.DigestStr())
			b.tagged(on, layerOf(large('a'), "eA==", simpleSigning),
				layerOf(content, ci.sign(t, content), simpleSigning))
		},
		"in bundles": func(on image) {
			b.bundle(on, bundleType, large('b'))
			b.bundle(on, bundleType, envelope(t, ci, bundleType, statementOf(signPredicate, on.DigestStr())))
			b.bundle(on, bundleType, large('c'))
		},
		"in the manifest of a bundle": func(on image) {
			b.bundleOf(on, bundleType, []byte("{}"), map[string]string{"padding": string(large('d')[:3<<20])})
			b.bundle(on, bundleType, envelope(t, ci, bundleType, statementOf(signPredicate, on.DigestStr())))
		},
	} {
		on := b.push()
		push(on)
		e, err := fetch(t, root, on.Name(), nil)
		if err != nil || rolesOf(e) != "ci" || len(e.Faults()) != 0 {
			t.Errorf("%s: got %q, %v, want the role and no fault", name, rolesOf(e), err)
			continue
		}
		if got := e.(*evidence); len(got.packed) > 2*maxSignature {
			t.Errorf("%s: got %d bytes of signatures, want the large ones left out", name, len(got.packed))
		}
	}
}

// Signatures may be in a repository of their own, for all images.
func TestSignatureRepository(t *testing.T) {
	t.Parallel()
	b, ci := newRegistryBed(t), newSigner(t)
	tr := trustRoot(b.settings(), keyRole("ci", 1, ci.pem))
	beside := build(t, tr)
	tr.Spec.Sigstore.SignatureRepository = b.Host + "/acme/signatures"
	elsewhere := build(t, tr)
	on := b.push()
	content := payload(cosignType, "", on.DigestStr())
	moved := on
	moved.Digest = b.ref("acme/signatures").Digest(on.DigestStr())
	b.tagged(moved, layerOf(content, ci.sign(t, content), simpleSigning))
	if e, err := fetch(t, elsewhere, on.Name(), nil); err != nil || rolesOf(e) != "ci" {
		t.Errorf("in the repository of signatures: got %q and %v, want the role", rolesOf(e), err)
	}
	if e, err := fetch(t, beside, on.Name(), nil); err != nil || rolesOf(e) != "" {
		t.Errorf("beside the image: got %q and %v, want no role", rolesOf(e), err)
	}
}
