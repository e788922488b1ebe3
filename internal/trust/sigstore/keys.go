package sigstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/signature"
)

const (
	minRSABits = 2048
	// maxRSABits bounds the time of a signature check, which otherwise could take seconds.
	maxRSABits = 8192
)

// key is a public key that may sign for roles. It implements signature.Verifier for any of the
// schemes in which cosign and its libraries sign with such a key.
type key struct {
	// id is the hexadecimal SHA-256 of the DER of the SubjectPublicKeyInfo. One public key has one
	// ID, whatever certificate it came in.
	id      string
	public  crypto.PublicKey
	schemes []signature.Verifier
}

// parseKey reads a public key or a certificate of the configuration. Of a certificate only the key
// counts.
func parseKey(text string) (*key, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("not PEM; expected '-----BEGIN PUBLIC KEY-----' or '-----BEGIN CERTIFICATE-----'")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, errors.New("more than one PEM block; give each key as an entry of its own")
	}
	switch block.Type {
	case "PUBLIC KEY":
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, errors.New("is not a readable public key")
		}
		return newKey(public)
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("is not a readable certificate")
		}
		return newKey(cert.PublicKey)
	}
	return nil, fmt.Errorf("PEM block %q is neither a public key nor a certificate", block.Type)
}

func newKey(public crypto.PublicKey) (*key, error) {
	schemes, err := schemesOf(public)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, errors.New("is not a usable public key")
	}
	return &key{id: hexSHA256(der), public: public, schemes: schemes}, nil
}

func hexSHA256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// schemesOf returns a verifier of each scheme in which a key may have signed. For ECDSA on the
// larger curves, older clients hash with SHA-256 and newer ones with the hash of the curve's size.
// With an RSA key, cosign signs by PKCS #1 v1.5 with SHA-256, whatever the key's size. A key
// management service may use PSS, SHA-384 or SHA-512 instead.
func schemesOf(public crypto.PublicKey) ([]signature.Verifier, error) {
	var all []signature.Verifier
	var errs []error
	add := func(v signature.Verifier, err error) {
		all, errs = append(all, v), append(errs, err)
	}
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		own := map[elliptic.Curve]crypto.Hash{
			elliptic.P256(): crypto.SHA256, elliptic.P384(): crypto.SHA384, elliptic.P521(): crypto.SHA512,
		}
		hash, known := own[k.Curve]
		if !known {
			return nil, errors.New("is an ECDSA key on a curve other than P-256, P-384 and P-521")
		}
		add(signature.LoadECDSAVerifier(k, hash))
		if hash != crypto.SHA256 {
			add(signature.LoadECDSAVerifier(k, crypto.SHA256))
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return nil, fmt.Errorf("is an RSA key of %d bits; it may have %d to %d", bits, minRSABits, maxRSABits)
		}
		for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			add(signature.LoadRSAPKCS1v15Verifier(k, hash))
			add(signature.LoadRSAPSSVerifier(k, hash, nil))
		}
	case ed25519.PublicKey:
		add(signature.LoadED25519Verifier(k))
		add(signature.LoadED25519phVerifier(k))
	default:
		return nil, errors.New("is of another type than ECDSA, RSA and Ed25519")
	}
	return all, errors.Join(errs...)
}

// signed reports whether the key has made a signature over a message.
func (k *key) signed(message, sig []byte) bool {
	for _, scheme := range k.schemes {
		if scheme.VerifySignature(bytes.NewReader(sig), bytes.NewReader(message)) == nil {
			return true
		}
	}
	return false
}

// PublicKey implements signature.Verifier.
func (k *key) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) { return k.public, nil }

// VerifySignature implements signature.Verifier. It verifies the whole message: options, such as
// one that replaces the message by its digest, do not apply.
func (k *key) VerifySignature(sig, message io.Reader, _ ...signature.VerifyOption) error {
	s, err := io.ReadAll(sig)
	if err != nil {
		return err
	}
	m, err := io.ReadAll(message)
	if err != nil {
		return err
	}
	if !k.signed(m, s) {
		return errors.New("the key has not made this signature")
	}
	return nil
}

// ValidAtTime implements root.TimeConstrainedVerifier. A key counts until it is removed from the
// trust root, or revoked.
func (*key) ValidAtTime(time.Time) bool { return true }

// oneKey is trusted material with a single key. A bundle names its key only by a hint that nobody
// has signed, so the key is returned for any hint.
type oneKey struct {
	root.TrustedMaterial
	key *key
}

// PublicKeyVerifier implements root.TrustedMaterial.
func (o *oneKey) PublicKeyVerifier(string) (root.TimeConstrainedVerifier, error) { return o.key, nil }

// keyOnly returns trusted material with a key and nothing else.
func keyOnly(k *key) *oneKey { return &oneKey{TrustedMaterial: &root.BaseTrustedMaterial{}, key: k} }
