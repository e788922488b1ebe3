package sigstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/sigstore/pkg/signature"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/trustedroot"
)

const (
	loadTest = "https://example.com/load-test/v1"
	scan     = "https://example.com/scan/v1"
)

// attestedBy makes a role one that attestations prove.
func attestedBy(role v1alpha1.SigstoreRole, predicateType string, conditions ...string) v1alpha1.SigstoreRole {
	role.Attestation = &v1alpha1.SigstoreAttestation{PredicateType: predicateType, Conditions: conditions}
	return role
}

// testedBy makes a role one that a load test proves, which must have passed.
func testedBy(role v1alpha1.SigstoreRole) v1alpha1.SigstoreRole {
	return attestedBy(role, loadTest, "predicate.passed == true")
}

// tested returns a role that a load test proves, by a key.
func tested(by signer) v1alpha1.SigstoreRole { return testedBy(keyRole("tested", 1, by.pem)) }

// passed returns the statement of a load test about digests.
func passed(ok bool, predicateType string, digests ...string) []byte {
	var subjects []any
	for _, digest := range digests {
		subjects = append(subjects, map[string]any{
			"name":   "registry.example.com/acme/app",
			"digest": map[string]string{"sha256": strings.TrimPrefix(digest, "sha256:")},
		})
	}
	text, err := json.Marshal(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": predicateType, "subject": subjects,
		"predicate": map[string]any{"passed": ok},
	})
	if err != nil {
		panic(err)
	}
	return text
}

// dsse returns the envelope of a statement, as the tag layout has it.
func dsseOf(t testing.TB, by signer, content []byte) []byte {
	t.Helper()
	return fmt.Appendf(nil, `{"payload":%q,"payloadType":%q,"signatures":[{"keyid":"","sig":%q}]}`, b64(content),
		statementType, by.sign(t, pae(content)))
}

// unlike returns the n-th text that differs from a JSON text, and says the same.
func unlike(n int, text []byte) []byte { return append(bytes.Repeat([]byte(" "), n+1), text...) }

func pae(content []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(statementType), statementType, len(content), content)
}

func b64(data []byte) string {
	text, _ := json.Marshal(data) //nolint:errchkjson // of bytes
	return strings.Trim(string(text), `"`)
}

// attestationLayer returns a layer of the tag layout.
func attestationLayer(content []byte, predicateType string) mutate.Addendum {
	return mutate.Addendum{
		Layer: static.NewLayer(content, dsseEnvelope), MediaType: dsseEnvelope,
		Annotations: map[string]string{annotationSignature: "", annotationType: predicateType},
	}
}

// attestTag pushes attestations in the tag layout, in place of those before.
func (b *registryBed) attestTag(on image, layers ...mutate.Addendum) {
	b.t.Helper()
	all, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	if err != nil {
		b.t.Fatal(err)
	}
	tag := on.Context().Tag(strings.Replace(on.DigestStr(), ":", "-", 1) + ".att")
	if err := remote.Write(tag, all, b.Options(b.t.Context())...); err != nil {
		b.t.Fatal(err)
	}
}

// attestIn pushes one attestation in a layout.
func (b *registryBed) attestIn(l layout, on image, by signer, predicateType string, content []byte) {
	b.t.Helper()
	if l == layoutTag {
		b.attestTag(on, attestationLayer(dsseOf(b.t, by, content), predicateType))
		return
	}
	b.bundle(on, bundleType, envelope(b.t, by, bundleType, content))
}

// typed is a registry that lists the types of bundles, by their content, as the registries do that
// follow the specification.
type typed struct {
	registries
	first *string // the type that it lists first; nil: any
}

func (r typed) Referrers(ctx context.Context, repository, digest, artifactType string) ([]registry.Descriptor,
	error) {
	all, err := r.registries.Referrers(ctx, repository, digest, artifactType)
	for i := range all {
		m, err := r.Manifest(ctx, repository, all[i].Digest, registry.MaxManifest)
		if err != nil {
			return nil, err
		}
		var manifest struct {
			Layers []struct{ Digest string }
		}
		if err := json.Unmarshal(m.Body, &manifest); err != nil {
			return nil, err
		}
		data, err := r.Blob(ctx, repository, manifest.Layers[0].Digest, 16<<20)
		if err != nil {
			return nil, err
		}
		for _, t := range []string{signPredicate, loadTest, scan} {
			if attests(data, []string{t}) {
				all[i].Annotations = map[string]string{annotationPredicate: t}
			}
		}
	}
	if r.first != nil {
		slices.SortStableFunc(all, func(a, b registry.Descriptor) int {
			return cmp.Compare(strings.Count(*r.first, b.Annotations[annotationPredicate]),
				strings.Count(*r.first, a.Annotations[annotationPredicate]))
		})
	}
	return all, err
}

// withTypes makes the registry of a root list the types of bundles.
func withTypes(root *Root) *Root {
	v := root.Verifier.(*verifier)
	v.registry = typed{registries: v.registry}
	return root
}

