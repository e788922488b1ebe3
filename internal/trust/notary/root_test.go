package notary

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// authority is a CA, optionally with an intermediate CA.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newAuthority(t *testing.T, issuer *authority, mods ...func(*x509.Certificate)) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key}
	mods = append([]func(*x509.Certificate){func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
	}}, mods...)
	if issuer == nil {
		a.pem = newCertificate(t, key, "ACME CA", nil, nil, mods...)
	} else {
		a.pem = newCertificate(t, key, "ACME issuing CA", issuer.cert, issuer.key, mods...)
	}
	block, _ := pem.Decode(a.pem)
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue creates a root key with a certificate of the authority, followed by the given certificates.
func (a *authority) issue(t *testing.T, commonName string, bundle [][]byte, mods ...func(*x509.Certificate)) *testKey {
	t.Helper()
	k := keyOf(t, newKey(t, "ecdsa", "").signer, "ecdsa-x509", commonName, a.cert, a.key, mods...)
	for _, cert := range bundle {
		k.public = append(k.public, cert...)
	}
	k.id = testKeyID(k.keyType, k.public)
	return k
}

func expiredSince(d time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = testNow().AddDate(-1, 0, 0), testNow().Add(-d) }
}

func TestThreatMetadataOfAnotherRepository(t *testing.T) {
	tests := map[string]struct {
		commonName string
		reason     string
	}{
		"the repository": {commonName: testGUN},
		"a prefix":       {commonName: "registry.example.com/acme/*"},
		"everything":     {commonName: "*"},
		"another repository": {
			commonName: "registry.example.com/acme/other", reason: v1alpha1.ReasonMetadataInvalid,
		},
		"a prefix without star":   {commonName: "registry.example.com/acme", reason: v1alpha1.ReasonMetadataInvalid},
		"another prefix":          {commonName: "registry.example.com/other/*", reason: v1alpha1.ReasonMetadataInvalid},
		"a star in the middle":    {commonName: "registry.example.com/*/app", reason: v1alpha1.ReasonMetadataInvalid},
		"the repository and more": {commonName: testGUN + "2", reason: v1alpha1.ReasonMetadataInvalid},
		"nothing":                 {commonName: "", reason: v1alpha1.ReasonMetadataInvalid},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := newVirtual(t)
			v.bump("root")
			v.roles["root"].keys = []*testKey{newKey(t, "ecdsa-x509", tt.commonName)}
			v.publish()
			ev, err := v.root(v.config()).Fetch(t.Context(), of(testGUN), nil) // the key itself is pinned
			if tt.reason != "" {
				wantFault(t, err, tt.reason, "common name")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantRoles(t, signedBy(ev, "v1"), "ci one", "qa one")
		})
	}
}

