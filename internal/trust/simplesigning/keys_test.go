package simplesigning

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// A key that is too weak, or cannot sign, makes the trust root unusable. The message names the
// field and the key, and says why.
func TestThreatWeakOpenPGPKeys(t *testing.T) {
	good := armored(t, newEntity(t, nil))
	var private strings.Builder
	if err := newEntity(t, nil).SerializePrivate(&private, nil); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ data, says string }{
		"SHA-1":           {string(gpg(t, "sha1.asc")), "has a self-signature with SHA-1, which can be forged; renew"},
		"RSA 1024":        {string(gpg(t, "weak.asc")), "is an RSA key of 1024 bits; it may have 2048 to 8192"},
		"DSA":             {string(gpg(t, "dsa.asc")), "is a DSA key"},
		"certify only":    {string(gpg(t, "certify.asc")), "may not sign, by its flags"},
		"behind good one": {good + string(gpg(t, "sha1.asc")), "has a self-signature with SHA-1"},
		"private":         {private.String(), "has a private key"},
		"cut":             {good[:len(good)/2], "cannot be read"},
		"empty":           {"", "has no OpenPGP key"},
		"a signature":     {string(gpg(t, "armored.sig")), `has a block "PGP MESSAGE", which is no public key`},
		"a web page":      {"<html>", "cannot be read"},
		"too large":       {good + strings.Repeat("\n", maxKeyring), "has more than 256 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			from := v1alpha1.KeySource{Kind: "ConfigMap", Name: "keys", Key: "ci.asc"}
			tr := newLookaside(t).spec(v1alpha1.SimpleSigningRole{Name: "ci", KeysFrom: []v1alpha1.KeySource{from}})
			_, err := Format{}.Build(tr, trust.Material{from: tt.data})
			f := trust.AsFault(err, "")
			if err == nil || f.Reason != v1alpha1.ReasonInvalidKey || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("got %v, want %s with %q", err, v1alpha1.ReasonInvalidKey, tt.says)
			}
			if field := "spec.simpleSigning.roles[0].keysFrom[0] (ConfigMap keys, entry ci.asc): "; !strings.HasPrefix(
				err.Error(), field) {
				t.Errorf("got %v, want it to begin with %q", err, field)
			}
		})
	}
	weak, err := readEntities(string(gpg(t, "sha1.asc")))
	if err != nil {
		t.Fatal(err)
	}
	id := fingerprint(weak[0].PrimaryKey)
	tr := newLookaside(t).spec(v1alpha1.SimpleSigningRole{
		Name: "ci", Keys: []v1alpha1.OpenPGPKey{v1alpha1.OpenPGPKey(good), v1alpha1.OpenPGPKey(gpg(t, "sha1.asc"))},
	})
	if _, err := (Format{}).Build(tr, nil); err == nil || !strings.HasPrefix(err.Error(),
		"spec.simpleSigning.roles[0].keys[1]: the key "+id+" has a self-signature with SHA-1") {
		t.Errorf("got %v, want it to name keys[1] and the key %s", err, id)
	}
}