// An attestation proves only the role that needs it, and never one that needs a signature; nor does
// a signature prove a role that needs an attestation. Only the keys of the role count.
func TestThreatAttestationIsNoSignature(t *testing.T) {
	t.Parallel()
	b, ci, qa, other := newRegistryBed(t), newSigner(t), newSigner(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), keyRole("ci", 1, ci.pem),
		tested(qa),
		attestedBy(keyRole("scanned", 1, qa.pem), scan)))
	for _, l := range both() {
		for name, c := range map[string]struct {
			push    func(on image)
			want    string
			because string // in the rejections of the role "tested"
		}{
			"by the role's key": {func(on image) {
				b.attestIn(l, on, qa, loadTest, passed(true, loadTest, on.DigestStr()))
			}, "tested", ""},
			"about several images": {func(on image) {
				b.attestIn(l, on, qa, loadTest, passed(true, loadTest, b.push().DigestStr(), on.DigestStr()))
			}, "tested", ""},
			"by the key of another role": {func(on image) {
				b.attestIn(l, on, ci, loadTest, passed(true, loadTest, on.DigestStr()))
			}, "", `and is a key of "ci" alone`},
			"by an unknown key": {func(on image) {
				b.attestIn(l, on, other, loadTest, passed(true, loadTest, on.DigestStr()))
			}, "", "is signed by a key that no role of this trust root lists"},
			"of another type": {func(on image) {
				b.attestIn(l, on, qa, scan, passed(true, scan, on.DigestStr()))
			}, "scanned", "is missing"},
			"of another type than listed": {func(on image) {
				b.attestIn(l, on, qa, loadTest, passed(true, "https://example.com/other", on.DigestStr()))
			}, "", "is missing"},
			"about another image": {func(on image) {
				b.attestIn(l, on, qa, loadTest, passed(true, loadTest, b.push().DigestStr()))
			}, "", "is about other images"},
			"that does not meet the condition": {func(on image) {
				b.attestIn(l, on, qa, loadTest, passed(false, loadTest, on.DigestStr()))
			}, "", "does not meet conditions[0] (predicate.passed == true)"},
			"signatures by all keys": {func(on image) {
				for _, s := range []signer{ci, qa} {
					content := payload(cosignType, "", on.DigestStr())
					if l == layoutTag {
						b.tagged(on, layerOf(content, ci.sign(t, content), simpleSigning),
							layerOf(content, qa.sign(t, content), simpleSigning))
						continue
					}
					b.bundle(on, bundleType, envelope(t, s, bundleType, statementOf(signPredicate, on.DigestStr())))
				}
			}, "ci", "which a signature is not"},
			"a signature in the place of an attestation": {func(on image) {
				b.attestIn(l, on, qa, loadTest, statementOf(signPredicate, on.DigestStr()))
			}, "", ""},
			"an attestation in the place of a signature": {func(on image) {
				content := passed(true, loadTest, on.DigestStr())
				b.tagged(on, layerOf(content, ci.sign(t, content), simpleSigning),
					layerOf(dsseOf(t, ci, content), ci.sign(t, content), simpleSigning))
				b.attestIn(layoutBundle, on, ci, loadTest, content)
			}, "", `and is a key of "ci" alone`},
		} {
			on := b.push()
			c.push(on)
			e, err := fetch(t, root, on.Name(), nil)
			if err != nil || rolesOf(e) != c.want {
				t.Errorf("%s, %s: got %q and %v, want %q", l, name, rolesOf(e), err, c.want)
				continue
			}
			if got := whys(e, "tested"); !strings.Contains(got, c.because) {
				t.Errorf("%s, %s: got rejections %q, want %q", l, name, got, c.because)
			}
		}
	}
}

// Only what a listed signer has signed is evaluated: nothing else in a registry reaches a condition
// or the text of a denial.
func TestThreatUnverifiedAttestationIsNotEvaluated(t *testing.T) {
	t.Parallel()
	b, qa, other := newRegistryBed(t), newSigner(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), tested(qa)))
	for _, l := range both() {
		on := b.push()
		good := passed(true, loadTest, on.DigestStr())
		forged := bytes.ReplaceAll(dsseOf(t, qa, passed(false, loadTest, on.DigestStr())),
			[]byte(b64(passed(false, loadTest, on.DigestStr()))), []byte(b64(good)))
		twice := bytes.Replace(dsseOf(t, qa, good), []byte(`"signatures":[`),
			[]byte(`"signatures":[{"sig":"eA=="},`), 1)
		if l == layoutTag {
			b.attestTag(on, attestationLayer(forged, loadTest), attestationLayer(dsseOf(t, other, good), loadTest),
				attestationLayer(twice, loadTest), attestationLayer([]byte("[]"), loadTest))
		} else {
			wrap := func(envelope []byte) []byte {
				return fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":"x"}},`+
					`"dsseEnvelope":%s}`, bundleType, envelope)
			}
			b.bundle(on, bundleType, wrap(forged))
			b.bundle(on, bundleType, wrap(dsseOf(t, other, good)))
			b.bundle(on, bundleType, wrap(twice))
		}
		e, err := fetch(t, root, on.Name(), nil)
		if err != nil || rolesOf(e) != "" || e.Signed() {
			t.Errorf("%s: got %q, %v, want no role and no signature", l, rolesOf(e), err)
			continue
		}
		if got := whys(e, "tested"); strings.Contains(got, "conditions") || !strings.Contains(got, "has 2 signatures") {
			t.Errorf("%s: got rejections %q, want none of a condition", l, got)
		}
	}
}

// stated makes a signature one over an attestation.
func (s *signed) stated(content []byte) *signed {
	s.b.t.Helper()
	s.layout, s.content, s.message = layoutBundle, content, pae(content)
	signer, err := signature.LoadECDSASigner(s.private, crypto.SHA256)
	if err != nil {
		s.b.t.Fatal(err)
	}
	if s.sig, err = signer.SignMessage(bytes.NewReader(s.message)); err != nil {
		s.b.t.Fatal(err)
	}
	return s
}

