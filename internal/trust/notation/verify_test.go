package notation

import (
	"testing"

	"github.com/notaryproject/notation-core-go/signature/jws"
)

// A signature in either envelope proves the role of its CA and subject, and no other.
func TestSignature(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ca, otherCA := issue(t, nil, "ca", asCA), issue(t, nil, "other ca", asCA)
	middle := issue(t, ca, "middle", asCA)
	leaf, alone := issue(t, middle, "ci"), issue(t, nil, "alone")
	root := b.build(b.trustRoot(
		caRole("ci", 1, []*certificate{ca}, "C=US,ST=WA,O=acme,CN=ci"), caRole("by-middle", 1, []*certificate{middle}),
		caRole("qa", 1, []*certificate{ca}, "C=US,O=acme,CN=qa"), caRole("other", 1, []*certificate{otherCA}),
		caRole("alone", 1, []*certificate{alone}),
	))
	for name, mediaType := range mediaTypes() {
		on := b.push()
		b.attach(on, mediaType, envelope(t, mediaType, request(t, leaf, on.DigestStr())))
		e, err := b.fetch(root, on, nil)
		if err != nil || b.roles(e) != "by-middle,ci" {
			t.Fatalf("%s: got %q and %v, want by-middle,ci", name, b.roles(e), err)
		}
		if again, err := b.fetch(root, on, e); err != nil || again != e {
			t.Errorf("%s: fetched again: got other evidence and %v, want the same", name, err)
		}
		if end := e.Statements("", "")[0].NotAfter; !end.Equal(leaf.NotAfter) {
			t.Errorf("%s: got a statement until %v, want %v, when the certificate expires", name, end, leaf.NotAfter)
		}
	}
	on := b.push()
	b.attach(on, jws.MediaTypeEnvelope, signed(t, alone, on.DigestStr()))
	if e, err := b.fetch(root, on, nil); err != nil || b.roles(e) != "alone" {
		t.Errorf("by a self-signed certificate: got %q and %v, want alone", b.roles(e), err)
	}
}