// A key proves nothing once it is revoked, whatever time the revocation or the signature has, nor
// once it has expired; a subkey neither. What the other keys have signed counts.
func TestThreatRevokedAndExpiredOpenPGPKeys(t *testing.T) {
	hour := uint32(3600)
	subkeyOf := func(t *testing.T, cfg *packet.Config) *openpgp.Entity {
		e := newEntity(t, nil)
		if err := e.AddSigningSubkey(cfg); err != nil {
			t.Fatal(err)
		}
		return e
	}
	last := func(e *openpgp.Entity) *openpgp.Subkey { return &e.Subkeys[len(e.Subkeys)-1] }
	for name, tt := range map[string]struct {
		key    func(t *testing.T) *openpgp.Entity
		before func(t *testing.T, e *openpgp.Entity) // it signs
		spec   func(tr *v1alpha1.TrustRoot, e *openpgp.Entity)
		when   time.Time
		why    string // empty: it counts
	}{
		"primary": {},
		"subkey":  {key: func(t *testing.T) *openpgp.Entity { return subkeyOf(t, at(born)) }},
		"of version 6": {key: func(t *testing.T) *openpgp.Entity {
			cfg := at(born)
			cfg.V6Keys, cfg.Algorithm = true, packet.PubKeyAlgoEd25519
			return newEntity(t, cfg)
		}},
		"RSA": {key: func(t *testing.T) *openpgp.Entity {
			return newEntity(t, &packet.Config{Time: at(born).Time, Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048})
		}},
		"ECDSA": {key: func(t *testing.T) *openpgp.Entity {
			return newEntity(t, &packet.Config{
				Time: at(born).Time, Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP256,
			})
		}},
		"revoked": {
			before: func(t *testing.T, e *openpgp.Entity) { revoke(t, e, packet.KeyCompromised, now) },
			why:    "is revoked",
		},
		"superseded, after it signed": {
			before: func(t *testing.T, e *openpgp.Entity) { revoke(t, e, packet.KeySuperseded, now) },
			why:    "is revoked",
		},
		"revoked in the future": {
			before: func(t *testing.T, e *openpgp.Entity) { revoke(t, e, packet.NoReason, now.Add(time.Hour)) },
			why:    "is revoked",
		},
		"revoked by another key": {
			before: func(t *testing.T, e *openpgp.Entity) {
				other := newEntity(t, nil)
				revoke(t, other, packet.NoReason, now)
				e.Revocations = append(e.Revocations, other.Revocations...)
			},
			why: "has a revocation by another key",
		},
		"subkey revoked": {
			key: func(t *testing.T) *openpgp.Entity { return subkeyOf(t, at(born)) },
			before: func(t *testing.T, e *openpgp.Entity) {
				if err := last(e).Revoke(packet.KeySuperseded, "", at(now)); err != nil {
					t.Fatal(err)
				}
			},
			why: "is revoked",
		},
		"primary of the subkey revoked": {
			key:    func(t *testing.T) *openpgp.Entity { return subkeyOf(t, at(born)) },
			before: func(t *testing.T, e *openpgp.Entity) { revoke(t, e, packet.NoReason, now) },
			why:    "is revoked",
		},
		"expired since": {
			key: func(t *testing.T) *openpgp.Entity {
				return newEntity(t, &packet.Config{
					Time: at(born).Time, Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: 15 * hour,
				})
			},
			why: "has expired at 2026-01-01T15:00:00Z",
		},
		"expires later": {key: func(t *testing.T) *openpgp.Entity {
			return newEntity(t, &packet.Config{
				Time: at(born).Time, Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: 25 * hour,
			})
		}},
		"subkey expired since": {
			key: func(t *testing.T) *openpgp.Entity {
				return subkeyOf(t, &packet.Config{
					Time: at(born).Time, Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: 15 * hour,
				})
			},
			why: "has expired at 2026-01-01T15:00:00Z",
		},
		"subkey without its own signature": {
			key: func(t *testing.T) *openpgp.Entity { return subkeyOf(t, at(born)) },
			before: func(t *testing.T, e *openpgp.Entity) {
				sig := last(e).Bindings[0].Packet
				sig.EmbeddedSignature = nil
				if err := sig.SignKey(last(e).PublicKey, e.PrivateKey, at(born)); err != nil {
					t.Fatal(err)
				}
			},
			why: "is not bound to its primary key",
		},
		"subkey that may not sign": {
			key: func(t *testing.T) *openpgp.Entity { return subkeyOf(t, at(born)) },
			before: func(t *testing.T, e *openpgp.Entity) {
				sig := last(e).Bindings[0].Packet
				sig.FlagSign = false
				if err := sig.SignKey(last(e).PublicKey, e.PrivateKey, at(born)); err != nil {
					t.Fatal(err)
				}
			},
			why: "may not sign, by its flags",
		},
		"in revokedKeys": {
			spec: func(tr *v1alpha1.TrustRoot, e *openpgp.Entity) {
				tr.Spec.RevokedKeys = []v1alpha1.KeyID{v1alpha1.KeyID(fingerprint(e.PrimaryKey))}
			},
			why: "is listed in spec.revokedKeys",
		},
		"subkey in revokedKeys": {
			key: func(t *testing.T) *openpgp.Entity { return subkeyOf(t, at(born)) },
			spec: func(tr *v1alpha1.TrustRoot, e *openpgp.Entity) {
				tr.Spec.RevokedKeys = []v1alpha1.KeyID{v1alpha1.KeyID(fingerprint(last(e).PublicKey))}
			},
			why: "is listed in spec.revokedKeys",
		},
		"primary of the subkey in revokedKeys": {
			key: func(t *testing.T) *openpgp.Entity { return subkeyOf(t, at(born)) },
			spec: func(tr *v1alpha1.TrustRoot, e *openpgp.Entity) {
				tr.Spec.RevokedKeys = []v1alpha1.KeyID{v1alpha1.KeyID(fingerprint(e.PrimaryKey))}
			},
			why: "is listed in spec.revokedKeys",
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, other := newEntity(t, nil), newEntity(t, nil)
			if tt.key != nil {
				e = tt.key(t)
			}
			message := ok(t, e)
			if tt.before != nil {
				tt.before(t, e)
			}
			l := newLookaside(t)
			tr := l.spec(of(t, "ci", 1, e), of(t, "qa", 1, other))
			if tt.spec != nil {
				tt.spec(tr, e)
			}
			root := build(t, tr)
			l.put(message, ok(t, other))
			got := fetch(t, root)
			want := []string{"ci", "qa"}
			if tt.why != "" {
				want = want[1:]
			}
			if roles := provenBy(got, "v1"); !slices.Equal(roles, want) {
				t.Errorf("got signed by %v, want by %v (%s)", roles, want, because(got))
			}
			if tt.why == "" {
				return
			}
			if why := because(got); !strings.Contains(why, tt.why) {
				t.Errorf("got %q, want %q", why, tt.why)
			}
			if notes := strings.Join(root.Notes(), "; "); !strings.Contains(notes, tt.why) &&
				name != "subkey without its own signature" && name != "subkey that may not sign" {
				t.Errorf("got notes %q, want %q", notes, tt.why)
			}
		})
	}
}

