package notary

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509/pkix"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/canonicaljson"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// Every key type with each of its methods, as the key of every role; for root only with a
// certificate.
func TestKeyTypesAndMethods(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	asPEM := newKey(t, "rsa", "")
	asPEM.public = asPEM.bare
	asPEM.id = testKeyID("rsa", asPEM.public)
	tests := map[string]struct {
		key     *testKey
		methods []string
	}{
		"ecdsa P-256": {newKey(t, "ecdsa", ""), []string{"ecdsa", "ECDSA"}},
		"ecdsa P-384": {keyOf(t, p384, "ecdsa", "", nil, nil), []string{"ecdsa"}},
		"ecdsa P-521": {keyOf(t, p521, "ecdsa", "", nil, nil), []string{"ecdsa"}},
		"ecdsa-x509":  {newKey(t, "ecdsa-x509", testGUN), []string{"ecdsa"}},
		"rsa":         {newKey(t, "rsa", ""), []string{"rsapss", "rsapkcs1v15", "pycrypto-pkcs#1 pss"}},
		"rsa in PEM":  {asPEM, []string{"pycrypto-pkcs#1 pss"}},
		"rsa-x509":    {newKey(t, "rsa-x509", testGUN), []string{"rsapss", "rsapkcs1v15"}},
		"ed25519":     {newKey(t, "ed25519", ""), []string{"eddsa"}},
	}
	for name, tt := range tests {
		for _, method := range tt.methods {
			t.Run(name+" "+method, func(t *testing.T) {
				v := newVirtual(t)
				v.bump("root")
				key := *tt.key
				for _, r := range v.roles {
					if r.name != "root" || strings.HasSuffix(key.keyType, "-x509") {
						r.keys = []*testKey{&key}
					}
				}
				key.method = strings.ToLower(method)
				v.publish()
				ev := mustFetch(t, v.root(v.config()), nil)
				wantRoles(t, signedBy(ev, "v1"), "ci one", "qa one")
				if got := ev.Statements("v1", "")[0].Keys; !slices.Equal(got, []string{key.canonical}) {
					t.Errorf("got signers %v, want the canonical ID %s", got, key.canonical)
				}
			})
		}
	}
}

// No method verifies with another key type, another message, or a signature of another length.
func TestSignatureRefused(t *testing.T) {
	message := []byte("message")
	for _, keyType := range []string{"ecdsa", "rsa", "ed25519"} {
		k := newKey(t, keyType, "")
		parsed, err := parseKey(k.keyType, k.public)
		if err != nil {
			t.Fatal(err)
		}
		sig := k.sign(t, message)
		if !parsed.verify(k.method, message, sig) {
			t.Fatalf("%s: got a valid signature refused", keyType)
		}
		for _, method := range []string{"", "none", "ecdsa", "eddsa", "rsapss", "rsapkcs1v15", "RSAPSS"} {
			if method != k.method && parsed.verify(method, message, sig) {
				t.Errorf("%s: got a signature by %s that verifies as %q", keyType, k.method, method)
			}
		}
		if parsed.verify(k.method, []byte("massage"), sig) || parsed.verify(k.method, message, sig[1:]) ||
			parsed.verify(k.method, message, append(sig, 0)) || parsed.verify(k.method, message, nil) {
			t.Errorf("%s: got a wrong signature that verifies", keyType)
		}
		if half := len(sig) / 2; parsed.verify(k.method, message, slices.Concat(sig[:half], []byte{0}, sig[half:])) {
			t.Errorf("%s: got a padded signature that verifies", keyType)
		}
	}
}

func TestParseKeyRefused(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal("making a weak key to refuse:", err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, rs := newKey(t, "ecdsa", ""), newKey(t, "rsa", "")
	tests := map[string]struct {
		keyType string
		public  []byte
	}{
		"RSA of 1024 bits":           {"rsa", keyOf(t, weak, "rsa", "", nil, nil).public},
		"P-224":                      {"ecdsa", keyOf(t, p224, "ecdsa", "", nil, nil).public},
		"an RSA key as ecdsa":        {"ecdsa", rs.public},
		"an ECDSA key as rsa":        {"rsa", ec.public},
		"a certificate as ecdsa":     {"ecdsa", newKey(t, "ecdsa-x509", "x").public},
		"a bare key as x509":         {"ecdsa-x509", ec.public},
		"RSA certificate as ecdsa":   {"ecdsa-x509", newKey(t, "rsa-x509", "x").public},
		"ed25519 of 31 bytes":        {"ed25519", make([]byte, 31)},
		"unknown":                    {"dsa", ec.public},
		"empty":                      {"ecdsa", nil},
		"PEM that is no certificate": {"ecdsa-x509", ec.bare},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if k, err := parseKey(tt.keyType, tt.public); err == nil {
				t.Errorf("parsed as %+v", k)
			}
		})
	}
}

