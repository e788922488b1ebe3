package notary

import (
	"crypto/sha256"
	"crypto/sha512"
	"testing"

	"github.com/countersign-dev/countersign/internal/canonicaljson"
)

// The length and every listed hash must match.
func TestFileMetaCheck(t *testing.T) {
	raw := []byte("content")
	short, long := sha256.Sum256(raw), sha512.Sum512(raw)
	otherShort, otherLong := sha256.Sum256([]byte("other")), sha512.Sum512([]byte("other"))
	tests := map[string]struct {
		meta fileMeta
		ok   bool
	}{
		"all":               {fileMeta{7, short[:], long[:]}, true},
		"sha256 alone":      {fileMeta{7, short[:], nil}, true},
		"sha512 alone":      {fileMeta{7, nil, long[:]}, true},
		"another length":    {fileMeta{8, short[:], long[:]}, false},
		"another sha256":    {fileMeta{7, otherShort[:], long[:]}, false},
		"another sha512":    {fileMeta{7, short[:], otherLong[:]}, false},
		"half of a sha256":  {fileMeta{7, short[:16], long[:]}, false},
		"sha512 only wrong": {fileMeta{7, nil, otherLong[:]}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := tt.meta.check(raw); (err == nil) != tt.ok {
				t.Errorf("got error %v, want ok %t", err, tt.ok)
			}
		})
	}
}

func TestDecodeMetaRefused(t *testing.T) {
	for name, text := range map[string]string{
		"no hashes":           `{"length":1}`,
		"empty hashes":        `{"length":1,"hashes":{}}`,
		"unknown hash":        `{"length":1,"hashes":{"md5":"AAAA"}}`,
		"short sha256":        `{"length":1,"hashes":{"sha256":"AAAA"}}`,
		"hexadecimal":         `{"length":1,"hashes":{"sha256":"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"}}`,
		"no length":           `{"hashes":{"sha256":"q1MKE+RZFJgrefm34+uplM/R8/si9xzqGvvwK0YMbR0="}}`,
		"length of text":      `{"length":"1","hashes":{"sha256":"q1MKE+RZFJgrefm34+uplM/R8/si9xzqGvvwK0YMbR0="}}`,
		"length out of range": `{"length":9223372036854775808,"hashes":{"sha256":"q1MKE+RZFJgrefm34+uplM/R8/si9xzqGvvwK0YMbR0="}}`,
		"one hash is short":   `{"length":1,"hashes":{"sha256":"q1MKE+RZFJgrefm34+uplM/R8/si9xzqGvvwK0YMbR0=","sha512":"AAAA"}}`,
		"not an object":       `[]`,
	} {
		t.Run(name, func(t *testing.T) {
			v, err := canonicaljson.Encode([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if meta, err := decodeMeta(v); err == nil {
				t.Errorf("got %+v, want an error", meta)
			}
		})
	}
}

// A remembered result counts for its key alone: a role may list another key under the same ID.
func TestSignatureOfOneKeyCountsForNoOther(t *testing.T) {
	v := newVirtual(t)
	r := v.role("targets/qa")
	e, err := decodeEnvelope(v.build(r, v.targetsFile(r)), "Targets")
	if err != nil {
		t.Fatal(err)
	}
	own, err := parsePEMKey(string(r.keys[0].bare))
	if err != nil {
		t.Fatal(err)
	}
	other, err := parsePEMKey(string(v.role("targets/ci").keys[0].bare))
	if err != nil {
		t.Fatal(err)
	}
	id := e.sigs[0].keyID
	for i, want := range []bool{true, true, false, false, true} {
		k := other
		if want {
			k = own
		}
		r := role{keys: map[string]*publicKey{id: k}, threshold: 1}
		_, err := e.verify(r, func(*publicKey) bool { return true })
		if got := err == nil; got != want {
			t.Errorf("check %d: got %t (%v), want %t", i, got, err, want)
		}
	}
}