func revoke(t *testing.T, e *openpgp.Entity, reason packet.ReasonForRevocation, when time.Time) {
	t.Helper()
	if err := e.Revoke(reason, "", at(when)); err != nil {
		t.Fatal(err)
	}
}

// A subkey that its primary key has bound with SHA-1 proves nothing, and the status says so.
func TestThreatSubkeyBoundWithSHA1(t *testing.T) {
	l := newLookaside(t)
	root := build(t, l.spec(v1alpha1.SimpleSigningRole{
		Name: "ci", Keys: []v1alpha1.OpenPGPKey{v1alpha1.OpenPGPKey(gpg(t, "subkey-sha1.asc"))},
	}))
	l.put(gpg(t, "subkey-sha1.sig"))
	const why = "is bound to its primary key by a signature with SHA-1"
	got := fetch(t, root)
	if roles := provenBy(got, "v1"); roles != nil || !strings.Contains(because(got), why) {
		t.Errorf("got signed by %v (%s), want by none, since the key %s", roles, because(got), why)
	}
	if notes := strings.Join(root.Notes(), "; "); !strings.Contains(notes, why) {
		t.Errorf("got notes %q, want %q", notes, why)
	}
}

// A copy of a key that revokes it revokes every copy.
func TestThreatRevocationInAnotherCopy(t *testing.T) {
	l, e := newLookaside(t), newEntity(t, nil)
	old := of(t, "ci", 1, e)
	l.put(ok(t, e))
	if got := provenBy(fetch(t, build(t, l.spec(old))), "v1"); len(got) != 1 {
		t.Fatalf("got signed by %v, want by ci", got)
	}
	revoke(t, e, packet.KeyCompromised, now)
	if got := provenBy(fetch(t, build(t, l.spec(old, of(t, "qa", 1, e)))), "v1"); got != nil {
		t.Errorf("got signed by %v, want by none", got)
	}
}