func TestRootPinnedByCA(t *testing.T) {
	ca, stranger := newAuthority(t, nil), newAuthority(t, nil)
	between := newAuthority(t, ca)
	var tooMany [][]byte
	for range 10 {
		tooMany = append(tooMany, between.pem)
	}
	tests := map[string]struct {
		key    *testKey
		reason string
	}{
		"issued directly":       {key: ca.issue(t, testGUN, nil)},
		"through an issuing CA": {key: between.issue(t, testGUN, [][]byte{between.pem})},
		"issuing CA is missing": {key: between.issue(t, testGUN, nil), reason: v1alpha1.ReasonRootNotPinned},
		"another CA": {
			key: stranger.issue(t, testGUN, [][]byte{stranger.pem}), reason: v1alpha1.ReasonRootNotPinned,
		},
		"self-signed": {key: newRootKey(t), reason: v1alpha1.ReasonRootNotPinned},
		"bare":        {key: newKey(t, "ecdsa", ""), reason: v1alpha1.ReasonMetadataInvalid},
		"for another repository": {
			key: ca.issue(t, "registry.example.com/acme/other", nil), reason: v1alpha1.ReasonMetadataInvalid,
		},
		"expired": {
			key: ca.issue(t, testGUN, nil, expiredSince(time.Second)), reason: v1alpha1.ReasonMetadataExpired,
		},
		"not valid for two days": {
			key: ca.issue(t, testGUN, nil, func(c *x509.Certificate) {
				c.NotBefore = testNow().Add(48 * time.Hour)
			}),
			reason: v1alpha1.ReasonMetadataExpired,
		},
		"valid within the leeway": {
			key: ca.issue(t, testGUN, nil, func(c *x509.Certificate) { c.NotBefore = testNow().Add(time.Hour) }),
		},
		"a CA itself": {
			key:    ca.issue(t, testGUN, nil, func(c *x509.Certificate) { c.IsCA = true }),
			reason: v1alpha1.ReasonMetadataInvalid,
		},
		"two leaves": {
			key: ca.issue(t, testGUN, [][]byte{newRootKey(t).public}), reason: v1alpha1.ReasonMetadataInvalid,
		},
		"a chain of eleven":  {key: between.issue(t, testGUN, tooMany), reason: v1alpha1.ReasonMetadataInvalid},
		"a chain of ten":     {key: between.issue(t, testGUN, tooMany[1:])},
		"issuing CA expired": {key: expiredIssuer(t, ca), reason: v1alpha1.ReasonRootNotPinned},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := newVirtual(t)
			v.bump("root")
			v.roles["root"].keys = []*testKey{tt.key}
			v.publish()
			cfg := Config{Name: "acme", RootCA: PEM{"spec.notary.root.caBundle", string(ca.pem)}, Clock: testNow}
			ev, err := v.root(cfg).Fetch(t.Context(), of(testGUN), nil)
			if tt.reason != "" {
				wantFault(t, err, tt.reason)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantRoles(t, signedBy(ev, "v1"), "ci one", "qa one")
		})
	}
}

func expiredIssuer(t *testing.T, ca *authority) *testKey {
	t.Helper()
	old := newAuthority(t, ca, expiredSince(time.Second))
	return old.issue(t, testGUN, [][]byte{old.pem})
}

// A bare root key binds no repository, so a server could serve a root of one repository for
// another. It never counts: not if it is pinned, not beside a key with a certificate, and not by a
// CA.
func TestThreatBareRootKeyBindsNoRepository(t *testing.T) {
	for _, keyType := range []string{"ecdsa", "rsa", "ed25519"} {
		t.Run(keyType, func(t *testing.T) {
			v := newVirtual(t)
			bare := newKey(t, keyType, "")
			v.bump("root")
			v.roles["root"].keys = []*testKey{bare}
			v.publish()
			_, err := v.root(v.config()).Fetch(t.Context(), of(testGUN), nil)
			wantFault(t, err, v1alpha1.ReasonMetadataInvalid, testGUN, "root.json",
				"root key "+bare.canonical+", which has no certificate", "rotate the root")
		})
	}
	bare, certified := newKey(t, "ecdsa", ""), newRootKey(t)
	both := func(threshold int) *virtual {
		v := newVirtual(t)
		v.bump("root")
		v.roles["root"].keys, v.roles["root"].threshold = []*testKey{bare, certified}, threshold
		v.publish()
		return v
	}
	_, err := both(2).root(pinKeys(bare, certified)).Fetch(t.Context(), of(testGUN), nil)
	wantFault(t, err, v1alpha1.ReasonMetadataInvalid, "root key "+bare.canonical+", which has no certificate")
	_, err = both(1).root(pinKeys(bare)).Fetch(t.Context(), of(testGUN), nil)
	wantFault(t, err, v1alpha1.ReasonRootNotPinned, certified.canonical)
	wantRoles(t, signedBy(mustFetch(t, both(1).root(pinKeys(certified)), nil), "v1"), "ci one", "qa one")
}

// rotateRoot publishes roots 6 to 6+n-1. Each has its own key and is signed by it and by the one
// before. It returns the keys from version 5 on.
func (v *virtual) rotateRoot(n int) []*testKey {
	v.t.Helper()
	keys := []*testKey{v.roles["root"].keys[0]}
	for range n {
		next := newRootKey(v.t)
		v.roles["root"].keys = []*testKey{next}
		v.roles["root"].signers = []*testKey{keys[len(keys)-1], next}
		keys = append(keys, next)
		v.bump("root", "snapshot", "timestamp")
		v.publish()
	}
	return keys
}

