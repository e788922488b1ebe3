// Package trustedroot reads the trusted root of a Sigstore instance: the certificate authorities,
// the transparency logs and the timestamp authorities that its signatures are verified with.
//
// A trusted root is configuration: it comes from the administrator, or from a repository whose
// metadata was verified. It is bounded all the same, since each signature is compared with all that
// it lists.
package trustedroot

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/countersign-dev/countersign/internal/jsonscan"
	"github.com/countersign-dev/countersign/internal/text"
)

const (
	// MaxSize bounds a trusted root, in bytes. That of the public instance has 7 KiB.
	MaxSize = 256 << 10
	// maxValues bounds its JSON values.
	maxValues = 16 << 10
	// maxAuthorities bounds the authorities of each kind, and maxLogs the logs.
	maxAuthorities, maxLogs = 16, 32
	// MaxChain bounds a chain of certificates, with leaf and root.
	MaxChain = 10
	// maxRSABits bounds the time of a signature check.
	minRSABits, maxRSABits = 2048, 8192
	// maxShown bounds what messages show of a text, in bytes.
	maxShown = 100
)

// Root is a trusted root. It is immutable and safe for concurrent use.
type Root struct {
	*root.TrustedRoot
	id      string
	listsCT bool
}

// ID is the hexadecimal SHA-256 of the JSON. Two roots with the same ID are the same.
func (r *Root) ID() string { return r.id }

// ListsCT reports whether it lists certificate transparency logs, even if all of them are revoked:
// each certificate then needs the timestamp of one.
func (r *Root) ListsCT() bool { return r.listsCT }

// Parse reads a trusted_root.json. The error does not name the field.
func Parse(data []byte) (*Root, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("is larger than the %d KiB that are read", MaxSize>>10)
	}
	if n, ok := jsonscan.Count(data, maxValues); !ok || n == maxValues {
		return nil, errors.New("is not JSON, or has too many values")
	}
	parsed, err := root.NewTrustedRootFromJSON(data)
	if err != nil {
		return nil, fmt.Errorf("is no trusted root: %s", text.Cut(err.Error(), 2*maxShown))
	}
	sum := sha256.Sum256(data)
	r := &Root{TrustedRoot: parsed, id: hex.EncodeToString(sum[:]), listsCT: len(parsed.CTLogs()) > 0}
	if err := r.check(); err != nil {
		return nil, err
	}
	return r, nil
}

// check refuses what would make verification slow, or ambiguous.
func (r *Root) check() error {
	if len(r.FulcioCertificateAuthorities()) > maxAuthorities || len(r.TimestampingAuthorities()) > maxAuthorities {
		return fmt.Errorf("has more than %d authorities of one kind", maxAuthorities)
	}
	if len(r.RekorLogs()) > maxLogs || len(r.CTLogs()) > maxLogs {
		return fmt.Errorf("has more than %d logs of one kind", maxLogs)
	}
	for _, ca := range r.FulcioCertificateAuthorities() {
		fulcio, ok := ca.(*root.FulcioCertificateAuthority)
		if !ok {
			return errors.New("has a certificate authority of an unknown kind")
		}
		if err := checkChain("certificate authority", fulcio.URI, fulcio.Root, fulcio.Intermediates); err != nil {
			return err
		}
	}
	for _, tsa := range r.TimestampingAuthorities() {
		authority, ok := tsa.(*root.SigstoreTimestampingAuthority)
		if !ok {
			return errors.New("has a timestamp authority of an unknown kind")
		}
		chain := authority.Intermediates
		if authority.Leaf != nil {
			chain = append(slices.Clone(chain), authority.Leaf)
		}
		if err := checkChain("timestamp authority", authority.URI, authority.Root, chain); err != nil {
			return err
		}
	}
	for _, logs := range []map[string]*root.TransparencyLog{r.RekorLogs(), r.CTLogs()} {
		for id, log := range logs {
			if err := checkKey(log.PublicKey); err != nil {
				return fmt.Errorf("has the log %s, whose key %w", text.Cut(id, maxShown), err)
			}
		}
	}
	return nil
}

func checkChain(kind, uri string, ca *x509.Certificate, rest []*x509.Certificate) error {
	name := fmt.Sprintf("the %s %q", kind, text.Cut(uri, maxShown))
	if ca == nil {
		return fmt.Errorf("has %s without the certificate of its root", name)
	}
	if len(rest)+1 > MaxChain {
		return fmt.Errorf("has %s with a chain of more than %d certificates", name, MaxChain)
	}
	for _, cert := range append(slices.Clone(rest), ca) {
		if err := checkKey(cert.PublicKey); err != nil {
			return fmt.Errorf("has %s with a certificate whose key %w", name, err)
		}
	}
	return nil
}

// checkKey refuses a key whose signatures take too long to verify, or prove nothing.
func checkKey(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return errors.New("is an ECDSA key on a curve other than P-256, P-384 and P-521")
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("is an RSA key of %d bits; it may have %d to %d", bits, minRSABits, maxRSABits)
		}
		return nil
	case ed25519.PublicKey:
		return nil
	}
	return errors.New("is of another type than ECDSA, RSA and Ed25519")
}

// Without returns the trusted root without the logs and timestamp authorities that have a revoked
// key, by the hexadecimal SHA-256 of the SubjectPublicKeyInfo. Certificate authorities remain: the
// chain of a signer shows which of their certificates is revoked.
func (r *Root) Without(revoked map[string]bool) *Root {
	if len(revoked) == 0 {
		return r
	}
	stamps := slices.DeleteFunc(slices.Clone(r.TimestampingAuthorities()), func(tsa root.TimestampingAuthority) bool {
		authority, ok := tsa.(*root.SigstoreTimestampingAuthority)
		return !ok || slices.ContainsFunc(append(slices.Clone(authority.Intermediates), authority.Root, authority.Leaf),
			func(cert *x509.Certificate) bool { return cert != nil && revoked[keyID(cert.PublicKey)] })
	})
	// NewTrustedRoot refuses only other media types.
	without, err := root.NewTrustedRoot(root.TrustedRootMediaType01, r.FulcioCertificateAuthorities(),
		logsWithout(r.CTLogs(), revoked), stamps, logsWithout(r.RekorLogs(), revoked))
	if err != nil {
		return &Root{TrustedRoot: &root.TrustedRoot{}, id: r.id, listsCT: r.listsCT}
	}
	return &Root{TrustedRoot: without, id: r.id, listsCT: r.listsCT}
}

func logsWithout(logs map[string]*root.TransparencyLog, revoked map[string]bool) map[string]*root.TransparencyLog {
	logs = maps.Clone(logs)
	maps.DeleteFunc(logs, func(_ string, log *root.TransparencyLog) bool { return revoked[keyID(log.PublicKey)] })
	return logs
}

// keyID returns the ID of a key, by which it can be revoked.
func keyID(public crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
