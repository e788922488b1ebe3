package sigstore

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// noise returns text of n bytes that cannot be compressed.
func noise(n int) string {
	random := make([]byte, n/2)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	return fmt.Sprintf("%x", random)
}

// junk pushes an image that two keys have signed, and ci in both layouts beside signatures of
// another signer, which are large.
func (b *registryBed) junk(ci, other signer, n int) image {
	b.t.Helper()
	on := b.push()
	content := payload(cosignType, "", on.DigestStr())
	layers := []mutate.Addendum{layerOf(content, ci.sign(b.t, content), simpleSigning)}
	for range n {
		large := bytes.Replace(content, []byte("null"), []byte(`{"x":"`+noise(40<<10)+`"}`), 1)
		layers = append(layers, layerOf(large, other.sign(b.t, large), simpleSigning))
	}
	b.tagged(on, layers...)
	for range n {
		large := bytes.Replace(statementOf(signPredicate, on.DigestStr()), []byte(`"predicate":{}`),
			[]byte(`"predicate":{"x":"`+noise(20<<10)+`"}`), 1)
		b.bundle(on, bundleType, envelope(b.t, other, bundleType, large))
	}
	return on
}

// Signatures that nobody listed has made take up little memory beside one that counts. They are not
// fetched again while nothing has changed. Once their signer is listed, they count.
func TestThreatForeignSignaturesTakeUpLittle(t *testing.T) {
	t.Parallel()
	b, ci, other := newRegistryBed(t), newSigner(t), newSigner(t)
	tr := trustRoot(b.settings(), keyRole("ci", 1, ci.pem))
	root := build(t, tr)
	f := withFaults(root)
	on := b.junk(ci, other, 24)
	about := root.Subject(parse(t, on.Name()))
	held, err := root.Fetch(t.Context(), about, nil)
	if err != nil || rolesOf(held) != "ci" {
		t.Fatalf("got %q and %v, want the role", rolesOf(held), err)
	}
	if got := held.(trust.Sized).Size(); got > 96<<10 {
		t.Errorf("got evidence of %d bytes, want little of the signatures that do not count", got)
	}
	if got := whys(held, "qa"); !strings.Contains(got, "a key that no role of this trust root lists") {
		t.Errorf("got rejections %q, want the unknown key", got)
	}
	f.requests = nil
	again, err := root.Fetch(t.Context(), about, held)
	if err != nil || again != held {
		t.Errorf("again: got another evidence and %v, want the same", err)
	}
	slices.Sort(f.requests)
	if got := strings.Join(f.requests, " "); got != "referrers tag" {
		t.Errorf("again: got requests %q, want only these two", got)
	}

	tr.Spec.Sigstore.Roles = append(tr.Spec.Sigstore.Roles, keyRole("qa", 1, other.pem))
	edited := build(t, tr)
	checked, err := edited.Recheck(about, held)
	if err != nil || !strings.Contains(rolesOf(checked), "ci") {
		t.Fatalf("after the edit: got %q and %v, want at least the role of before", rolesOf(checked), err)
	}
	for when, of := range map[string]trust.Evidence{"verified again": checked, "of before": held} {
		fetched, err := edited.Fetch(t.Context(), about, of)
		if err != nil || rolesOf(fetched) != "ci,qa" || len(fetched.(*evidence).judged) != 49 {
			t.Errorf("fetched after the edit, with evidence %s: got %q and %v, want both roles", when,
				rolesOf(fetched), err)
		}
	}
}

