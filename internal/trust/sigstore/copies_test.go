package sigstore

import (
	"bytes"
	"crypto"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
	"github.com/countersign-dev/countersign/internal/testenv/tufmirror"
	"github.com/countersign-dev/countersign/internal/trust"
)

// little is more than is kept beside what counts, in bytes.
const little = 128 << 10

// copies pushes a signature by one key, and copies of it with noise in what nobody has signed.
func (b *registryBed) copies(l layout, on image, by signer, n int) {
	b.t.Helper()
	content := payload(cosignType, "", on.DigestStr())
	sig := by.sign(b.t, content)
	layers := []mutate.Addendum{}
	bundle := envelope(b.t, by, bundleType, statementOf(signPredicate, on.DigestStr()))
	for range n {
		if l == layoutBundle {
			b.bundle(on, bundleType, bytes.Replace(bundle, []byte(`"hint":"x"`), fmt.Appendf(nil, `"hint":%q`,
				noise(40<<10)), 1))
			continue
		}
		layer := layerOf(content, sig, simpleSigning)
		layer.Annotations[annotationTimestamp] = noise(40 << 10)
		layers = append(layers, layer)
	}
	if l == layoutTag {
		b.tagged(on, layers...)
		return
	}
	b.bundle(on, bundleType, bundle) // the smallest is not the first
}

// Copies of a signature that counts take up little memory, and little of a record. After an edit
// that lists another key, all count that did, from memory and from the record.
func TestThreatCopiesOfASignatureTakeUpLittle(t *testing.T) {
	t.Parallel()
	for _, l := range both() {
		t.Run(string(l), func(t *testing.T) {
			t.Parallel()
			b, ci, qa := newRegistryBed(t), newSigner(t), newSigner(t)
			tr := trustRoot(b.settings(), keyRole("ci", 1, ci.pem))
			root := build(t, tr)
			on := b.push()
			b.copies(l, on, ci, 30)
			b.signIn(l.other(), on, qa)
			about := root.Subject(parse(t, on.Name()))
			held, err := root.Fetch(t.Context(), about, nil)
			if err != nil || rolesOf(held) != "ci" || len(held.Faults()) > 0 {
				t.Fatalf("got %q and %v, want the role without a fault", rolesOf(held), err)
			}
			packed, err := root.Verifier.Pack(held)
			if err != nil {
				t.Fatal(err)
			}
			if size := held.(trust.Sized).Size(); size > little || len(packed) > little {
				t.Errorf("got evidence of %d bytes and a record of %d, want at most %d", size, len(packed), little)
			}
			const stranger = "a key that no role of this trust root lists"
			if got := held.Rejected([]string{"ci", "release"}, "", ""); len(got) != 1 || got[0].By != stranger {
				t.Errorf("got the rejections %v, want none of copies", got)
			}
			if again, err := root.Fetch(t.Context(), about, held); err != nil || again != held {
				t.Errorf("again: got another evidence and %v, want the same", err)
			}

			tr.Spec.Sigstore.Roles = append(tr.Spec.Sigstore.Roles, keyRole("qa", 1, qa.pem))
			edited := build(t, tr)
			checked, err := edited.Recheck(about, held)
			if err != nil || rolesOf(checked) != "ci,qa" {
				t.Errorf("after an edit that lists another key: got %q and %v, want both roles", rolesOf(checked), err)
			}
			restored, err := edited.Verifier.Unpack(about, packed, nil)
			if err != nil || rolesOf(restored) != "ci" {
				t.Errorf("from the record: got %q and %v, want the role", rolesOf(restored), err)
			}
			for when, of := range map[string]trust.Evidence{"held": checked, "restored": restored} {
				if e, err := edited.Fetch(t.Context(), about, of); err != nil || rolesOf(e) != "ci,qa" {
					t.Errorf("fetched after the edit, with what was %s: got %q and %v, want both roles", when,
						rolesOf(e), err)
				}
			}
		})
	}
}

// Of copies with different log entries and timestamps, those that count differently are all kept:
// an edit may demand what only one has.
func TestThreatCopyWithoutALogEntryDisplacesNone(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	for _, l := range both() {
		private, ci := newPrivate(t)
		on := b.push()
		all := []*signed{b.signWith(l, on, nil, private)}
		for range 30 {
			one := *all[0]
			one.stamps = [][]byte{[]byte(noise(maxTimestamp / 2))} // unreadable, so it says nothing
			all = append(all, &one)
		}
		logged := *all[1]
		all = append(all, logged.logged())
		b.pushSigned(on, all...)
		root := buildWith(t, b.withTrusted("", keyRole("ci", 1, ci.pem)), b.TrustedRoot())
		held, err := fetch(t, root, on.Name(), nil)
		if err != nil || rolesOf(held) != "ci" {
			t.Errorf("%s: got %q and %v, want the role", l, rolesOf(held), err)
			continue
		}
		require := buildWith(t, b.withTrusted(v1alpha1.TransparencyLogRequire, keyRole("ci", 1, ci.pem)),
			b.TrustedRoot())
		if e, err := fetch(t, require, on.Name(), held); err != nil || rolesOf(e) != "ci" {
			t.Errorf("%s: after an edit that requires a log entry, got %q and %v, want the role", l, rolesOf(e), err)
		}
	}
}