func pinKeys(keys ...*testKey) Config {
	cfg := Config{Name: "acme", Clock: testNow}
	for _, k := range keys {
		cfg.RootKeyIDs = append(cfg.RootKeyIDs, k.canonical)
	}
	return cfg
}

func TestRootChain(t *testing.T) {
	v := newVirtual(t)
	byFirst := v.root(v.config())
	previous := mustFetch(t, byFirst, nil)
	keys := v.rotateRoot(3)
	for _, r := range []*Root{byFirst, v.root(pinKeys(keys[1])), v.root(pinKeys(keys[3]))} {
		wantRoles(t, signedBy(mustFetch(t, r, nil), "v1"), "ci one", "qa one")
	}
	v.requests()
	wantRoles(t, signedBy(mustFetch(t, byFirst, previous), "v1"), "ci one", "qa one")
	if diff := cmp.Diff([]string{"6.root.json", "7.root.json"}, only(v.requests(), ".root.json")); diff != "" {
		t.Errorf("requests for older roots (-want +got):\n%s", diff)
	}
	_, err := v.root(pinKeys(newRootKey(t))).Fetch(t.Context(), of(testGUN), nil)
	wantFault(t, err, v1alpha1.ReasonRootNotPinned, keys[3].canonical)
}

// Anchors are the pins that match verified roots. After a rotation, the old pin matches only if the
// new one is not pinned.
func TestAnchors(t *testing.T) {
	v := newVirtual(t)
	old := v.roles["root"].keys[0]
	stranger := newRootKey(t)
	anchors := func(want string, pins ...*testKey) {
		t.Helper()
		ev, ok := mustFetch(t, v.root(pinKeys(pins...)), nil).(trust.Anchored)
		if !ok {
			t.Fatal("got evidence without anchors")
		}
		if diff := cmp.Diff([]string{want}, ev.Anchors()); diff != "" {
			t.Errorf("anchors (-want +got):\n%s", diff)
		}
	}
	anchors(old.canonical, old, stranger)
	fresh := v.rotateRoot(1)[1]
	anchors(old.canonical, old)
	anchors(fresh.canonical, old, fresh)
	anchors(fresh.canonical, fresh, stranger)
	r := v.root(pinKeys(old, stranger))
	want := []string{old.canonical, stranger.canonical}
	slices.Sort(want)
	if diff := cmp.Diff(want, r.Anchors()); diff != "" {
		t.Errorf("anchors of the root (-want +got):\n%s", diff)
	}
}

func only(names []string, suffix string) []string {
	var out []string
	for _, n := range names {
		if strings.HasSuffix(n, suffix) {
			out = append(out, n)
		}
	}
	return out
}

// The server rotates the root to a key of its own.
func TestThreatRootRotatedByTheServer(t *testing.T) {
	tests := map[string]func(v *virtual, old *testKey){
		"signed by the new key alone": func(v *virtual, _ *testKey) { v.roles["root"].signers = nil },
		"signed by the old key alone": func(v *virtual, old *testKey) { v.roles["root"].signers = []*testKey{old} },
		"a version left out": func(v *virtual, old *testKey) {
			v.roles["root"].signers = append([]*testKey{old}, v.roles["root"].keys...)
			v.bump("root")
		},
		"under half the old threshold": func(v *virtual, old *testKey) {
			v.roles["root"].signers = append([]*testKey{old}, v.roles["root"].keys...)
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			v := newVirtual(t)
			old := v.roles["root"].keys[0]
			if strings.HasPrefix(name, "under half") {
				v.bump("root")
				v.roles["root"].keys, v.roles["root"].threshold = append(v.roles["root"].keys, newRootKey(t)), 2
				v.publish()
			}
			r := v.root(v.config())
			previous := mustFetch(t, r, nil)
			for _, role := range v.roles {
				role.version++
			}
			v.roles["root"].keys, v.roles["root"].threshold = []*testKey{newRootKey(t)}, 1
			change(v, old)
			v.publish()
			if name == "a version left out" {
				v.files["6.root.json"] = v.files["5.root.json"] // instead of root 6
			}
			for state, base := range map[string]any{"first fetch": nil, "refresh": previous} {
				var err error
				if base == nil {
					_, err = r.Fetch(t.Context(), of(testGUN), nil)
				} else {
					_, err = r.Fetch(t.Context(), of(testGUN), previous)
				}
				if err == nil {
					t.Errorf("%s: got the rotated root accepted, want a fault", state)
				}
			}
			wantRoles(t, signedBy(previous, "v1"), "ci one", "qa one")
		})
	}
}

