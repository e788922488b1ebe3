package notary

import (
	"bytes"
	"testing"
)

// Field names match exactly: another spelling is another field and is ignored.
func TestFieldNamesMatchExactly(t *testing.T) {
	wantRoles(t, signedWith(t, func(v *virtual) {
		v.roles["targets/qa"].mutate = func(signed m) {
			signed["Targets"], signed["TARGETS"], signed["targetſ"] = m{"v1": entry("two")}, m{"v1": entry("two")}, m{
				"v1": entry("two"),
			}
			delete(signed, "targets")
		}
	}, nil), "ci one")
}

func FuzzEnvelope(f *testing.F) {
	key := newKey(f, "ecdsa", "")
	good := sealed(f,
		m{"_type": "Targets", "version": 1, "expires": "2030-01-01T00:00:00.123456789+02:00",
			"targets": m{"v1": entry("one")}, "delegations": m{
				"keys":  keysObject(key),
				"roles": []m{{"name": "targets/qa", "keyids": []string{key.id}, "threshold": 1, "paths": []string{""}}},
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
		if _, err := e.verify(r, func(*publicKey) bool { return true }); err == nil &&
			!bytes.Equal(e.signed, want.signed) {
			t.Errorf("got a valid signature over other content: %q", data)
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
			t.Errorf("got %+v, want a key with its IDs that accepts no empty signature", k)
		}
		_, _ = parsePEMKey(string(public))
	})
}