// Copies of an attestation take up little, too. The earliest time of any copy counts: else a later
// timestamp would make an old attestation the newest.
func TestThreatCopiesOfAnAttestation(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	root := b.attestedRoot(0, nil)
	for _, l := range both() {
		on := b.push()
		good := b.attestation(on, true, time.Minute, certificate())
		bad := b.attestation(on, false, 2*time.Minute, certificate())
		later := *good
		later.entries = nil
		all := []*signed{good, bad, later.stampedAt(b.Time.Add(3 * time.Minute))}
		b.pushAttestations(l, on, all...)
		about := root.Subject(parse(t, on.Name()))
		held, err := root.Fetch(t.Context(), about, nil)
		if err != nil || rolesOf(held) != "" {
			t.Errorf("%s: got %q and %v, want no role: the newer attestation is bad", l, rolesOf(held), err)
			continue
		}
		packed, err := root.Verifier.Pack(held)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := root.Verifier.Unpack(about, packed, nil); err != nil || rolesOf(e) != "" {
			t.Errorf("%s: got %q and %v from the record, want no role", l, rolesOf(e), err)
		}
	}
	for _, l := range both() {
		b, qa := newRegistryBed(t), newSigner(t)
		root, on := build(t, trustRoot(b.settings(), tested(qa))), b.push()
		content := dsseOf(t, qa, passed(true, loadTest, on.DigestStr()))
		var layers []mutate.Addendum
		for range 30 {
			if l == layoutBundle {
				b.bundle(on, bundleType, fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":%q}},`+
					`"dsseEnvelope":%s}`, bundleType, noise(40<<10), content))
				continue
			}
			layer := attestationLayer(content, loadTest)
			layer.Annotations[annotationTimestamp] = noise(40 << 10)
			layers = append(layers, layer)
		}
		if l == layoutTag {
			b.attestTag(on, layers...)
		}
		about := root.Subject(parse(t, on.Name()))
		held, err := root.Fetch(t.Context(), about, nil)
		if err != nil || rolesOf(held) != "tested" {
			t.Fatalf("%s: got %q and %v, want the role", l, rolesOf(held), err)
		}
		packed, err := root.Verifier.Pack(held)
		if err != nil {
			t.Fatal(err)
		}
		if size := held.(trust.Sized).Size(); size > little || len(packed) > little {
			t.Errorf("%s: got evidence of %d bytes and a record of %d, want at most %d", l, size, len(packed), little)
		}
		for range 2 {
			if held, err = root.Recheck(about, held); err != nil || rolesOf(held) != "tested" {
				t.Errorf("%s: verified again: got %q and %v, want the role", l, rolesOf(held), err)
			}
		}
		if e, err := root.Fetch(t.Context(), about, held); err != nil || rolesOf(e) != "tested" {
			t.Errorf("%s: fetched again: got %q and %v, want the role", l, rolesOf(e), err)
		}
		if e, err := root.Verifier.Unpack(about, packed, nil); err != nil || rolesOf(e) != "tested" {
			t.Errorf("%s: from the record: got %q and %v, want the role", l, rolesOf(e), err)
		}
	}
}

// large returns a signature of the tag layout with noise in its payload.
func (b *identityBed) large(on image, c *sigstoreinstance.Certificate) *signed {
	b.t.Helper()
	s := b.sign(layoutTag, on, c)
	s.content = bytes.Replace(s.content, []byte("null"), []byte(`{"x":"`+noise(40<<10)+`"}`), 1)
	s.message = s.content
	by, err := signature.LoadECDSASigner(s.private, crypto.SHA256)
	if err != nil {
		b.t.Fatal(err)
	}
	if s.sig, err = by.SignMessage(bytes.NewReader(s.message)); err != nil {
		b.t.Fatal(err)
	}
	return s.logged()
}