// attestation returns an attestation of an identity, or of a key where c is nil, with a log entry.
func (b *identityBed) attestation(on image, ok bool, at time.Duration, c *sigstoreinstance.Certificate) *signed {
	b.t.Helper()
	return b.sign(layoutBundle, on, c).stated(passed(ok, loadTest, on.DigestStr())).loggedAt(b.Time.Add(at))
}

// pushAttestations pushes attestations of any signer in a layout.
func (b *identityBed) pushAttestations(l layout, on image, all ...*signed) {
	b.t.Helper()
	if l == layoutBundle {
		b.pushSigned(on, all...)
		return
	}
	var layers []mutate.Addendum
	for _, s := range all {
		text := fmt.Appendf(nil, `{"payload":%q,"payloadType":%q,"signatures":[{"sig":%q}]}`, b64(s.content),
			statementType, b64(s.sig))
		layer := attestationLayer(text, loadTest)
		for name, value := range s.layer().Annotations {
			if name != annotationSignature {
				layer.Annotations[name] = value
			}
		}
		layers = append(layers, layer)
	}
	b.attestTag(on, layers...)
}

// attestedRoot compiles a TrustRoot with a role that attestations prove, by the identity of the
// tests.
func (b *identityBed) attestedRoot(maxAge time.Duration, clock func() time.Time) *Root {
	b.t.Helper()
	role := testedBy(identityRole("tested", 1, exactly(testIssuer, testSubject)))
	role.Attestation.MaxAge = metav1.Duration{Duration: maxAge}
	root, err := Format{Clock: clock}.Build(b.withTrusted("", role),
		trust.Material{trustedSource: string(b.TrustedRoot())})
	if err != nil {
		b.t.Fatal(err)
	}
	return root.(*Root)
}

// The newest attestation of a type decides, whatever the order in the registry.
func TestThreatNewestAttestationDecides(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	root := b.attestedRoot(0, nil)
	other := certificate(func(c *sigstoreinstance.Certificate) { c.Subject += "x" })
	either := testedBy(identityRole("tested", 1, exactly(testIssuer, testSubject),
		exactly(testIssuer, testSubject+"x")))
	ofTwo := buildWith(t, b.withTrusted("", either), b.TrustedRoot())
	for _, l := range both() {
		on := b.push()
		b.pushAttestations(l, on, b.attestation(on, true, time.Minute, certificate()),
			b.attestation(on, false, 2*time.Minute, other))
		if e, err := fetch(t, ofTwo, on.Name(), nil); err != nil || rolesOf(e) != "" {
			t.Errorf("%s, newer bad one by another identity of the role: got %q and %v, want no role", l, rolesOf(e),
				err)
		}
		for name, c := range map[string]struct {
			all  func(on image) []*signed
			want string
		}{
			"one": {func(on image) []*signed {
				return []*signed{b.attestation(on, true, time.Minute, certificate())}
			}, "tested"},
			"older good one": {func(on image) []*signed { return b.two(on, true, false) }, ""},
			"older bad one":  {func(on image) []*signed { return b.two(on, false, true) }, "tested"},
			"newer bad first": {func(on image) []*signed {
				all := b.two(on, true, false)
				slices.Reverse(all)
				return all
			}, ""},
			"newer bad one by another identity": {func(on image) []*signed {
				return []*signed{
					b.attestation(on, true, time.Minute, certificate()), b.attestation(on, false, 2*time.Minute, other),
				}
			}, "tested"},
			"of another identity": {func(on image) []*signed {
				return []*signed{b.attestation(on, true, time.Minute, other)}
			}, ""},
			"after its certificate expired": {func(on image) []*signed {
				return []*signed{b.attestation(on, true, time.Hour, certificate())}
			}, ""},
		} {
			on := b.push()
			b.pushAttestations(l, on, c.all(on)...)
			e, err := fetch(t, root, on.Name(), nil)
			if err != nil || rolesOf(e) != c.want {
				t.Errorf("%s, %s: got %q and %v, want %q: %s", l, name, rolesOf(e), err, c.want, whys(e, "tested"))
			}
		}
	}
}

// two returns an older and a newer attestation of one identity.
func (b *identityBed) two(on image, older, newer bool) []*signed {
	return []*signed{
		b.attestation(on, older, time.Minute, certificate()), b.attestation(on, newer, 2*time.Minute, certificate()),
	}
}

// Without a verified time, all attestations of the type must meet the conditions, in both layouts
// together.
func TestAttestationsWithoutTimes(t *testing.T) {
	t.Parallel()
	b, qa := newRegistryBed(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), tested(qa)))
	for _, bad := range both() {
		on := b.push()
		for _, l := range both() {
			b.attestIn(l, on, qa, loadTest, passed(l != bad, loadTest, on.DigestStr()))
		}
		if e, err := fetch(t, root, on.Name(), nil); err != nil || rolesOf(e) != "" ||
			!strings.Contains(whys(e, "tested"), "does not meet conditions[0]") {
			t.Errorf("a bad one in the layout %s: got %q and %v, want no role", bad, rolesOf(e), err)
		}
	}
}