// Large attestations that nobody listed has made take up little memory. Once their signer is
// listed, the newest may be among them: nothing is proven until they are fetched again, whatever
// was held or recorded.
func TestThreatForeignAttestationsTakeUpLittle(t *testing.T) {
	t.Parallel()
	b, qa, other := newRegistryBed(t), newSigner(t), newSigner(t)
	for _, l := range both() {
		for name, size := range map[string]int{"large": 256 << 10, "small": 10} {
			tr := trustRoot(b.settings(), tested(qa))
			root := build(t, tr)
			on := b.push()
			good := passed(true, loadTest, on.DigestStr())
			bad := bytes.Replace(passed(false, loadTest, on.DigestStr()), []byte(`"passed"`),
				[]byte(`"x":"`+noise(size)+`","passed"`), 1)
			if l == layoutTag {
				b.attestTag(on, attestationLayer(dsseOf(t, qa, good), loadTest),
					attestationLayer(dsseOf(t, other, bad), loadTest))
			} else {
				b.attestIn(l, on, qa, loadTest, good)
				b.attestIn(l, on, other, loadTest, bad)
			}
			about := root.Subject(parse(t, on.Name()))
			held, err := root.Fetch(t.Context(), about, nil)
			if err != nil || rolesOf(held) != "tested" {
				t.Fatalf("%s, %s: got %q and %v, want the role", l, name, rolesOf(held), err)
			}
			if got := held.(trust.Sized).Size(); got > 64<<10 {
				t.Errorf("%s, %s: got evidence of %d bytes, want little of what does not count", l, name, got)
			}
			if again, err := root.Fetch(t.Context(), about, held); err != nil || again != held {
				t.Errorf("%s, %s, again: got %v and %v, want the same evidence", l, name, again, err)
			}
			if again, err := root.Recheck(about, held); err != nil || rolesOf(again) != "tested" {
				t.Errorf("%s, %s, verified again: got %v and %v, want the role", l, name, again, err)
			}
			packed, err := root.Pack(map[trust.Subject]trust.Evidence{about: held})
			if err != nil {
				t.Fatal(err)
			}
			same, err := build(t, tr).Unpack(about.InRepository(), packed, nil)
			if err != nil || rolesOf(same[about]) != "tested" {
				t.Errorf("%s, %s, from the record: got %v and %v, want the role", l, name, same[about], err)
			}

			tr.Spec.Sigstore.Roles[0].Keys = append(tr.Spec.Sigstore.Roles[0].Keys, v1alpha1.PEM(other.pem))
			edited := build(t, tr)
			checked, err := edited.Recheck(about, held)
			if err != nil || rolesOf(checked) != "" {
				t.Errorf("%s, %s, after the edit: got %q and %v, want nothing proven", l, name, rolesOf(checked), err)
			}
			recorded, err := edited.Unpack(about.InRepository(), packed, nil)
			if err != nil || rolesOf(recorded[about]) != "" || len(recorded[about].Faults()) == 0 {
				t.Errorf("%s, %s, from the record after the edit: got %q and %v, want nothing proven, and a fault", l,
					name, rolesOf(recorded[about]), err)
			}
			both := map[trust.Subject]trust.Evidence{about: held}
			if got, err := edited.Unpack(about.InRepository(), packed, both); err != nil || rolesOf(got[about]) != "" {
				t.Errorf("%s, %s, from the record, beside what was held: got %v and %v, want nothing proven", l, name,
					got[about], err)
			}
			for when, of := range map[string]trust.Evidence{"held": checked, "recorded": recorded[about]} {
				fetched, err := edited.Fetch(t.Context(), about, of)
				if err != nil || rolesOf(fetched) != "" || len(fetched.Faults()) > 0 ||
					!strings.Contains(whys(fetched, "tested"), "does not meet conditions[0]") {
					t.Errorf("%s, %s, fetched after the edit, with what was %s: got %q, %v, %s, want the other one to "+
						"decide", l, name, when, rolesOf(fetched), err, whys(fetched, "tested"))
				}
			}
		}
	}
}

// A record of what was held before an edit does not say that the roles of after it have judged what
// is not kept: the newest attestation may be among that.
func TestThreatRecordOfForeignAttestationsAfterAnEdit(t *testing.T) {
	t.Parallel()
	b, qa, other, third := newRegistryBed(t), newSigner(t), newSigner(t), newSigner(t)
	tr := trustRoot(b.settings(), tested(qa))
	root, on := build(t, tr), b.push()
	good := passed(true, loadTest, on.DigestStr())
	bad := bytes.Replace(passed(false, loadTest, on.DigestStr()), []byte(`"passed"`),
		[]byte(`"x":"`+noise(256<<10)+`","passed"`), 1)
	b.attestTag(on, attestationLayer(dsseOf(t, third, good), loadTest),
		attestationLayer(dsseOf(t, qa, good), loadTest), attestationLayer(dsseOf(t, other, bad), loadTest))
	about := root.Subject(parse(t, on.Name()))
	held, err := root.Fetch(t.Context(), about, nil)
	if err != nil || rolesOf(held) != "tested" {
		t.Fatalf("got %q and %v, want the role", rolesOf(held), err)
	}
	tr.Spec.Sigstore.Roles[0].Keys = append(tr.Spec.Sigstore.Roles[0].Keys, v1alpha1.PEM(other.pem))
	edited := build(t, tr)
	checked, err := edited.Recheck(about, held)
	if err != nil || rolesOf(checked) != "" {
		t.Fatalf("after the edit: got %q and %v, want nothing proven", rolesOf(checked), err)
	}
	packed, err := edited.Verifier.Pack(checked)
	if err != nil {
		t.Fatal(err)
	}
	if packed == nil {
		return // then all is fetched again
	}
	if again, err := build(t, tr).Verifier.Unpack(about, packed, nil); err == nil && rolesOf(again) != "" {
		t.Errorf("from the record: got %q, want nothing proven", rolesOf(again))
	}
}

// A record has the signatures of listed signers alone, however many others there are.
func TestRecordWithoutForeignSignatures(t *testing.T) {
	t.Parallel()
	b, ci, other := newRegistryBed(t), newSigner(t), newSigner(t)
	root, on := build(t, trustRoot(b.settings(), keyRole("ci", 1, ci.pem))), b.push()
	for _, by := range []signer{other, ci} {
		b.signIn(layoutBundle, on, by)
	}
	held, err := fetch(t, root, on.Name(), nil)
	if err != nil || rolesOf(held) != "ci" || len(held.(*evidence).judged) != 2 {
		t.Fatalf("got %q and %v, want ci, of two signatures", rolesOf(held), err)
	}
	packed, err := root.Verifier.Pack(held)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := unpack(packed); err != nil || len(c.Signatures) != 1 {
		t.Errorf("got %+v and %v, want one signature in the record", c, err)
	}
}