// basedRoot compiles a TrustRoot with a trusted root from a TUF mirror, of which the result returns
// the state.
func (b *identityBed) basedRoot(roles ...v1alpha1.SigstoreRole) (root *Root, loaded trust.Evidence) {
	b.t.Helper()
	mirror := tufmirror.Run(b.t, time.Now().Add(30*24*time.Hour))
	mirror.Publish(b.TrustedRoot())
	tr := trustRoot(b.settings(), roles...)
	tr.Spec.Sigstore.TrustedRoot = &v1alpha1.SigstoreTrustedRoot{TUF: &v1alpha1.SigstoreTUF{
		Mirror: mirror.URL, CABundle: v1alpha1.RegistryCABundle(mirror.CA.PEM), RootFrom: &trustedSource,
	}}
	built, err := Format{}.Build(tr, trust.Material{trustedSource: string(mirror.Root())})
	if err != nil {
		b.t.Fatal(err)
	}
	root = built.(*Root)
	if loaded, err = root.Fetch(b.t.Context(), trust.BaseSubject, nil); err != nil {
		b.t.Fatal(err)
	}
	return root, loaded
}

// While the trusted root is missing, signatures and attestations that need it cannot be checked, so
// anyone may have made them. They take up little memory. Once it is there, the true ones count.
func TestThreatUncheckedSignaturesTakeUpLittle(t *testing.T) {
	t.Parallel()
	for name, attested := range map[string]bool{"signatures": false, "attestations": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, qa := newIdentityBed(t), newSigner(t)
			ci := identityRole("ci", 1, exactly(testIssuer, testSubject))
			if attested {
				ci = testedBy(ci)
			}
			missing, base := b.basedRoot(ci, keyRole("qa", 1, qa.pem))
			on := b.push()
			stranger := certificate(func(c *sigstoreinstance.Certificate) { c.Subject += "x" })
			b.signIn(layoutBundle, on, qa)
			var all []*signed
			for i := range 30 {
				c := stranger
				if i == 29 {
					c = certificate()
				}
				one := b.large(on, c)
				if attested {
					text := bytes.Replace(passed(true, loadTest, on.DigestStr()), []byte(`"passed"`),
						[]byte(`"x":"`+noise(40<<10)+`","passed"`), 1)
					one = b.sign(layoutBundle, on, c).stated(text).loggedAt(b.Time.Add(time.Minute))
				}
				all = append(all, one)
			}
			if attested {
				b.pushAttestations(layoutTag, on, all...)
			} else {
				b.pushSigned(on, all...)
			}
			about := missing.Subject(parse(t, on.Name()))
			held, err := missing.Fetch(t.Context(), about, nil)
			if err != nil || rolesOf(held) != "qa" || len(held.Faults()) == 0 {
				t.Fatalf("got %q and %v, want the role of the key, and the fault that ci cannot be checked",
					rolesOf(held), err)
			}
			for _, what := range []string{"at first", "again"} {
				if size := held.(trust.Sized).Size(); size > little {
					t.Errorf("%s: got evidence of %d bytes, want at most %d", what, size, little)
				}
				if held, err = missing.Fetch(t.Context(), about, held); err != nil || rolesOf(held) != "qa" ||
					len(held.Faults()) == 0 {
					t.Errorf("%s: got %q and %v, want the role of the key, and a fault", what, rolesOf(held), err)
				}
			}
			packed, err := missing.Verifier.Pack(held)
			if err != nil || len(packed) > little {
				t.Errorf("got a record of %d bytes and %v, want at most %d", len(packed), err, little)
			}
			with := missing.WithBase(base, nil)
			restored, err := with.(*Root).Verifier.Unpack(about, packed, nil)
			if err != nil || rolesOf(restored) != "qa" {
				t.Errorf("from the record: got %q and %v, want the role of the key", rolesOf(restored), err)
			}
			checked, err := with.Recheck(about, held)
			if err != nil || rolesOf(checked) != "qa" || len(checked.Faults()) == 0 {
				t.Errorf("with the trusted root: got %q and %v, want the role of the key, and a fault",
					rolesOf(checked), err)
			}
			for when, of := range map[string]trust.Evidence{"held": checked, "restored": restored} {
				e, err := with.Fetch(t.Context(), about, of)
				if err != nil || rolesOf(e) != "ci,qa" || len(e.Faults()) > 0 {
					t.Errorf("fetched with the trusted root, with what was %s: got %q, %v and %v, want both roles",
						when, rolesOf(e), e.Faults(), err)
					continue
				}
				// What counted once outlasts the loss of the trusted root, however large it is.
				for range 2 {
					if e, err = missing.Recheck(about, e); err != nil || rolesOf(e) != "qa" {
						t.Errorf("the trusted root lost: got %q and %v, want the role of the key", rolesOf(e), err)
					}
				}
				if e, err = with.Recheck(about, e); err != nil || rolesOf(e) != "ci,qa" {
					t.Errorf("the trusted root back: got %q and %v, want both roles", rolesOf(e), err)
				}
			}
			if !slices.ContainsFunc(held.Faults(), func(f *trust.Fault) bool {
				return f.Reason == v1alpha1.ReasonNotLoaded
			}) {
				t.Errorf("got the faults %v, want that the trusted root is not loaded", held.Faults())
			}
		})
	}
}
