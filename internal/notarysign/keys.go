package notarysign

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/keyid"
	"github.com/countersign-dev/countersign/internal/notarykeys"
)

// serialBits is the size of the serial number of a certificate.
const serialBits = 128

// Keys is a key store. *notarykeys.Store implements it, and describes the methods.
type Keys interface {
	Find(role, gun string) ([]notarykeys.Key, error)
	Get(id string) (notarykeys.Key, error)
	Unlock(ctx context.Context, id string) (*notarykeys.Signer, error)
	Add(ctx context.Context, signer *notarykeys.Signer) error
	Remove(id string) error
}

var _ Keys = (*notarykeys.Store)(nil)

// PublicKey is the public key of a signer, as metadata holds it.
type PublicKey struct {
	metadata  metadataKey
	canonical string
}

// ID returns the canonical key ID, which Docker and the notary client show.
func (k PublicKey) ID() string { return k.canonical }

// metadataID returns the ID that signatures and roles use.
func (k PublicKey) metadataID() string { return k.metadata.id() }

func (k metadataKey) id() string { return keyid.Of(k.Type, k.Value.Public) }

func newMetadataKey(kind string, public []byte) metadataKey {
	k := metadataKey{Type: kind}
	k.Value.Public = public
	return k
}

// bareKey returns a public key without a certificate.
func bareKey(key crypto.PublicKey) (PublicKey, error) {
	kind, value, err := keyid.Encode(key)
	if err != nil {
		return PublicKey{}, err
	}
	return PublicKey{metadata: newMetadataKey(kind, value), canonical: keyid.Of(kind, value)}, nil
}

// certifiedKey returns the key of a certificate, with the certificate.
func certifiedKey(cert *x509.Certificate) (PublicKey, error) {
	bare, err := bareKey(cert.PublicKey)
	if err != nil {
		return PublicKey{}, err
	}
	if bare.metadata.Type == keyid.Ed25519 {
		return PublicKey{}, errors.New("the format has no certificates of ed25519 keys")
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	return PublicKey{metadata: newMetadataKey(bare.metadata.Type+"-x509", text), canonical: bare.canonical}, nil
}

// ParsePublicKey reads a public key or a certificate in PEM.
func ParsePublicKey(text []byte, now time.Time) (PublicKey, error) {
	block, _ := pem.Decode(text)
	switch {
	case block == nil:
		return PublicKey{}, errors.New("it is not PEM; give a public key, as 'trust key generate' writes it")
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return PublicKey{}, errors.New("it is a private key; give the public key, and keep this file secret")
	case block.Type == "PUBLIC KEY":
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return PublicKey{}, errors.New("it is not a public key in PKIX form; export it again")
		}
		return bareKey(key)
	case block.Type == "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return PublicKey{}, errors.New("it is not a readable certificate")
		}
		if now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
			return PublicKey{}, fmt.Errorf("the certificate is valid from %s to %s, and not today; renew it",
				cert.NotBefore.UTC().Format(time.DateOnly), cert.NotAfter.UTC().Format(time.DateOnly))
		}
		return certifiedKey(cert)
	}
	return PublicKey{}, fmt.Errorf("PEM block %q is neither a public key nor a certificate", block.Type)
}

// read returns the key with its canonical ID, and the certificate of an x509 key.
func (k metadataKey) read() (PublicKey, *x509.Certificate, error) {
	public := PublicKey{metadata: k, canonical: k.id()}
	block, _ := pem.Decode(k.Value.Public)
	switch {
	case k.Type == keyid.RSA && block != nil: // Python clients encode RSA keys as PEM
		public.canonical = keyid.Of(k.Type, block.Bytes)
		return public, nil, nil
	case !strings.HasSuffix(k.Type, "-x509"):
		return public, nil, nil
	case block == nil:
		return public, nil, errors.New("a key has no certificate in PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return public, nil, fmt.Errorf("reading the certificate of a key: %w", err)
	}
	_, public.canonical, err = keyid.Canonical(cert.PublicKey)
	return public, cert, err
}

// rootCertificate makes the certificate of a root key. Its common name binds the repository.
func rootCertificate(key *notarykeys.Signer, repository string, now time.Time) (PublicKey, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return PublicKey{}, fmt.Errorf("making a serial number: %w", err)
	}
	der, err := key.Certify(&x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: repository},
		NotBefore: now, NotAfter: now.Add(rootLifetime),
		KeyUsage:    x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, BasicConstraintsValid: true,
	})
	if err != nil {
		return PublicKey{}, fmt.Errorf("making the certificate of the root key: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return PublicKey{}, fmt.Errorf("making the certificate of the root key: %w", err)
	}
	return certifiedKey(cert)
}
