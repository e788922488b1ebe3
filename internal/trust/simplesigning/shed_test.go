package simplesigning

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/countersign-dev/countersign/internal/trust"
)

// noise returns bytes that cannot be compressed.
func noise(n int) []byte {
	random := make([]byte, n)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	return random
}

// noisy returns a signature on digestA by a key, and copies of it with noise in what nobody has
// signed.
func noisy(t *testing.T, by *openpgp.Entity, n int) [][]byte {
	t.Helper()
	content := document(repository+":v1", digestA)
	all := [][]byte{handmade(t, by, content, func(*packet.Signature) {})}
	for range n {
		all = append(all, unhashed(t, all[0], noise(40<<10)))
	}
	return all
}

// unhashed returns a message with further bytes in the part of its signature that nobody has
// signed.
func unhashed(t *testing.T, message, more []byte) []byte {
	t.Helper()
	packets, err := split(message)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, p := range packets {
		if p.Tag == tagSignature { // version, type, two algorithms, and the hashed subpackets
			at := 6 + int(binary.BigEndian.Uint16(p.Contents[4:]))
			size := binary.BigEndian.Uint16(p.Contents[at:])
			contents := binary.BigEndian.AppendUint16(slices.Clone(p.Contents[:at]), size+uint16(len(more))+6)
			contents = append(contents, 0xff)
			contents = binary.BigEndian.AppendUint32(contents, uint32(len(more)+1))
			contents = append(append(contents, 100), more...) // a private type
			p = &packet.OpaquePacket{Tag: p.Tag, Contents: append(contents, p.Contents[at+2:]...)}
		}
		if err := p.Serialize(&out); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// Copies of a signature that counts, and signatures by keys that no role lists, take up little
// memory beside one that counts. After an edit that lists the key, these count.
func TestThreatSimpleSigningCopiesTakeUpLittle(t *testing.T) {
	for name, foreign := range map[string]bool{"copies": false, "by another key": true} {
		t.Run(name, func(t *testing.T) {
			l, ci, other := newLookaside(t), newEntity(t, nil), newEntity(t, nil)
			all := noisy(t, ci, 20)
			if foreign {
				all = append([][]byte{ok(t, ci)}, noisy(t, other, 20)[1:]...)
			}
			slices.Reverse(all) // the smallest is the last
			l.put(all...)
			root := build(t, l.spec(of(t, "ci", 1, ci)))
			e := fetch(t, root)
			if got := provenBy(e, "v1"); !slices.Equal(got, []string{"ci"}) {
				t.Fatalf("got signed by %v, want by ci: %s", got, because(e))
			}
			packed, err := root.Verifier.Pack(e)
			if err != nil {
				t.Fatal(err)
			}
			const little = 128 << 10
			if size := e.(trust.Sized).Size(); size > little || len(packed) > little {
				t.Errorf("got evidence of %d bytes and a record of %d, want at most %d", size, len(packed), little)
			}
			if why := because(e); strings.Contains(why, "copy") {
				t.Errorf("got the rejections %q, want none of copies", why)
			}
			if again, err := root.Fetch(t.Context(), about(), e); err != nil || again != e {
				t.Errorf("again: got another evidence and %v, want the same", err)
			}
			edited := build(t, l.spec(of(t, "ci", 1, ci), of(t, "qa", 1, other)))
			checked, err := edited.Recheck(about(), e)
			if err != nil || !slices.Contains(provenBy(checked, "v1"), "ci") {
				t.Errorf("after the edit: got %v and %v, want at least the role of before", checked, err)
			}
			want := []string{"ci"}
			if foreign {
				want = append(want, "qa")
			}
			e, err = edited.Fetch(t.Context(), about(), checked)
			if err != nil || !slices.Equal(provenBy(e, "v1"), want) {
				t.Errorf("fetched after the edit: got %v, want signed by %v", err, want)
			}
		})
	}
}

// The status shows when keys and signatures expire that end a role.
func TestExpiriesOfSimpleSigning(t *testing.T) {
	l := newLookaside(t)
	lifetime := func(d time.Duration) *packet.Config {
		cfg := at(signed)
		cfg.KeyLifetimeSecs, cfg.SigLifetimeSecs = 0, uint32(d/time.Second)
		return cfg
	}
	expiring := at(signed)
	expiring.KeyLifetimeSecs = uint32((48 * time.Hour) / time.Second)
	short, never := newEntity(t, expiring), newEntity(t, nil)
	content := document(repository+":v1", digestA)
	for name, c := range map[string]struct {
		roles []*openpgp.Entity
		by    [][]byte
		kind  string
		at    time.Duration
	}{
		"a key": {
			[]*openpgp.Entity{short}, [][]byte{sign(t, at(signed), content, short)}, "key", 48 * time.Hour,
		},
		"nothing":         {[]*openpgp.Entity{never}, [][]byte{ok(t, never)}, "", 0},
		"another one has": {[]*openpgp.Entity{short, never}, [][]byte{ok(t, short), ok(t, never)}, "", 0},
		"a signature": {
			[]*openpgp.Entity{short}, [][]byte{sign(t, lifetime(24*time.Hour), content, short)}, "signature",
			24 * time.Hour,
		},
	} {
		t.Run(name, func(t *testing.T) {
			l.put(c.by...)
			e := fetch(t, build(t, l.spec(of(t, "ci", 1, c.roles...))))
			if got := provenBy(e, "v1"); !slices.Equal(got, []string{"ci"}) {
				t.Fatalf("got signed by %v, want by ci: %s", got, because(e))
			}
			files := e.(trust.Dated).Files()
			if c.kind == "" {
				if len(files) > 0 {
					t.Errorf("got %+v, want nothing that expires", files)
				}
				return
			}
			id := fmt.Sprintf("%x", short.PrimaryKey.Fingerprint)
			if len(files) != 1 || files[0].Kind != c.kind || !files[0].Part || files[0].Unattended ||
				!files[0].NotAfter.Equal(signed.Add(c.at)) || !strings.Contains(files[0].Name, id) {
				t.Errorf("got %+v, want a %s of the key %s that ends at %s", files, c.kind, id, signed.Add(c.at))
			}
		})
	}
}