// A key listed under another ID never counts, and neither does a key that only the signatures name.
func TestKeyUnderAnotherID(t *testing.T) {
	wantRoles(t, signedWith(t, func(v *virtual) {
		stranger := newKey(t, "ecdsa", "")
		stranger.id = v.roles["targets/qa"].keys[0].id // lists another key under the ID of qa's key
		v.roles["targets/qa"].keys = []*testKey{stranger}
	}, nil), "ci one")
}

func TestConfig(t *testing.T) {
	good := newKey(t, "ecdsa", "")
	certified := newKey(t, "ecdsa-x509", "any")
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})
	damaged := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})
	pins := Config{RootKeys: []PEM{{"f", string(good.bare)}}}
	with := func(mod func(*Config)) Config { c := pins; mod(&c); return c }
	role := func(r Role) Config { return with(func(c *Config) { c.Roles = []Role{r} }) }
	tests := map[string]struct {
		config Config
		reason string
		words  []string
	}{
		"no pin": {Config{}, v1alpha1.ReasonInvalidSpec, []string{"spec.notary.root", "trust on first use"}},
		"a private key": {
			Config{RootKeys: []PEM{{"spec.notary.root.keys[1]", string(private)}}}, v1alpha1.ReasonInvalidKey,
			[]string{"spec.notary.root.keys[1]", "PRIVATE KEY"},
		},
		"not PEM": {
			Config{RootKeys: []PEM{{"Secret x, entry y", "abc"}}}, v1alpha1.ReasonInvalidKey,
			[]string{"Secret x, entry y", "not PEM"},
		},
		"two keys in one": {
			Config{RootKeys: []PEM{{"f", string(good.bare) + string(good.bare)}}}, v1alpha1.ReasonInvalidKey,
			[]string{"f:", "more than one"},
		},
		"damaged key": {
			Config{RootKeys: []PEM{{"f", strings.Replace(string(good.bare), "MFkw", "MFkA", 1)}}},
			v1alpha1.ReasonInvalidKey,
			[]string{"f: is not a public key in PKIX form; export it again, for example with 'openssl pkey -pubout'"},
		},
		"damaged cert": {
			Config{RootKeys: []PEM{{"f", string(damaged)}}}, v1alpha1.ReasonInvalidKey,
			[]string{"f: is not a readable certificate"},
		},
		"damaged CA": {
			Config{RootCA: PEM{"f", string(damaged)}}, v1alpha1.ReasonInvalidKey,
			[]string{"f: holds no certificate that can be used: certificate 1"},
		},
		"key ID": {
			Config{RootKeyIDs: []string{strings.Repeat("a", 64), "ABC"}}, v1alpha1.ReasonInvalidKey,
			[]string{"spec.notary.root.keyIDs[1]"},
		},
		"CA is a leaf": {
			Config{RootCA: PEM{"spec.notary.root.caBundle", string(certified.public)}}, v1alpha1.ReasonInvalidKey,
			[]string{"spec.notary.root.caBundle", "not a CA certificate"},
		},
		"CA is nothing": {
			Config{RootCA: PEM{"spec.notary.root.caBundle", "x"}}, v1alpha1.ReasonInvalidKey,
			[]string{"spec.notary.root.caBundle"},
		},
		"revoked": {
			with(func(c *Config) { c.RevokedKeys = []string{"x"} }), v1alpha1.ReasonInvalidKey,
			[]string{"spec.revokedKeys[0]"},
		},
		"releases": {
			role(Role{Name: "qa", Threshold: 1, Delegations: []string{"targets/releases"}}), v1alpha1.ReasonInvalidSpec,
			[]string{"spec.notary.roles[0].delegations[0]", "proves no role"},
		},
		"the role releases": {
			role(Role{Name: "releases", Threshold: 1}), v1alpha1.ReasonInvalidSpec,
			[]string{"spec.notary.roles[0].delegations[0]"},
		},
		"snapshot": {
			role(Role{Name: "qa", Threshold: 1, Delegations: []string{"targets/a", "snapshot"}}),
			v1alpha1.ReasonInvalidSpec, []string{"delegations[1]"},
		},
		"role key": {
			role(Role{Name: "qa", Threshold: 1, Keys: []PEM{{"spec.notary.roles[0].keys[0]", "x"}}}),
			v1alpha1.ReasonInvalidKey, []string{"spec.notary.roles[0].keys[0]"},
		},
		"no name": {role(Role{Threshold: 1}), v1alpha1.ReasonInvalidSpec, []string{"spec.notary.roles[0].name"}},
		"twice": {with(func(c *Config) { c.Roles = []Role{{Name: "qa", Threshold: 1}, {Name: "qa", Threshold: 1}} }),
			v1alpha1.ReasonInvalidSpec,
			[]string{"spec.notary.roles[1].name"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := New(tt.config, nil)
			wantFault(t, err, tt.reason, tt.words...)
		})
	}
	headers := pem.EncodeToMemory(&pem.Block{
		Type: "PUBLIC KEY", Headers: map[string]string{"role": "qa"}, Bytes: mustDER(t, good.bare),
	})
	r, err := New(
		Config{
			RootKeys:   []PEM{{"f", string(headers)}, {"g", string(certified.public)}},
			RootKeyIDs: []string{good.canonical},
		}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{good.canonical, certified.canonical}
	slices.Sort(want)
	if got := r.Fingerprints(); !slices.Equal(got, want) {
		t.Errorf("Fingerprints: got %v, want %v", got, want)
	}
}

