package notaryserver

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// KeyKind is the type of a signing key.
type KeyKind string

// The kinds of keys in Notary delegations.
const (
	ECDSA256 KeyKind = "ecdsa-p256"
	ECDSA384 KeyKind = "ecdsa-p384"
	RSA2048  KeyKind = "rsa-2048"
)

// SigningKey is the key pair of a signer.
type SigningKey struct {
	// KeyID is the canonical key ID.
	KeyID string
	// PrivatePEM is the private key, PKCS #8.
	PrivatePEM []byte
	// PublicPEM is the argument of "notary delegation add": a self-signed certificate, or a bare
	// public key.
	PublicPEM []byte
	// Signer is the private key.
	Signer crypto.Signer
}

// NewSigningKey makes a key. With a common name, PublicPEM is a self-signed certificate of that
// name, as Docker's tools make it; without one, a bare public key.
func NewSigningKey(kind KeyKind, commonName string) (*SigningKey, error) {
	var signer crypto.Signer
	var err error
	switch kind {
	case ECDSA256:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSA384:
		signer, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		err = errors.New("unknown kind")
	}
	if err != nil {
		return nil, fmt.Errorf("making a signing key of kind %q: %w", kind, err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, fmt.Errorf("encoding a signing key: %w", err)
	}
	public, err := encodePublic(signer.Public())
	if err != nil {
		return nil, err
	}
	key := &SigningKey{
		KeyID: canonicalKeyID(public), Signer: signer,
		PrivatePEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}
	key.PublicPEM = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public.der})
	if commonName == "" {
		return key, nil
	}
	if key.PublicPEM, err = tlstest.SelfSigned(commonName, signer); err != nil {
		return nil, err
	}
	return key, nil
}

// A publicKey is a public key in Notary's encodings. The key ID is a hash over raw.
type publicKey struct {
	kind     string
	der, raw []byte
}

func encodePublic(key crypto.PublicKey) (publicKey, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return publicKey{}, fmt.Errorf("encoding a public key: %w", err)
	}
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return publicKey{"ecdsa", der, der}, nil
	case *rsa.PublicKey:
		return publicKey{"rsa", der, der}, nil
	case ed25519.PublicKey:
		return publicKey{"ed25519", der, key}, nil
	}
	return publicKey{}, fmt.Errorf("no Notary encoding for a public key of type %T", key)
}

func certifiedKey(certificatePEM []byte) (publicKey, error) {
	block, _ := pem.Decode(certificatePEM)
	if block == nil {
		return publicKey{}, errors.New("not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return publicKey{}, err
	}
	return encodePublic(cert.PublicKey)
}
