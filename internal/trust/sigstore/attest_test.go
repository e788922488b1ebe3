package sigstore

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/trustedroot"
)

const (
	loadTest = "https://example.com/load-test/v1"
	scan     = "https://example.com/scan/v1"
)

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