// A role ends when its attestation is older than maxAge, without any event. The denial says so.
func TestThreatAttestationThatAges(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	var now time.Time
	root := b.attestedRoot(24*time.Hour, func() time.Time { return now })
	for _, l := range both() {
		on := b.push()
		b.pushAttestations(l, on, b.two(on, true, true)...)
		now = b.Time.Add(time.Hour)
		e, err := fetch(t, root, on.Name(), nil)
		if err != nil || rolesOf(e) != "tested" {
			t.Fatalf("%s: got %q and %v, want the role: %s", l, rolesOf(e), err, whys(e, "tested"))
		}
		if got, want := e.Statements("", "")[0].NotAfter, b.Time.Add(2*time.Minute+24*time.Hour); !got.Equal(want) {
			t.Errorf("%s: got a statement until %s, want %s", l, got, want)
		}
		now = b.Time.Add(25 * time.Hour)
		if got := whys(e, "tested"); !strings.Contains(got, "is older than maxAge allows: it is of") {
			t.Errorf("%s: got rejections %q, want the age", l, got)
		}
		// Evidence that is fetched only then ends at the same time.
		again, err := fetch(t, root, on.Name(), nil)
		if err != nil || !again.Statements("", "")[0].NotAfter.Equal(e.Statements("", "")[0].NotAfter) {
			t.Errorf("%s: got %v and %v, want a statement with the same end", l, again, err)
		}
	}
	// A key's attestation without a time has no age.
	keyed, qa := b.push(), newSigner(t)
	role := attestedBy(keyRole("tested", 1, qa.pem), loadTest)
	role.Attestation.MaxAge = metav1.Duration{Duration: time.Hour}
	b.attestIn(layoutBundle, keyed, qa, loadTest, passed(true, loadTest, keyed.DigestStr()))
	e, err := fetch(t, buildWith(t, b.withTrusted("", role), b.TrustedRoot()), keyed.Name(), nil)
	if err != nil || rolesOf(e) != "" || !strings.Contains(whys(e, "tested"), "which maxAge needs") {
		t.Errorf("without a time: got %q and %v, want no role: %s", rolesOf(e), err, whys(e, "tested"))
	}
}

// Junk attestations hide no signature, and junk signatures hide no attestation.
func TestThreatJunkBesideAttestations(t *testing.T) {
	t.Parallel()
	b, ci, qa, other := newRegistryBed(t), newSigner(t), newSigner(t), newSigner(t)
	tr := trustRoot(b.settings(), keyRole("ci", 1, ci.pem),
		tested(qa))
	root, first := build(t, tr), ""
	v := root.Verifier.(*verifier)
	v.registry = typed{v.registry, &first}
	push := func(junk func(on image, n int), n int) image {
		on := b.push()
		b.bundle(on, bundleType, envelope(t, ci, bundleType, statementOf(signPredicate, on.DigestStr())))
		b.attestIn(layoutBundle, on, qa, loadTest, passed(true, loadTest, on.DigestStr()))
		junk(on, n)
		return on
	}
	attestations := func(on image, n int) {
		for i := range n {
			b.attestIn(layoutBundle, on, other, loadTest, unlike(i, passed(true, loadTest, on.DigestStr())))
		}
	}
	signatures := func(on image, n int) {
		for i := range n {
			b.bundle(on, bundleType, envelope(t, other, bundleType,
				unlike(i, statementOf(signPredicate, on.DigestStr()))))
		}
	}
	for name, c := range map[string]struct {
		on     image
		want   string
		faults int
	}{
		"few attestations":  {push(attestations, 3), "ci,tested", 0},
		"many attestations": {push(attestations, maxAttested), "ci", 1},
		"few signatures":    {push(signatures, 3), "ci,tested", 0},
	} {
		first = loadTest
		e, err := fetch(t, root, c.on.Name(), nil)
		if err != nil || rolesOf(e) != c.want || len(e.Faults()) != c.faults {
			t.Errorf("%s: got %q, %v, want %q and %d faults", name, rolesOf(e), err, c.want, c.faults)
		}
	}
	many := push(signatures, maxSignatures)
	first = signPredicate
	if e, err := fetch(t, root, many.Name(), nil); err != nil || !strings.Contains(rolesOf(e), "tested") ||
		len(e.Faults()) != 1 {
		t.Errorf("many signatures: got %q, %v, want the attestation and a fault", rolesOf(e), err)
	}
}

// A new attestation that does not meet a condition cannot be hidden behind junk: not from evidence
// that was verified before it was pushed either.
func TestThreatBadAttestationBehindJunk(t *testing.T) {
	t.Parallel()
	b, qa, other := newRegistryBed(t), newSigner(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), tested(qa)))
	large := func(n int) []byte {
		random := make([]byte, n*3/4)
		for i := range random {
			random[i] = byte(rand.Uint32())
		}
		return random
	}
	for name, push := range map[string]func(on image, good, bad mutate.Addendum){
		"many": func(on image, good, bad mutate.Addendum) {
			layers := []mutate.Addendum{good}
			for i := range maxAttested {
				layers = append(layers, attestationLayer(dsseOf(t, other,
					unlike(i, passed(true, loadTest, on.DigestStr()))), loadTest))
			}
			b.attestTag(on, append(layers, bad)...)
		},
		"megabytes": func(on image, good, bad mutate.Addendum) {
			b.attestTag(on, good, attestationLayer(large(4<<20), loadTest),
				attestationLayer(large(4<<20), loadTest), bad)
		},
		"one of megabytes": func(on image, good, bad mutate.Addendum) {
			b.attestTag(on, good, attestationLayer(large(12<<20), loadTest), bad)
		},
	} {
		on := b.push()
		good := attestationLayer(dsseOf(t, qa, passed(true, loadTest, on.DigestStr())), loadTest)
		padded := append(passed(false, loadTest, on.DigestStr()), bytes.Repeat([]byte(" "), 5<<20)...)
		b.attestTag(on, good)
		before, err := fetch(t, root, on.Name(), nil)
		if err != nil || rolesOf(before) != "tested" {
			t.Fatalf("%s: got %q and %v, want the role", name, rolesOf(before), err)
		}
		push(on, good, attestationLayer(dsseOf(t, qa, padded), loadTest))
		for when, held := range map[string]trust.Evidence{"at first": nil, "later": before} {
			e, err := fetch(t, root, on.Name(), held)
			if err != nil || rolesOf(e) != "" || len(e.Faults()) != 1 ||
				e.Faults()[0].Reason != v1alpha1.ReasonTooLarge {
				t.Errorf("%s, %s: got %q, %v, want no role and a fault", name, when, rolesOf(e), err)
			}
		}
	}
}

