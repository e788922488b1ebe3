package notary

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// testKey is a key pair, with its entry in signed metadata.
type testKey struct {
	id, canonical string
	keyType       string
	method        string
	public        []byte // the decoded value of "public"
	bare          []byte // PEM of the bare public key
	signer        crypto.Signer
}

// newKey creates a key of a type, with its usual method. commonName and mods apply to the
// certificate of an x509 type.
func newKey(t testing.TB, keyType, commonName string, mods ...func(*x509.Certificate)) *testKey {
	t.Helper()
	var signer crypto.Signer
	var err error
	switch strings.TrimSuffix(keyType, "-x509") {
	case "ecdsa":
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa":
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ed25519":
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return keyOf(t, signer, keyType, commonName, nil, nil, mods...)
}

// newRootKey creates a root key with a certificate for the test repository.
func newRootKey(t testing.TB) *testKey {
	t.Helper()
	return newKey(t, "ecdsa-x509", testGUN)
}

// keyOf wraps a key pair. issuer issues the certificate; if it is nil, the certificate is
// self-signed.
func keyOf(t testing.TB, signer crypto.Signer, keyType, commonName string, issuer *x509.Certificate,
	issuerKey crypto.Signer, mods ...func(*x509.Certificate)) *testKey {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	bareType, x509Type := strings.CutSuffix(keyType, "-x509")
	public := der
	if e, ok := signer.Public().(ed25519.PublicKey); ok {
		public = e
	}
	k := &testKey{keyType: keyType, signer: signer, canonical: testKeyID(bareType, public), public: public}
	k.bare = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	k.method = map[string]string{"ecdsa": "ecdsa", "rsa": "rsapss", "ed25519": "eddsa"}[bareType]
	if x509Type {
		k.public = newCertificate(t, signer, commonName, issuer, issuerKey, mods...)
	}
	k.id = testKeyID(keyType, k.public)
	return k
}

func newCertificate(t testing.TB, signer crypto.Signer, commonName string, issuer *x509.Certificate,
	issuerKey crypto.Signer, mods ...func(*x509.Certificate)) []byte {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: commonName},
		NotBefore: testNow().Add(-time.Hour), NotAfter: testNow().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		BasicConstraintsValid: true,
	}
	for _, mod := range mods {
		mod(tmpl)
	}
	if issuer == nil {
		issuer, issuerKey = tmpl, signer
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, issuer, signer.Public(), issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func testKeyID(keyType string, public []byte) string {
	sum := sha256.Sum256(
		fmt.Appendf(nil, `{"keytype":"%s","keyval":{"private":null,"public":"%s"}}`, keyType,
			base64.StdEncoding.EncodeToString(public)))
	return hex.EncodeToString(sum[:])
}

func (k *testKey) sign(t testing.TB, message []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(message)
	var sig []byte
	var err error
	switch k.method {
	case "eddsa":
		sig, err = k.signer.Sign(rand.Reader, message, crypto.Hash(0))
	case "ecdsa":
		key := k.signer.(*ecdsa.PrivateKey)
		var r, s *big.Int
		if r, s, err = ecdsa.Sign(rand.Reader, key, sum[:]); err == nil {
			size := (key.Curve.Params().BitSize + 7) / 8
			sig = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
		}
	case "rsapkcs1v15":
		sig, err = k.signer.Sign(rand.Reader, sum[:], crypto.SHA256)
	default:
		sig, err = k.signer.Sign(rand.Reader, sum[:], &rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA256})
	}
	if err != nil {
		t.Fatal(err)
	}
	return sig
}
