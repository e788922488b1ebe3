package notation

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// Verifying a signature allocates no more than is acquired from the budget, also for envelopes that
// are small on the wire and large in memory.
func TestThreatNotationMemory(t *testing.T) {
	ca, tsaCA := issue(t, nil, "ca", asCA), issue(t, nil, "tsa ca", asCA)
	leaf := issue(t, ca, "ci")
	const digest = "sha256:4a5d0571bbee625138781fa9493916767159d0f24284fa313383fba8bb04453f"
	b := &bed{t: t, now: epoch}
	b.restart()
	root := b.build(&v1alpha1.TrustRoot{Spec: v1alpha1.TrustRootSpec{Notation: &v1alpha1.NotationSpec{
		Roles:                []v1alpha1.NotationRole{caRole("ci", 1, []*certificate{ca})},
		TimestampAuthorities: v1alpha1.TimestampBundle(tsaCA.pem()),
	}}})
	v := root.Verifier.(*verifier)

	head := func(major byte, n int) []byte {
		return append([]byte{major<<5 | 26}, binary.BigEndian.AppendUint32(nil, uint32(n))...)
	}
	message := func(unprotected []byte) []byte { // COSE_Sign1: protected, unprotected, payload, signature
		return bytes.Join([][]byte{{0xd2, 0x84, 0x43, 0xa1, 0x01, 0x26}, unprotected, {0x41, 0x00, 0x41, 0x00}}, nil)
	}
	pairs := func(n int) []byte {
		out := head(5, n)
		for i := range n { // each key once
			out = append(out, 0x19, byte((i+256)>>8), byte(i), 0x00)
		}
		return out
	}
	stamp := func(token []byte) []byte {
		return editHeader(t, signed(t, leaf, digest), func(h map[string]any, _ string) {
			h["io.cncf.notary.timestampSignature"] = token
		})
	}
	list := append(head(4, 60<<10), bytes.Repeat([]byte{0x80}, 60<<10)...)
	nodes := append([]byte{0x30, 0x82, 0xa0, 0x00}, bytes.Repeat([]byte{0x05, 0x00}, 0xa000/2)...)
	long := leaf.chain()
	for len(long) < maxChain {
		long = append(long, ca.Certificate)
	}
	for name, s := range map[string]kept{
		"a good one":         {MediaType: jws.MediaTypeEnvelope, Envelope: signed(t, leaf, digest)},
		"COSE, many headers": {MediaType: cose.MediaTypeEnvelope, Envelope: message(pairs(15 << 10))},
		"COSE, a long chain": {
			MediaType: cose.MediaTypeEnvelope, Envelope: message(append([]byte{0xa1, 0x18, 0x21}, list...)),
		},
		"COSE, nested": {
			MediaType: cose.MediaTypeEnvelope,
			Envelope:  message(append([]byte{0xa1, 0x18, 0x20}, bytes.Repeat([]byte{0x81}, 60<<10)...)),
		},
		"JWS, many values": {
			MediaType: jws.MediaTypeEnvelope,
			Envelope:  fmt.Appendf(nil, `{"header":{"x5c":[%s""]}}`, strings.Repeat(`"",`, maxValues-10)),
		},
		"JWS, a large payload": {
			MediaType: jws.MediaTypeEnvelope,
			Envelope:  bytes.Replace(signed(t, leaf, digest), []byte(`"payload":"`), []byte(`"payload":"`+strings.Repeat("e", 60<<10)), 1),
		},
		"ten certificates": {
			MediaType: jws.MediaTypeEnvelope, Envelope: withChain(t, signed(t, leaf, digest), long...),
		},
		"a timestamp of many nodes": {MediaType: jws.MediaTypeEnvelope, Envelope: stamp(nodes)},
	} {
		if len(s.Envelope) > maxSignature {
			t.Errorf("%s: got an envelope of %d bytes, want one that is read", name, len(s.Envelope))
		}
		verify := func() {
			if _, _, err := v.judge(
				t.Context(),
				about(t, root, reference("registry.example.com/acme/app@"+digest)),
				&s,
			); err != nil {
				t.Fatal(err)
			}
		}
		verify() // fills the pools
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		verify()
		runtime.ReadMemStats(&after)
		got, acquired := int64(after.TotalAlloc-before.TotalAlloc), decodeFrame+decodeCost*int64(len(s.Envelope))
		if got > acquired {
			t.Errorf("%s: %d bytes allocated %d, want at most the %d acquired", name, len(s.Envelope), got, acquired)
		}
		t.Logf("%-28s %6d bytes allocate %8d, of %8d", name, len(s.Envelope), got, acquired)
	}
}

// reference is the name of an image.
type reference string

// String implements fmt.Stringer.
func (r reference) String() string { return string(r) }