// The file of a key may contain its certificate chain. Only the leaf is pinned, and never a CA by
// mistake.
func TestKeyFileWithAChain(t *testing.T) {
	ca, err := tlstest.NewCA("CA")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(pkix.Name{CommonName: "qa"})
	if err != nil {
		t.Fatal(err)
	}
	alone, err := parsePEMKey(string(leaf.CertPEM))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := parsePEMKey(string(leaf.CertPEM) + string(ca.PEM))
	if err != nil || chain.canonical != alone.canonical {
		t.Errorf("got %v, %v, want the key of the leaf", chain, err)
	}
	bare := string(newKey(t, "ecdsa", "").bare)
	for name, c := range map[string]struct{ file, want string }{
		"CA first":   {string(ca.PEM) + string(leaf.CertPEM), "put the certificate of the key first"},
		"two CAs":    {string(ca.PEM) + string(ca.PEM), "put the certificate of the key first"},
		"two leaves": {string(leaf.CertPEM) + string(leaf.CertPEM), "certificate 2 is not a CA certificate"},
		"a key too":  {string(leaf.CertPEM) + bare, "more than one PEM block"},
		"unreadable": {string(leaf.CertPEM) + string(tlstest.OddCertificate(ca.PEM)), "certificate 2"},
	} {
		if k, err := parsePEMKey(c.file); k != nil || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, %v, want %q", name, k, err, c.want)
		}
	}
	r, err := New(
		Config{RootCA: PEM{"f", string(leaf.CertPEM) + string(tlstest.OddCertificate(ca.PEM)) + string(ca.PEM)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if notes := r.Notes(); len(r.Fingerprints()) != 1 || len(notes) != 2 ||
		!strings.Contains(notes[0], "not a CA certificate") ||
		!strings.Contains(notes[1], "negative serial number") {
		t.Errorf("got pins %v and notes %q", r.Fingerprints(), notes)
	}
}

// A message names a signature that is not over the file.
func TestSignatureOverOtherBytesIsNamed(t *testing.T) {
	v := newVirtual(t)
	k, err := parsePEMKey(string(v.roles["targets/qa"].keys[0].bare))
	if err != nil {
		t.Fatal(err)
	}
	e := &envelope{signed: canonicaljson.Object(`{}`), sigs: []signature{{keyID: "x", method: "ecdsa", sig: make([]byte, 64)}}}
	_, err = e.verify(role{keys: map[string]*publicKey{"x": k}, threshold: 1}, func(*publicKey) bool { return true })
	if err == nil || !strings.Contains(err.Error(), k.canonical) || !strings.Contains(err.Error(), "canonical JSON") {
		t.Errorf("got %v", err)
	}
}

func mustDER(t *testing.T, text []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("no PEM")
	}
	return block.Bytes
}
