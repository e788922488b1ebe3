package simplesigning

import (
	"bytes"
	"crypto"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// What GnuPG has signed counts, in each way in which it writes a message of one signed document.
func TestSignaturesOfGnuPG(t *testing.T) {
	l := newLookaside(t)
	role := func(name, file string) v1alpha1.SimpleSigningRole {
		return v1alpha1.SimpleSigningRole{
			Name: v1alpha1.RoleName(name), Keys: []v1alpha1.OpenPGPKey{v1alpha1.OpenPGPKey(gpg(t, file))},
		}
	}
	root := build(t, l.spec(role("ci", "ci.asc"), role("qa", "qa.asc")))
	for file, want := range map[string]string{
		"ci.sig": "ci", "qa.sig": "qa", "uncompressed.sig": "qa", "zlib.sig": "qa", "bzip2.sig": "qa",
		"piped.sig": "qa", "expires.sig": "qa",
	} {
		t.Run(file, func(t *testing.T) {
			l.put(gpg(t, file))
			e := fetch(t, root)
			if diff := cmp.Diff([]string{want}, provenBy(e, "v1")); diff != "" {
				t.Errorf("%s\nrejected: %s", diff, because(e))
			}
			if file != "expires.sig" {
				return
			}
			if got := e.Statements("v1", "")[0].NotAfter; !got.Equal(signed.Add(24 * time.Hour)) {
				t.Errorf("got an expiry at %s, want a day after %s", got, signed)
			}
		})
	}
	for file, want := range map[string]string{
		"armored.sig":  "is text, armored or clear-signed",
		"clear.sig":    "is text, armored or clear-signed",
		"detached.sig": "is a detached signature",
		"text.sig":     "has a signature of another type",
		"both.sig":     "is signed by several keys at once",
		"sha1.sig":     "is with SHA-1",
		"notation.sig": `has the critical notation "a@example.com"`,
		"unsigned.sig": "is an OpenPGP message without a signature",
		"ci.asc":       "is text, armored or clear-signed",
	} {
		t.Run(file, func(t *testing.T) {
			l.put(gpg(t, file))
			e := fetch(t, root)
			if got := provenBy(e, "v1"); got != nil {
				t.Errorf("got signed by %v, want by none", got)
			}
			if got := because(e); !strings.Contains(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// What anyone may put among the signatures proves nothing, whatever form it has.
func TestThreatWhatIsNoSimpleSignature(t *testing.T) {
	l, ci, other := newLookaside(t), newEntity(t, nil), newEntity(t, nil)
	root := build(t, l.spec(of(t, "ci", 1, ci)))
	good := document(repository+":v1", digestA)
	edited := func(before, after string) []byte {
		return sign(t, nil, bytes.Replace(good, []byte(before), []byte(after), 1), ci)
	}
	packets := func(order ...int) []byte { // of a one-pass signature, a literal packet and its signature
		all, err := split(ok(t, ci))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		for _, n := range order {
			if err := all[n].Serialize(&out); err != nil {
				t.Fatal(err)
			}
		}
		return out.Bytes()
	}
	detached := func() []byte {
		var out bytes.Buffer
		if err := openpgp.DetachSign(&out, []*openpgp.Entity{ci}, bytes.NewReader(good), at(signed)); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	cleartext := func() []byte {
		var out bytes.Buffer
		w, err := clearsign.Encode(&out, ci.PrivateKey, at(signed))
		if err != nil {
			t.Fatal(err)
		}
		w.Write(good)
		w.Close()
		return out.Bytes()
	}
	flipped := ok(t, ci)
	flipped[bytes.Index(flipped, []byte("acme/app"))]++
	cases := map[string]struct {
		data []byte
		why  string
	}{
		"another key":     {ok(t, other), "a key that no role of this trust root lists"},
		"changed":         {flipped, "is no signature of the key that it names, or was changed"},
		"empty":           {[]byte{}, "is empty"},
		"text":            {[]byte("not a signature"), "is no OpenPGP message"},
		"truncated":       {ok(t, ci)[:len(ok(t, ci))-10], "is no OpenPGP message, or a part of it is missing"},
		"with a tail":     {append(ok(t, ci), 'x'), "is no OpenPGP message"},
		"oversized":       {bytes.Repeat([]byte{0x80}, maxSignature+1), "has more than 64 KiB"},
		"clear-signed":    {cleartext(), "is text, armored or clear-signed"},
		"detached":        {detached(), "is a detached signature"},
		"by two keys":     {sign(t, nil, good, ci, other), "is signed by several keys at once"},
		"twice signed":    {packets(0, 1, 2, 2), "is signed by several keys at once"},
		"two documents":   {packets(0, 1, 1, 2), "has several literal packets"},
		"two messages":    {packets(0, 1, 2, 0, 1, 2), "has several literal packets"},
		"old order":       {packets(2, 1), "has other packets than"},
		"no announcement": {packets(1, 2), "has other packets than"},
		"nested compression": {
			compressed(t, packet.CompressionZIP, compressed(t, packet.CompressionZIP, ok(t, ci))),
			"has a compressed packet beside or within another packet",
		},
		"compressed beside": {
			append(ok(t, ci), compressed(t, packet.CompressionZIP, ok(t, ci))...),
			"has a compressed packet beside or within another packet",
		},
		"compression bomb": {
			compressed(t, packet.CompressionZLIB, make([]byte, 20<<20)),
			"has more than 64 KiB when it is decompressed",
		},
		"another image":         {sign(t, nil, document(repository+":v1", digestB), ci), "is about another image, "},
		"another repository":    {edited("acme/app", "acme/other"), "under the name registry.example.com/acme/other"},
		"another host":          {edited("example.com", "example.org"), "under the name registry.example.org"},
		"another tag":           {edited(":v1", ":v2"), "under the name registry.example.com/acme/app:v2"},
		"no tag":                {edited(":v1", ""), "under the name registry.example.com/acme/app,"},
		"another type":          {edited("atomic container", "cosign container image"), "which is no image signature"},
		"extra critical field":  {edited(`"type":`, `"more":1,"type":`), "has members that are not defined"},
		"duplicate type":        {edited(`"type":`, `"type":"x","type":`), `critical has the member "type" twice`},
		"duplicate in capitals": {edited(`"type":`, `"Type":"x","type":`), "has members that are not defined"},
		"escaped duplicate":     {edited(`"type":`, `"t\u0079pe":"x","type":`), `critical has the member "type" twice`},
		"duplicate digest": {
			edited(`"docker-manifest-digest":`, `"docker-manifest-digest":"`+digestB+`","docker-manifest-digest":`),
			`critical.image has the member "docker-manifest-digest" twice`,
		},
		"duplicate reference": {
			edited(`"docker-reference":`, `"docker-reference":"a","docker-reference":`), "twice",
		},
		"duplicate critical": {edited(`"optional":`, `"critical":{},"optional":`), `the document has the member "critical" twice`},
		"extra field":        {edited(`"optional":`, `"more":{},"optional":`), "the document has members that are not defined"},
		"no optional":        {edited(`,"optional":{"creator":"test","timestamp":1767261600}`, ""), `lacks the member "optional"`},
		"not JSON":           {sign(t, nil, []byte("{"), ci), "has a document that is no JSON"},
		"two values":         {sign(t, nil, append(slices.Clone(good), "{}"...), ci), "has a document that is no JSON"},
		"many values": {
			edited(`{"creator":"test"`, `{"a":[`+strings.Repeat("0,", maxValues)+`0],"creator":"test"`), "is too large",
		},
		"a list": {sign(t, nil, []byte("[]"), ci), "the document is no object"},
		"weak hash": {
			handmade(t, ci, good, func(s *packet.Signature) { s.Hash = crypto.SHA224 }),
			"is with a hash other than SHA-256",
		},
		"from the future": {sign(t, at(now.Add(time.Hour)), good, ci), "is dated in the future"},
		"before the key": {
			handmade(t, ci, good, func(s *packet.Signature) { s.CreationTime = born.Add(-time.Second) }),
			"is dated before its key was made",
		},
		"expired": {
			handmade(t, ci, good, func(s *packet.Signature) { s.SigLifetimeSecs = new(uint32(60)) }),
			"has expired at 2026-01-01T10:01:00Z",
		},
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			l.put(tt.data)
			e := fetch(t, root)
			if got := provenBy(e, "v1"); got != nil {
				t.Errorf("got signed by %v, want by none", got)
			}
			if got := because(e); !strings.Contains(got, tt.why) {
				t.Errorf("got %q, want %q", got, tt.why)
			}
			// Junk before and after hides no good signature.
			l.put(tt.data, ok(t, ci), tt.data)
			if got := provenBy(fetch(t, root), "v1"); !slices.Equal(got, []string{"ci"}) {
				t.Errorf("beside a good signature: got signed by %v, want by ci", got)
			}
		})
	}
}

// A compressed message takes up no more memory than the bound, however large it would be.
func TestThreatCompressionBombTakesNoMemory(t *testing.T) {
	bomb := compressed(t, packet.CompressionZLIB, make([]byte, 64<<20))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := readMessage(bomb)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; err == nil || took > 4<<20 {
		t.Errorf("got %d bytes allocated and %v, want at most 4 MiB and a refusal", took, err)
	}
}

// Of a digest the first 64 signatures are read. Whether one of the others proves a role is not
// known.
func TestThreatManySimpleSignatures(t *testing.T) {
	for _, n := range []int{64, 65, 1000} {
		for _, place := range []int{1, 64, 65} {
			if place > n {
				continue
			}
			t.Run(fmt.Sprintf("%d of %d", place, n), func(t *testing.T) {
				l, ci := newLookaside(t), newEntity(t, nil)
				root := build(t, l.spec(of(t, "ci", 1, ci)))
				all := make([][]byte, n)
				for i := range all {
					all[i] = []byte("junk")
				}
				all[place-1] = ok(t, ci)
				l.put(all...)
				e, err := root.Fetch(t.Context(), about(), nil)
				if requests := len(l.requests); requests > maxSignatures+window {
					t.Errorf("got %d requests, want at most %d", requests, maxSignatures+window)
				}
				if place > maxSignatures {
					if f := trust.AsFault(err, ""); err == nil || f.Reason != v1alpha1.ReasonTooLarge {
						t.Errorf("got %v, want the fault %s", err, v1alpha1.ReasonTooLarge)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := provenBy(e, "v1"); !slices.Equal(got, []string{"ci"}) {
					t.Errorf("got signed by %v, want by ci", got)
				}
				if got := len(e.Faults()) > 0; got != (n > maxSignatures) {
					t.Errorf("got faults %v, want some: %v", e.Faults(), n > maxSignatures)
				}
			})
		}
	}
}
