package notary

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCanonical(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"white space":         {" { \"b\" : [ 1 , -2 ] ,\n\"a\":null } ", `{"a":null,"b":[1,-2]}`},
		"bytewise order":      {`{"é":1,"z":2,"A":3,"_":4,"a":5}`, `{"A":3,"_":4,"a":5,"z":2,"é":1}`},
		"only two escapes":    {`"\u0041\n\t\u0001<>&\/\"\\\u2028"`, "\"A\n\t\x01<>&/\\\"\\\\\u2028\""},
		"surrogates":          {`"\ud83d\ude00"`, `"😀"`},
		"large integers":      {`[9223372036854775807,123456789012345678901234567890]`, `[9223372036854775807,123456789012345678901234567890]`},
		"literals":            {`[true,false,null,0]`, `[true,false,null,0]`},
		"empty":               {`{"a":{},"b":[],"":""}`, `{"":"","a":{},"b":[]}`},
		"nested to the limit": {strings.Repeat("[", 64) + strings.Repeat("]", 64), strings.Repeat("[", 64) + strings.Repeat("]", 64)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v, err := parseJSON([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(appendCanonical(nil, v))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseJSONRefused(t *testing.T) {
	for name, in := range map[string]string{
		"nothing":               "",
		"a name twice":          `{"a":1,"b":2,"a":1}`,
		"a name twice, escaped": `{"a":1,"\u0061":1}`,
		"fraction":              `1.5`,
		"fraction of zero":      `1.0`,
		"exponent":              `1e3`,
		"negative zero":         `-0`,
		"invalid UTF-8":         "\"\xff\"",
		"two documents":         `{} {}`,
		"trailing comma":        `[1,]`,
		"unterminated":          `{"a":[`,
		"too deep":              strings.Repeat("[", 67) + strings.Repeat("]", 67),
		"far too deep":          strings.Repeat(`{"a":`, 100000),
		"comment":               `{} // x`,
	} {
		t.Run(name, func(t *testing.T) {
			if v, err := parseJSON([]byte(in)); err == nil {
				t.Errorf("parsed as %v", v)
			}
		})
	}
}

// Two spellings of one field are two fields: only the exact one is read.
func TestFieldsAreReadByTheirExactName(t *testing.T) {
	wantRoles(t, signedWith(t, func(v *virtual) {
		v.roles["targets/qa"].mutate = func(signed m) {
			signed["Targets"], signed["TARGETS"], signed["targetſ"] = m{"v1": entry("two")}, m{"v1": entry("two")}, m{"v1": entry("two")}
			delete(signed, "targets")
		}
	}, nil), "ci one")
}

func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{`{"a":[1,"x\u0000\"",null,{"b":true}]}`, `"\ud800"`, `-1`, `[[]]`, "\"\xc3\x28\""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := parseJSON(data)
		if err != nil {
			return
		}
		once := appendCanonical(nil, v)
		if bytes.ContainsFunc(once, func(r rune) bool { return r < ' ' }) {
			return // control characters stay raw, so the form is not JSON
		}
		again, err := parseJSON(once)
		if err != nil {
			t.Fatalf("the canonical form %q of %q is not read: %v", once, data, err)
		}
		if twice := appendCanonical(nil, again); !bytes.Equal(once, twice) {
			t.Errorf("the canonical form of %q is not stable: %q, then %q", data, once, twice)
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	key := newKey(f, "ecdsa", "")
	good := sealed(f, m{"_type": "Targets", "version": 1, "expires": "2030-01-01T00:00:00.123456789+02:00", "targets": m{"v1": entry("one")}, "delegations": m{
		"keys": keysObject(key), "roles": []m{{"name": "targets/qa", "keyids": []string{key.id}, "threshold": 1, "paths": []string{""}}},
	}}, key)
	f.Add(good)
	f.Add([]byte(`{"signed":{},"signatures":[]}`))
	f.Add([]byte(`{"signed":null,"signatures":null}`))
	parsed, err := parseKey(key.keyType, key.public)
	if err != nil {
		f.Fatal(err)
	}
	r := role{keys: map[string]*publicKey{key.id: parsed}, threshold: 1}
	want, err := decodeEnvelope(good, "Targets")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = decodeRoot(data)
		e, err := decodeEnvelope(data, "Targets")
		if err != nil {
			return
		}
		_, _ = decodeTargets("targets", e)
		_, _ = decodeSnapshot(e.signed)
		if _, err := e.verify(r, func(*publicKey) bool { return true }); err == nil && !bytes.Equal(e.message, want.message) {
			t.Errorf("a signature verifies over another content: %q", data)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	for _, keyType := range []string{"ecdsa", "rsa", "ed25519", "ecdsa-x509", "rsa-x509"} {
		k := newKey(f, keyType, "x")
		f.Add(keyType, k.public)
		f.Add(keyType, k.bare)
	}
	f.Fuzz(func(t *testing.T, keyType string, public []byte) {
		k, err := parseKey(keyType, public)
		if err == nil && (len(k.id) != 64 || len(k.canonical) != 64 || k.key == nil || k.verify("ecdsa", public, nil)) {
			t.Errorf("parsed as %+v", k)
		}
		_, _ = parsePEMKey(string(public))
	})
}
