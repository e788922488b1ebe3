package notarysign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

const (
	minRSABits = 2048
	// notBeforeLeeway lets machines whose clock is behind read a new certificate.
	serialBits = 128
)

// Keys is a key store. IDs are canonical key IDs: hashes of the public key, also for a key with a
// certificate.
type Keys interface {
	// IDs returns the keys of a role. For root keys and delegations the repository is empty, and
	// the role of a delegation is the name of its signer.
	IDs(role, repository string) ([]string, error)
	// Has reports whether the store has the private key with an ID.
	Has(id string) bool
	// Open decrypts a private key.
	Open(id string) (crypto.Signer, error)
	// Create makes a private key and stores it, before anything is published that depends on it.
	Create(role, repository string) (id string, err error)
	// Remove removes a private key that nothing depends on.
	Remove(id string) error
}

// PublicKey is the public key of a signer, with the type and the value that metadata has.
type PublicKey struct {
	metadata  metadataKey
	canonical string
}

// ID returns the canonical key ID, which Docker and the notary client show.
func (k PublicKey) ID() string { return k.canonical }

// metadataID returns the ID that signatures and roles use.
func (k PublicKey) metadataID() string { return k.metadata.id() }

func (k metadataKey) id() string { return hashKey(k.Type, k.Value.Public) }

// hashKey returns the SHA-256 of the canonical JSON of a public key.
func hashKey(kind string, public []byte) string {
	sum := sha256.Sum256(fmt.Appendf(nil, `{"keytype":"%s","keyval":{"private":null,"public":"%s"}}`,
		kind, base64.StdEncoding.EncodeToString(public)))
	return hex.EncodeToString(sum[:])
}

func newMetadataKey(kind string, public []byte) metadataKey {
	k := metadataKey{Type: kind}
	k.Value.Public = public
	return k
}

// publicKeyOf returns the metadata of a bare public key.
func publicKeyOf(key crypto.PublicKey) (PublicKey, error) {
	kind, value, err := bareKey(key)
	if err != nil {
		return PublicKey{}, err
	}
	return PublicKey{metadata: newMetadataKey(kind, value), canonical: hashKey(kind, value)}, nil
}

func bareKey(key crypto.PublicKey) (kind string, value []byte, err error) {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return "ed25519", key, nil
	case *ecdsa.PublicKey:
		kind = "ecdsa"
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits {
			return "", nil, fmt.Errorf("an RSA key of %d bits; it must have at least %d", bits, minRSABits)
		}
		kind = "rsa"
	default:
		return "", nil, fmt.Errorf("keys of type %T cannot sign for a Notary server", key)
	}
	value, err = x509.MarshalPKIXPublicKey(key)
	return kind, value, err
}

// ParsePublicKey reads a public key or a certificate in PEM, the argument of "signer add".
func ParsePublicKey(text []byte, now time.Time) (PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return PublicKey{}, errors.New("not PEM; expected a public key, as 'trust key generate' writes it")
	}
	switch {
	case block.Type == "PUBLIC KEY":
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return PublicKey{}, fmt.Errorf("not a public key in PKIX form: %w", err)
		}
		return publicKeyOf(key)
	case block.Type == "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return PublicKey{}, fmt.Errorf("not a certificate: %w", err)
		}
		if now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
			return PublicKey{}, fmt.Errorf("the certificate is valid from %s to %s, so not today",
				cert.NotBefore.UTC().Format(time.DateOnly), cert.NotAfter.UTC().Format(time.DateOnly))
		}
		return certifiedKey(cert)
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return PublicKey{}, errors.New("this is a private key; give the public key, and keep this file secret")
	}
	return PublicKey{}, fmt.Errorf("PEM block %q is neither a public key nor a certificate", block.Type)
}

// certifiedKey returns the metadata of a key with its certificate.
func certifiedKey(cert *x509.Certificate) (PublicKey, error) {
	bare, err := publicKeyOf(cert.PublicKey)
	if err != nil {
		return PublicKey{}, err
	}
	if bare.metadata.Type == "ed25519" {
		return PublicKey{}, errors.New("the format has no certificates of ed25519 keys")
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	return PublicKey{metadata: newMetadataKey(bare.metadata.Type+"-x509", text), canonical: bare.canonical}, nil
}

// read returns the key with its canonical ID, and the certificate of an x509 key.
func (k metadataKey) read() (PublicKey, *x509.Certificate, error) {
	public := PublicKey{metadata: k, canonical: k.id()}
	if !strings.HasSuffix(k.Type, "-x509") {
		if block, _ := pem.Decode(k.Value.Public); block != nil && k.Type == "rsa" {
			public.canonical = hashKey(k.Type, block.Bytes) // Python clients encode RSA keys as PEM
		}
		return public, nil, nil
	}
	block, _ := pem.Decode(k.Value.Public)
	if block == nil {
		return public, nil, errors.New("the key has no certificate in PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return public, nil, fmt.Errorf("reading the certificate of a key: %w", err)
	}
	bare, err := publicKeyOf(cert.PublicKey)
	public.canonical = bare.canonical
	return public, cert, err
}

// rootCertificate makes the certificate of a root key. Its common name binds the repository.
func rootCertificate(key crypto.Signer, repository string, now time.Time) (PublicKey, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return PublicKey{}, fmt.Errorf("making a serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: repository},
		NotBefore: now, NotAfter: now.Add(rootLifetime),
		KeyUsage:    x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return PublicKey{}, fmt.Errorf("making the certificate of the root key: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return PublicKey{}, err
	}
	return certifiedKey(cert)
}

// sign signs a message with the method of the key's type. Every method hashes with SHA-256.
func sign(key crypto.Signer, message []byte) (method string, sig []byte, err error) {
	sum := sha256.Sum256(message)
	switch public := key.Public().(type) {
	case ed25519.PublicKey:
		sig, err = key.Sign(rand.Reader, message, crypto.Hash(0))
		return "eddsa", sig, err
	case *rsa.PublicKey:
		sig, err = key.Sign(rand.Reader, sum[:], &rsa.PSSOptions{SaltLength: sha256.Size, Hash: crypto.SHA256})
		return "rsapss", sig, err
	case *ecdsa.PublicKey:
		der, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
		if err != nil {
			return "", nil, err
		}
		sig, err = rawSignature(der, (public.Curve.Params().BitSize+7)/8)
		return "ecdsa", sig, err
	}
	return "", nil, fmt.Errorf("keys of type %T cannot sign for a Notary server", key.Public())
}

// rawSignature returns R and S of an ECDSA signature, each of the size of the curve.
func rawSignature(der []byte, size int) ([]byte, error) {
	var parts struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &parts); err != nil || len(rest) > 0 {
		return nil, errors.New("the key made no signature in ASN.1")
	}
	sig := make([]byte, 2*size)
	parts.R.FillBytes(sig[:size])
	parts.S.FillBytes(sig[size:])
	return sig, nil
}