// A threshold counts primary keys: not signatures, nor subkeys, nor copies of a key. The statement
// ends when too few keys are left.
func TestThreatThresholdCountsPrimaryKeys(t *testing.T) {
	l := newLookaside(t)
	a, b := newEntity(t, nil), newEntity(t, &packet.Config{
		Time: at(born).Time, Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: 25 * 3600,
	})
	byPrimary := ok(t, a)
	if err := a.AddSigningSubkey(at(born)); err != nil {
		t.Fatal(err)
	}
	root := build(t, l.spec(of(t, "ci", 2, a, b, a)))
	l.put(byPrimary, ok(t, a), sign(t, at(now), document(repository+":v1", digestA), a))
	if got := fetch(t, root); provenBy(got, "v1") != nil ||
		!strings.Contains(because(got), `and role "ci" needs 2 keys`) {
		t.Errorf("got signed by %v, want by none: one key has signed (%s)", provenBy(got, "v1"), because(got))
	}
	l.put(byPrimary, ok(t, b))
	got := fetch(t, root).Statements("v1", "")
	if len(got) != 1 || len(got[0].Keys) != 2 || !got[0].NotAfter.Equal(born.Add(25*time.Hour)) {
		t.Errorf("got %+v, want one by two keys, until the first of them expires", got)
	}
	if _, err := (Format{}).Build(l.spec(of(t, "ci", 2, a, a)), nil); err == nil ||
		!strings.Contains(err.Error(), "spec.simpleSigning.roles[0].threshold: 2 keys must sign") {
		t.Errorf("got %v, want it to name the threshold", err)
	}
	// Keys that have signed the digest under different tags have not signed either tag together.
	l.put(byPrimary, sign(t, nil, document(repository+":v2", digestA), b))
	e := fetch(t, root)
	if v1, v2, none := provenBy(e, "v1"), provenBy(e, "v2"), provenBy(e, ""); v1 != nil || v2 != nil || len(none) != 1 {
		t.Errorf("got signed for v1 %v, v2 %v and the digest %v, want only the last", v1, v2, none)
	}
}

// A revocation that cannot be read, here because of its hash, is not left out: the key is refused.
func TestThreatUnreadableRevocation(t *testing.T) {
	e := newEntity(t, nil)
	revoke(t, e, packet.KeyCompromised, now)
	var binary bytes.Buffer
	if err := e.Serialize(&binary); err != nil {
		t.Fatal(err)
	}
	all, err := split(binary.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	var changed bytes.Buffer
	for _, p := range all {
		if p.Tag == tagSignature && packet.SignatureType(p.Contents[1]) == packet.SigTypeKeyRevocation {
			p.Contents[3] = 1 // MD5
		}
		if err := p.Serialize(&changed); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := readEntities(changed.String()); err == nil || !strings.Contains(err.Error(), "a revocation") {
		t.Errorf("got %d keys and %v, want a refusal", len(got), err)
	}
	if got, err := readEntities(binary.String()); err != nil || len(got) != 1 {
		t.Errorf("got %d keys and %v of the key as it was, want one", len(got), err)
	}
}

// Binary keys, and several in one armored block or after another, are read.
func TestFormsOfKeys(t *testing.T) {
	a, b := newEntity(t, nil), newEntity(t, nil)
	var binary strings.Builder
	for _, e := range []*openpgp.Entity{a, b} {
		if err := e.Serialize(&binary); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string]string{
		"binary": binary.String(), "one block": armored(t, a, b), "two blocks": armored(t, a) + "\n" + armored(t, b),
		"with text": "Keys of ACME\n" + armored(t, a) + "and\n" + armored(t, b),
	} {
		got, err := readEntities(data)
		if err != nil || len(got) != 2 {
			t.Errorf("%s: got %d keys and %v, want 2", name, len(got), err)
		}
	}
}
