package notation

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/notaryproject/notation-core-go/signature/jws"

	"github.com/countersign-dev/countersign/internal/trust"
)

// noisy returns a JWS envelope with noise in what nobody has signed.
func noisy(t *testing.T, raw []byte) []byte {
	t.Helper()
	return editHeader(t, raw, func(header map[string]any, _ string) {
		random := make([]byte, 20<<10)
		for i := range random {
			random[i] = byte(rand.Uint32())
		}
		header["io.cncf.notary.signingAgent"] = fmt.Sprintf("%x", random)
	})
}

// Copies of a signature that counts, and signatures that are not by a certificate of a role, take
// up little memory beside one that counts. After an edit that lists their CA, the latter count.
func TestThreatNotationCopiesTakeUpLittle(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ca, otherCA := issue(t, nil, "ca", asCA), issue(t, nil, "other ca", asCA)
	ci, other := issue(t, ca, "ci"), issue(t, otherCA, "other")
	root := b.build(b.trustRoot(caRole("ci", 1, []*certificate{ca})))
	for name, by := range map[string]*certificate{"copies": ci, "of another CA": other} {
		t.Run(name, func(t *testing.T) {
			on := b.push()
			b.sign(on, ci)
			raw := signed(t, by, on.DigestStr())
			for range 20 {
				b.attach(on, jws.MediaTypeEnvelope, noisy(t, raw))
			}
			e, err := b.fetch(root, on, nil)
			if err != nil || b.roles(e) != "ci" {
				t.Fatalf("got %q and %v, want the role", b.roles(e), err)
			}
			packed, err := root.Verifier.Pack(e)
			if err != nil {
				t.Fatal(err)
			}
			const little = 128 << 10
			if size := e.(trust.Sized).Size(); size > little || len(packed) > little {
				t.Errorf("got evidence of %d bytes and a record of %d, want at most %d", size, len(packed), little)
			}
			if why := whys(e, "qa"); strings.Contains(why, "copy") {
				t.Errorf("got the rejections %q, want none of copies", why)
			}
			if again, err := b.fetch(root, on, e); err != nil || again != e {
				t.Errorf("again: got another evidence and %v, want the same", err)
			}
			edited := b.build(b.trustRoot(caRole("ci", 1, []*certificate{ca}),
				caRole("qa", 1, []*certificate{otherCA})))
			checked, err := edited.Recheck(about(t, edited, on), e)
			if err != nil || !strings.HasPrefix(b.roles(checked), "ci") {
				t.Errorf("after the edit: got %q and %v, want at least the role of before", b.roles(checked), err)
			}
			want := "ci"
			if by == other {
				want = "ci,qa"
			}
			fetched, err := b.fetch(edited, on, checked)
			if err != nil || b.roles(fetched) != want || len(fetched.(*evidence).judged) != 21 {
				t.Errorf("fetched after the edit: got %q and %v, want %q", b.roles(fetched), err, want)
			}
		})
	}
}