// An attestation of megabytes, as a list of packages is, counts. It has no part in the bound of
// signatures.
func TestLargeAttestation(t *testing.T) {
	t.Parallel()
	b, qa := newRegistryBed(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), attestedBy(keyRole("tested", 1, qa.pem), loadTest,
		"size(predicate.packages) == 20000")))
	for _, typedList := range []bool{false, true} {
		if typedList {
			root = withTypes(root)
		}
		for _, l := range both() {
			on := b.push()
			packages := make([]map[string]string, 20000)
			for i := range packages {
				packages[i] = map[string]string{
					"name": fmt.Sprintf("package-%d", i), "versionInfo": fmt.Sprint(i), "license": "MIT",
				}
			}
			list, err := json.Marshal(packages)
			if err != nil {
				t.Fatal(err)
			}
			content := bytes.Replace(passed(true, loadTest, on.DigestStr()), []byte(`"passed":true`),
				append([]byte(`"packages":`), list...), 1)
			b.attestIn(l, on, qa, loadTest, content)
			e, err := fetch(t, root, on.Name(), nil)
			if err != nil || rolesOf(e) != "tested" || len(e.Faults()) != 0 {
				t.Errorf("%s, typed %t: got %q, %v: %s", l, typedList, rolesOf(e), err, whys(e, "tested"))
				continue
			}
			if size := e.(trust.Sized).Size(); size < 10<<10 || size > 1<<20 {
				t.Errorf("%s: got evidence of %d bytes for %d bytes, want it compressed", l, size, len(content))
			}
		}
	}
}

// If a layout cannot be read at first, no attestation counts: the newest may be in it. Once all was
// read, an outage withdraws nothing.
func TestThreatAttestationsInPart(t *testing.T) {
	t.Parallel()
	b, ci, qa := newRegistryBed(t), newSigner(t), newSigner(t)
	down := trust.NewFault(v1alpha1.ReasonServerError, "the server failed")
	for _, l := range both() {
		root := build(t, trustRoot(b.settings(), keyRole("ci", 1, ci.pem),
			tested(qa)))
		f := withFaults(root)
		on := b.push()
		content := payload(cosignType, "", on.DigestStr())
		b.tagged(on, layerOf(content, ci.sign(t, content), simpleSigning))
		b.attestIn(l, on, qa, loadTest, passed(true, loadTest, on.DigestStr()))
		fail := func(err error) {
			if f.attestations, f.referrers = err, nil; l == layoutTag {
				f.attestations, f.referrers = nil, err
			}
		}
		fail(down)
		e, err := fetch(t, root, on.Name(), nil)
		if err != nil || rolesOf(e) != "ci" || len(e.Faults()) != 1 {
			t.Errorf("%s, the other layout fails: got %q, %v, want the signature alone, and a fault", l, rolesOf(e),
				err)
		}
		fail(nil)
		whole, err := fetch(t, root, on.Name(), e)
		if err != nil || rolesOf(whole) != "ci,tested" || len(whole.Faults()) != 0 {
			t.Fatalf("%s: got %q, %v, want both", l, rolesOf(whole), err)
		}
		for what, set := range map[string]func(){
			"the other layout fails": func() { fail(down) },
			"its layout fails":       func() { fail(down); f.attestations, f.referrers = f.referrers, f.attestations },
		} {
			set()
			e, err := fetch(t, root, on.Name(), whole)
			if err != nil || rolesOf(e) != "ci,tested" || len(e.Faults()) != 1 {
				t.Errorf("%s, later %s: got %q, %v, want both, and a fault", l, what, rolesOf(e), err)
			}
		}
	}
}

// Attestations cost no request where no role needs them, and no round trip beside signatures: the
// first requests are sent at once. A refresh of the same costs three requests.
func TestRequestsForAttestations(t *testing.T) {
	t.Parallel()
	b, ci, qa := newRegistryBed(t), newSigner(t), newSigner(t)
	on := b.push()
	content := payload(cosignType, "", on.DigestStr())
	b.tagged(on, layerOf(content, ci.sign(t, content), simpleSigning))
	for _, l := range both() {
		b.attestIn(l, on, qa, loadTest, passed(true, loadTest, on.DigestStr()))
	}
	requests := func(root *Root, held trust.Evidence, types bool) (string, trust.Evidence) {
		t.Helper()
		f := withFaults(root)
		if types {
			root.Verifier.(*verifier).registry = typed{registries: f}
		}
		e, err := fetch(t, root, on.Name(), held)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(f.requests)
		return strings.Join(f.requests, " "), e
	}
	signatures := build(t, trustRoot(b.settings(), keyRole("ci", 1, ci.pem)))
	if got, _ := requests(signatures, nil, false); got != "blob blob manifest referrers tag" {
		t.Errorf("no role needs attestations: got requests %q", got)
	}
	root := build(t, trustRoot(b.settings(), attestedBy(keyRole("tested", 1, qa.pem), loadTest)))
	got, held := requests(root, nil, false)
	if got != "att blob blob blob manifest referrers tag" || rolesOf(held) != "tested" {
		t.Errorf("a role needs attestations: got requests %q and %q", got, rolesOf(held))
	}
	got, again := requests(root, held, false)
	if got != "att referrers tag" || again != held {
		t.Errorf("again: got requests %q, and the same evidence: %t", got, again == held)
	}
}

