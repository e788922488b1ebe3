package notarykeys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/countersign-dev/countersign/internal/keyid"
)

// Roles of keys that a repository always has. Every other role is the name of a signer.
const (
	RoleRoot      = "root"
	RoleTargets   = "targets"
	RoleSnapshot  = "snapshot"
	RoleTimestamp = "timestamp"
)

// Key describes a private key of the store. It never holds the private key itself.
type Key struct {
	// ID is the canonical key ID, by which metadata lists the key: also where the metadata has it
	// in a certificate. Until the key is unlocked, it is what the name of the file says.
	ID string
	// Role is the header "role" of the file: root, targets, snapshot, timestamp, or the name of a
	// signer such as "ci", whose delegation is targets/ci. Clients find a delegation's key by its
	// ID; its role is only a label, and may be empty.
	Role string
	// GUN is the repository of a targets, snapshot or timestamp key. Other keys serve any
	// repository.
	GUN string
	// Encrypted says whether a passphrase protects the key.
	Encrypted bool
	// Public is the public key. It is nil for an encrypted key: see Store.Unlock.
	Public crypto.PublicKey
	// File is the path of the file.
	File string
	// Fault says why the file cannot be used; nil if it can. A key with a fault is only listed.
	Fault error
}

// PublicPEM returns the public key as docker trust writes it to a file NAME.pub: in PKIX form, with
// the role as a header. The key must have been unlocked, or not be encrypted.
func (k Key) PublicPEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.Public)
	if err != nil {
		return nil, fmt.Errorf("encoding the public key of %s: %w", k.ID, err)
	}
	headers := map[string]string{headerRole: k.Role}
	if k.Role == "" {
		headers = nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Headers: headers, Bytes: der}), nil
}

// Signer is an unlocked key. The caller closes it as soon as it has signed.
type Signer struct {
	// Key is the key's description. Public is set.
	Key
	// der is the private key in PKCS #8. Close overwrites it.
	der []byte
}

// newSigner takes over der.
func newSigner(k Key, der []byte) (*Signer, error) {
	private, err := parsePrivate(der)
	if err != nil {
		return nil, err
	}
	k.Public = private.Public()
	if _, k.ID, err = keyid.Canonical(k.Public); err != nil {
		return nil, err
	}
	return &Signer{Key: k, der: der}, nil
}

// Method returns the name of the signature method, as metadata has it: ecdsa, rsapss or eddsa.
func (s *Signer) Method() string {
	switch s.Public.(type) {
	case *rsa.PublicKey:
		return "rsapss"
	case ed25519.PublicKey:
		return "eddsa"
	default:
		return "ecdsa"
	}
}

// Sign returns the signature over a message, in the encoding of Method before base64. The private
// key is decoded for this one signature.
func (s *Signer) Sign(message []byte) ([]byte, error) {
	if s.der == nil {
		return nil, fmt.Errorf("key %s is closed", s.ID)
	}
	private, err := parsePrivate(s.der)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(message)
	switch k := private.(type) {
	case *ecdsa.PrivateKey:
		// Raw R||S, each as long as the curve.
		r, v, err := ecdsa.Sign(rand.Reader, k, sum[:])
		if err != nil {
			return nil, fmt.Errorf("signing with key %s: %w", s.ID, err)
		}
		size := (k.Curve.Params().BitSize + 7) / 8
		sig := make([]byte, 2*size)
		r.FillBytes(sig[:size])
		v.FillBytes(sig[size:])
		return sig, nil
	case *rsa.PrivateKey:
		sig, err := rsa.SignPSS(rand.Reader, k, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: sha256.Size})
		if err != nil {
			return nil, fmt.Errorf("signing with key %s: %w", s.ID, err)
		}
		return sig, nil
	case ed25519.PrivateKey:
		return ed25519.Sign(k, message), nil
	default:
		return nil, fmt.Errorf("keys of type %T cannot sign", private)
	}
}

// Certify signs a certificate with the key. Root certificates of a repository are self-signed.
func (s *Signer) Certify(template *x509.Certificate) ([]byte, error) {
	if s.der == nil {
		return nil, fmt.Errorf("key %s is closed", s.ID)
	}
	private, err := parsePrivate(s.der)
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
}

// Close overwrites the private key. The signer cannot sign afterwards.
func (s *Signer) Close() {
	clear(s.der)
	s.der = nil
}
