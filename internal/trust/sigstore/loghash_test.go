package sigstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
)

// A log entry of the tag layout names the hash that the key has signed, and must have that of the
// payload.
func TestHashOfALogEntry(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	root := buildWith(t, b.withTrusted("Require", identityRole("ci", 1, exactly(testIssuer, testSubject))),
		b.TrustedRoot())
	for name, c := range map[string]struct {
		curve   elliptic.Curve
		hash    crypto.Hash
		listed  string
		of      string // what the listed hash is of; empty: the payload
		because string
	}{
		"SHA-256":             {elliptic.P256(), crypto.SHA256, "sha256", "", ""},
		"SHA-384":             {elliptic.P384(), crypto.SHA384, "sha384", "", ""},
		"SHA-512":             {elliptic.P521(), crypto.SHA512, "sha512", "", ""},
		"an unknown hash":     {elliptic.P256(), crypto.SHA256, "md5", "", "it has the unknown hash"},
		"of another artifact": {elliptic.P384(), crypto.SHA384, "sha384", "x", "its log entry is not valid"},
	} {
		private, err := ecdsa.GenerateKey(c.curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := signature.LoadECDSASigner(private, c.hash)
		if err != nil {
			t.Fatal(err)
		}
		on := b.push()
		s := b.signWith(layoutTag, on, certificate(), private)
		if s.sig, err = signer.SignMessage(bytes.NewReader(s.message)); err != nil {
			t.Fatal(err)
		}
		of := s.message
		if c.of != "" {
			of = []byte(c.of)
		}
		body, err := json.Marshal(map[string]any{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": map[string]any{
			"data": map[string]any{"hash": map[string]any{"algorithm": c.listed, "value": sumNamed(c.listed, of)}},
			"signature": map[string]any{"content": s.sig, "publicKey": map[string]any{
				"content": []byte(sigstoreinstance.PEM(s.cert)),
			}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		s.entries = []*protorekor.TransparencyLogEntry{b.LogV1("hashedrekord", "0.0.1", body, b.Time.Add(time.Minute))}
		b.pushSigned(on, s)
		e, err := fetch(t, root, on.Name(), nil)
		switch {
		case err != nil:
			t.Errorf("%s: got %v, want a verdict", name, err)
		case c.because == "" && rolesOf(e) != "ci":
			t.Errorf("%s: got %q and rejections %q, want ci", name, rolesOf(e), whys(e, "ci"))
		case c.because != "" && (rolesOf(e) != "" || !strings.Contains(whys(e, "ci"), c.because)):
			t.Errorf("%s: got %q and rejections %q, want %q", name, rolesOf(e), whys(e, "ci"), c.because)
		}
	}
}

// An entry of the kind of Rekor v2 counts only with a checkpoint of Rekor v2: only there does the
// proof of inclusion say which artifact the entry is about.
func TestThreatEntryOfAnotherKindOfLog(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	on := b.push()
	s := b.sign(layoutBundle, on, certificate()).loggedV2().stamped()
	if p := proveBundle(t, b, s.bundle(bundleType)); p == nil || p.whyIdentity != "" {
		t.Fatalf("got %+v, want a good entry of Rekor v2 to count", p)
	}
	other := sha256.Sum256([]byte("another artifact"))
	body, err := json.Marshal(map[string]any{"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": map[string]any{
		"hashedRekordV002": map[string]any{
			"data": map[string]any{"algorithm": "SHA2_256", "digest": other[:]},
			"signature": map[string]any{"content": s.sig, "verifier": map[string]any{
				"keyDetails": "PKIX_ECDSA_P256_SHA_256", "x509Certificate": map[string]any{"rawBytes": s.cert.Raw},
			}},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.entries = []*protorekor.TransparencyLogEntry{b.LogV1("hashedrekord", "0.0.2", body, b.Time.Add(time.Minute))}
	p := proveBundle(t, b, s.bundle(bundleType))
	if p == nil || !strings.Contains(p.whyIdentity, "its checkpoint is of another kind of log") {
		t.Errorf("got %+v, want the entry refused", p)
	}
}

// sumNamed returns a hash in hexadecimal; of an unknown one, that of SHA-256.
func sumNamed(hash string, data []byte) string {
	switch hash {
	case "sha384":
		sum := sha512.Sum384(data)
		return hex.EncodeToString(sum[:])
	case "sha512":
		sum := sha512.Sum512(data)
		return hex.EncodeToString(sum[:])
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