// A root lists the pinned key, but another listed key signed it.
func TestThreatListedRootKeyDidNotSign(t *testing.T) {
	v := newVirtual(t)
	cfg := v.config()
	thief := newRootKey(t)
	v.bump("root")
	root := v.roles["root"]
	root.keys, root.signers = append(root.keys, thief), []*testKey{thief}
	delete(v.files, "5.root.json") // as if it had never existed
	v.publish()
	_, err := v.root(cfg).Fetch(t.Context(), of(testGUN), nil)
	wantFault(t, err, v1alpha1.ReasonRootNotPinned, thief.canonical)
}

// A newest root that a pinned key signed must still follow from the known root.
func TestRootHeldIsFollowedDespiteAPin(t *testing.T) {
	v := newVirtual(t)
	first := v.roles["root"].keys[0]
	r := v.root(v.config())
	v.rotateRoot(1) // away from the pinned key
	previous := mustFetch(t, r, nil)
	for _, role := range v.roles {
		role.version++
	}
	v.roles["root"].keys, v.roles["root"].signers = []*testKey{first}, nil // an attacker uses it again
	v.publish()
	_, err := r.Fetch(t.Context(), of(testGUN), previous)
	wantFault(t, err, v1alpha1.ReasonMetadataInvalid, "does not follow")
}

// An earlier root may have an expired certificate. The newest root must not.
func TestRootCertificateExpired(t *testing.T) {
	v := newVirtual(t)
	v.bump("root")
	now := testNow()
	v.roles["root"].keys = []*testKey{
		newKey(t, "ecdsa-x509", testGUN, func(c *x509.Certificate) { c.NotAfter = now.AddDate(0, 0, 7) }),
	}
	v.publish()
	cfg := v.config()
	cfg.Clock = func() time.Time { return now }
	r := v.root(cfg)
	previous := mustFetch(t, r, nil)
	if at, file := previous.Expiry(); !at.Equal(now.AddDate(0, 0, 7)) || file != "root.json" {
		t.Errorf("Expiry: got %s %s, want the expiry of the certificate", at, file)
	}
	now = testNow().AddDate(0, 0, 8)
	_, err := r.Fetch(t.Context(), of(testGUN), previous)
	wantFault(t, err, v1alpha1.ReasonMetadataExpired, "root.json", "certificate")

	old := v.roles["root"].keys[0]
	v.roles["root"].keys = []*testKey{newRootKey(t)}
	v.roles["root"].signers = []*testKey{old, v.roles["root"].keys[0]}
	v.bump("root", "snapshot", "timestamp")
	v.publish()
	wantRoles(t, signedBy(mustFetch(t, r, previous), "v1"), "ci one", "qa one")
	wantRoles(t, signedBy(mustFetch(t, r, nil), "v1"), "ci one", "qa one")
}

// A root key whose certificate is signed with SHA-1 does not count. Current tools create no such
// certificate, so the test calls the rule directly.
func TestRootCertificateWithSHA1(t *testing.T) {
	k := newRootKey(t)
	parsed, err := parseKey(k.keyType, k.public)
	if err != nil {
		t.Fatal(err)
	}
	c := rootVerifier{Root: &Root{}, repository: testGUN, at: testNow()}
	if !c.isRootKey(parsed, false) {
		t.Fatal("got an unmodified certificate refused")
	}
	parsed.chain[0].SignatureAlgorithm = x509.ECDSAWithSHA1
	if c.isRootKey(parsed, false) || c.isRootKey(parsed, true) {
		t.Error("got a certificate signed with SHA-1 accepted")
	}
}

// Unknown fields are signed too, and change nothing.
func TestUnknownFields(t *testing.T) {
	wantRoles(t, signedWith(t, func(v *virtual) {
		for _, r := range v.roles {
			r.extra = map[string]json.RawMessage{"x-new": json.RawMessage(`{"a":[1,-2,true,null,"q\"\\"]}`)}
		}
	}, nil), "ci one", "qa one")
}