// meeting is a registry whose answers wait for each other.
type meeting struct {
	registries
	all sync.WaitGroup
}

func (m *meeting) meet(ctx context.Context) error {
	m.all.Done()
	met := make(chan struct{})
	go func() { m.all.Wait(); close(met) }()
	select {
	case <-met:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *meeting) Tagged(ctx context.Context, repository, tag string) (registry.Manifest, error) {
	if err := m.meet(ctx); err != nil {
		return registry.Manifest{}, err
	}
	return m.registries.Tagged(ctx, repository, tag)
}

func (m *meeting) Referrers(ctx context.Context, repository, digest, artifactType string) ([]registry.Descriptor,
	error) {
	if err := m.meet(ctx); err != nil {
		return nil, err
	}
	return m.registries.Referrers(ctx, repository, digest, artifactType)
}

// Attestations are looked for beside signatures, and not after them.
func TestAttestationsAreFetchedBesideSignatures(t *testing.T) {
	t.Parallel()
	b, qa := newRegistryBed(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), attestedBy(keyRole("tested", 1, qa.pem), loadTest)))
	on := b.push()
	b.attestIn(layoutTag, on, qa, loadTest, passed(true, loadTest, on.DigestStr()))
	v := root.Verifier.(*verifier)
	m := &meeting{registries: v.registry}
	m.all.Add(3)
	v.registry = m
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := root.Fetch(ctx, root.Subject(parse(t, on.Name())), nil)
	if err != nil || rolesOf(e) != "tested" {
		t.Errorf("got %q and %v, want the role", rolesOf(e), err)
	}
}

// What is recorded decides the same after a restart. What does not decide is not recorded.
func TestAttestationsAreRecorded(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	root := b.attestedRoot(24*time.Hour, nil)
	for _, l := range both() {
		for name, newer := range map[string]bool{"a good one": true, "a bad one": false} {
			on := b.push()
			other := b.attestation(on, false, 3*time.Minute, certificate(func(c *sigstoreinstance.Certificate) {
				c.Subject = "x"
			}))
			b.pushAttestations(l, on, append(b.two(on, true, newer), other)...)
			e, err := fetch(t, root, on.Name(), nil)
			if err != nil {
				t.Fatal(err)
			}
			packed, err := root.Verifier.Pack(e)
			if err != nil || packed == nil {
				t.Fatalf("%s, %s: got a record of %d bytes and %v", l, name, len(packed), err)
			}
			c, err := unpack(packed)
			if err != nil || len(c.Attestations.All) != 1 {
				t.Fatalf("%s, %s: got %v and %v, want only the attestation that decides", l, name, c, err)
			}
			restarted := b.attestedRoot(24*time.Hour, nil)
			f := withFaults(restarted)
			f.any = trust.NewFault(v1alpha1.ReasonServerError, "the server failed")
			about := restarted.Subject(parse(t, on.Name()))
			again, err := restarted.Verifier.Unpack(about, packed, nil)
			if err != nil || !slices.EqualFunc(again.Statements("", ""), e.Statements("", ""), sameStatement) ||
				len(again.Faults()) != 0 {
				t.Errorf("%s, %s: got %v, %v, want %v", l, name, again, err, e.Statements("", ""))
			}
			if len(f.requests) != 0 {
				t.Errorf("%s, %s: got requests %q, want none", l, name, f.requests)
			}
		}
	}
}

func sameStatement(a, b trust.Statement) bool {
	return a.Role == b.Role && a.Digest == b.Digest && a.NotAfter.Equal(b.NotAfter) && slices.Equal(a.Keys, b.Keys)
}

// A record that was forged or damaged proves nothing.
func TestThreatForgedRecordOfAttestations(t *testing.T) {
	t.Parallel()
	b, qa, other := newRegistryBed(t), newSigner(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), tested(qa)))
	v := root.Verifier.(*verifier)
	on, second := b.push(), b.push()
	b.attestIn(layoutTag, on, qa, loadTest, passed(true, loadTest, on.DigestStr()))
	e, err := fetch(t, root, on.Name(), nil)
	if err != nil {
		t.Fatal(err)
	}
	record, err := v.Pack(e)
	if err != nil {
		t.Fatal(err)
	}
	content := func(data []byte) func(c *collection) {
		return func(c *collection) {
			one := &c.Attestations.All[0]
			one.Size = int64(len(data))
			if one.Content, err = v.packer.Compress(data); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		edit  func(c *collection)
		about image
		want  string
	}{
		"as it was":            {func(*collection) {}, on, "tested"},
		"of another image":     {func(*collection) {}, second, ""},
		"by another key":       {content(dsseOf(t, other, passed(true, loadTest, on.DigestStr()))), on, ""},
		"larger than said":     {func(c *collection) { c.Attestations.All[0].Size-- }, on, ""},
		"larger than any":      {func(c *collection) { c.Attestations.All[0].Size = maxAttestedBytes + 1 }, on, ""},
		"of a negative size":   {func(c *collection) { c.Attestations.All[0].Size = -1 }, on, ""},
		"not compressed":       {func(c *collection) { c.Attestations.All[0].Content = []byte("x") }, on, ""},
		"without attestations": {func(c *collection) { c.Attestations = nil }, on, ""},
		"a part":               {func(c *collection) { c.Attestations.Unread = []layout{layoutTag} }, on, ""},
		"of another type":      {func(c *collection) { c.Attestations.Types = []string{scan} }, on, ""},
		"with a text":          {func(c *collection) { c.Attestations.All[0].Why = "a made-up reason" }, on, ""},
	} {
		col, err := unpack(record)
		if err != nil {
			t.Fatal(err)
		}
		c.edit(col)
		edited, err := v.packer.Pack(col)
		if err != nil {
			t.Fatal(err)
		}
		e, err := v.Unpack(root.Subject(parse(t, c.about.Name())), edited, nil)
		if err == nil {
			if got := rolesOf(e); got != c.want {
				t.Errorf("%s: got %q, want %q", name, got, c.want)
			}
			if strings.Contains(whys(e, "tested"), "made-up") {
				t.Errorf("%s: a denial shows the text of a record", name)
			}
		} else if c.want != "" {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// After an edit of the TrustRoot, held attestations are judged by the new conditions, without a
// request. Attestations of a type that was not fetched yet prove nothing before they are.
func TestThreatEditReachesHeldAttestations(t *testing.T) {
	t.Parallel()
	b, qa := newRegistryBed(t), newSigner(t)
	with := func(revoked string, roles ...v1alpha1.SigstoreRole) *Root {
		tr := trustRoot(b.settings(), roles...)
		if revoked != "" {
			tr.Spec.RevokedKeys = []v1alpha1.KeyID{v1alpha1.KeyID(revoked)}
		}
		return build(t, tr)
	}
	role := keyRole("tested", 1, qa.pem)
	first := with("", attestedBy(role, loadTest, "predicate.passed == true"))
	for _, l := range both() {
		on := b.push()
		b.attestIn(l, on, qa, loadTest, passed(true, loadTest, on.DigestStr()))
		if l == layoutTag {
			b.attestTag(on, attestationLayer(dsseOf(t, qa, passed(true, loadTest, on.DigestStr())), loadTest),
				attestationLayer(dsseOf(t, qa, passed(true, scan, on.DigestStr())), scan))
		} else {
			b.attestIn(l, on, qa, scan, passed(true, scan, on.DigestStr()))
		}
		held, err := fetch(t, first, on.Name(), nil)
		if err != nil || rolesOf(held) != "tested" {
			t.Fatalf("%s: got %q and %v, want the role", l, rolesOf(held), err)
		}
		about := first.Subject(parse(t, on.Name()))
		for name, c := range map[string]struct {
			root        *Root
			want, after string
		}{
			"another condition": {with("", attestedBy(role, loadTest, "predicate.passed == false")), "", ""},
			"a revoked key":     {with(qa.id, attestedBy(role, loadTest)), "", ""},
			"no condition":      {with("", attestedBy(role, loadTest)), "tested", "tested"},
			"another type":      {with("", attestedBy(role, scan)), "", "tested"},
			"a signature":       {with("", role), "", ""},
		} {
			e, err := c.root.Recheck(about, held)
			if err != nil || rolesOf(e) != c.want {
				t.Errorf("%s, %s: got %q and %v, want %q", l, name, rolesOf(e), err, c.want)
				continue
			}
			if e, err = fetch(t, c.root, on.Name(), e); err != nil || rolesOf(e) != c.after {
				t.Errorf("%s, %s, fetched again: got %q and %v, want %q", l, name, rolesOf(e), err, c.after)
			}
		}
	}
}

// Under signedRepository: Match only attestations that name the repository count.
func TestThreatAttestationOfAnotherRepository(t *testing.T) {
	t.Parallel()
	b, qa := newRegistryBed(t), newSigner(t)
	tr := trustRoot(b.settings(), attestedBy(keyRole("tested", 1, qa.pem), loadTest))
	tr.Spec.Sigstore.SignedRepository = v1alpha1.SignedRepositoryMatch
	on := b.push()
	b.attestIn(layoutBundle, on, qa, loadTest, passed(true, loadTest, on.DigestStr()))
	if e, err := fetch(t, build(t, tr), on.Name(), nil); err != nil || rolesOf(e) != "" ||
		!strings.Contains(whys(e, "tested"),
			"names the repository registry.example.com/acme/app, and signedRepository is Match") {
		t.Errorf("of another repository: got %q and %v, want no role: %s", rolesOf(e), err, whys(e, "tested"))
	}
	tr.Spec.IdentityRemap = []v1alpha1.IdentityRemap{{Prefix: b.Host + "/", SignedPrefix: "registry.example.com/"}}
	if e, err := fetch(t, build(t, tr), on.Name(), nil); err != nil || rolesOf(e) != "tested" {
		t.Errorf("of the repository: got %q and %v, want the role", rolesOf(e), err)
	}
}

// A threshold counts the signers of attestations that meet the conditions, each once.
func TestThresholdOfAttestations(t *testing.T) {
	t.Parallel()
	b, one, two := newRegistryBed(t), newSigner(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), attestedBy(keyRole("tested", 2, one.pem, two.pem), loadTest)))
	on := b.push()
	for _, l := range both() {
		b.attestIn(l, on, one, loadTest, passed(true, loadTest, on.DigestStr()))
	}
	if e, err := fetch(t, root, on.Name(), nil); err != nil || rolesOf(e) != "" ||
		!strings.Contains(whys(e, "tested"), `is signed by 1 of the 2 signers that role "tested" needs`) {
		t.Errorf("one signer twice: got %q and %v, want no role: %s", rolesOf(e), err, whys(e, "tested"))
	}
	b.attestIn(layoutBundle, on, two, loadTest, passed(false, loadTest, on.DigestStr()))
	if e, err := fetch(t, root, on.Name(), nil); err != nil || rolesOf(e) != "tested" {
		t.Errorf("two signers: got %q and %v, want the role", rolesOf(e), err)
	}
}

// Verifying an attestation takes no more memory than is acquired for it.
func TestThreatMemoryOfAnAttestation(t *testing.T) {
	b, qa := newRegistryBed(t), newSigner(t)
	v := build(t, trustRoot(b.settings(), attestedBy(keyRole("tested", 1, qa.pem), loadTest))).Verifier.(*verifier)
	on := b.push()
	for _, l := range both() {
		for _, size := range []int{1 << 10, 1 << 20, 5 << 20} {
			content := append(passed(true, loadTest, on.DigestStr()), bytes.Repeat([]byte(" "), size)...)
			data := dsseOf(t, qa, content)
			if l == layoutBundle {
				data = envelope(t, qa, bundleType, content)
			}
			compressed, err := v.packer.Compress(data)
			if err != nil {
				t.Fatal(err)
			}
			a := &attested{Layout: l, Content: compressed, Size: int64(len(data))}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			j, verified, err := v.judgeAttested(t.Context(), a)
			runtime.ReadMemStats(&after)
			if err != nil || verified == nil {
				t.Fatalf("%s, %d bytes: got %v and %v", l, size, j, err)
			}
			if got, bound := after.TotalAlloc-before.TotalAlloc, uint64(a.cost()); got > bound {
				t.Errorf("%s, %d bytes: got %d bytes allocated, want at most %d", l, size, got, bound)
			}
		}
	}
}

// What is wrong with an attestation of a role names its field.
func TestUnusableAttestation(t *testing.T) {
	t.Parallel()
	qa := newSigner(t)
	type attestation = v1alpha1.SigstoreAttestation
	for want, edit := range map[string]func(*attestation){
		"conditions[1]: is not a valid CEL expression": func(a *attestation) {
			a.Conditions = []string{"true", "predicate."}
		},
		"predicateType: is the type of signatures": func(a *attestation) {
			a.PredicateType = signPredicate
		},
		"maxAge: the age is that of a log or a timestamp authority": func(a *attestation) {
			a.MaxAge = metav1.Duration{Duration: time.Hour}
		},
	} {
		role := attestedBy(keyRole("tested", 1, qa.pem), loadTest)
		edit(role.Attestation)
		_, err := Format{}.Build(trustRoot(nil, role), trust.Material{})
		if f := trust.AsFault(err, ""); err == nil || f.Reason != v1alpha1.ReasonInvalidSpec ||
			!strings.Contains(err.Error(), "spec.sigstore.roles[0].attestation."+want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// An attestation whose log entry comes later counts once it has come, though its envelope is the
// same.
func TestAttestationThatIsLoggedLater(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	root := b.attestedRoot(0, nil)
	on := b.push()
	s := b.sign(layoutBundle, on, certificate()).stated(passed(true, loadTest, on.DigestStr()))
	b.pushAttestations(layoutTag, on, s)
	held, err := fetch(t, root, on.Name(), nil)
	if err != nil || rolesOf(held) != "" || !strings.Contains(whys(held, "tested"), "it is not in a transparency log") {
		t.Fatalf("got %q and %v, want no role: %s", rolesOf(held), err, whys(held, "tested"))
	}
	b.pushAttestations(layoutTag, on, s.logged())
	if e, err := fetch(t, root, on.Name(), held); err != nil || rolesOf(e) != "tested" {
		t.Errorf("logged: got %q and %v, want the role: %s", rolesOf(e), err, whys(e, "tested"))
	}
}

// While it cannot be told who has signed one of the attestations, none proves a role: that one may
// be the newest.
func TestThreatAttestationWithoutATrustedRoot(t *testing.T) {
	t.Parallel()
	b, qa := newIdentityBed(t), newSigner(t)
	role := testedBy(identityRole("tested", 1, exactly(testIssuer, testSubject)))
	role.Keys = []v1alpha1.PEM{v1alpha1.PEM(qa.pem)}
	root := buildWith(t, b.withTrusted("", role), b.TrustedRoot())
	on := b.push()
	b.attestIn(layoutTag, on, qa, loadTest, passed(true, loadTest, on.DigestStr()))
	b.pushAttestations(layoutBundle, on, b.attestation(on, false, time.Minute, certificate()))
	v := root.Verifier.(*verifier)
	whole := v.trusted
	v.trusted = func() (*trustedroot.Root, error) {
		return nil, trust.NewFault(v1alpha1.ReasonUnreachable, "the trusted root is not there yet")
	}
	e, err := fetch(t, root, on.Name(), nil)
	if err != nil || rolesOf(e) != "" || len(e.Faults()) != 1 {
		t.Fatalf("got %q, %v, want no role and a fault", rolesOf(e), err)
	}
	v.trusted = whole
	if e, err = fetch(t, root, on.Name(), e); err != nil || rolesOf(e) != "" || len(e.Faults()) != 0 ||
		!strings.Contains(whys(e, "tested"), "does not meet") {
		t.Errorf("with the trusted root: got %q, %v, want no role and no fault: %s", rolesOf(e), err, whys(e, "tested"))
	}
}
