package sigstore

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/countersign-dev/countersign/internal/trust/sigstore/identity"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/trustedroot"
)

// oidSAN is the extension with the subject alternative name. It is critical in the certificates of
// Sigstore, whose subject is otherwise empty, and it is the identity that is read.
const oidSAN = "2.5.29.17"

// verifyHolder returns whom a certificate was issued to, by an authority of the trusted root at any
// time. The error is the rest of a sentence that begins with the signature.
func verifyHolder(m *material, trusted *trustedroot.Root) (identity.Identity, error) {
	m.leaf.UnhandledCriticalExtensions = slices.DeleteFunc(m.leaf.UnhandledCriticalExtensions,
		func(id asn1.ObjectIdentifier) bool { return id.String() == oidSAN })
	id, err := identity.Of(m.leaf)
	if err != nil {
		return identity.Identity{}, fmt.Errorf("has a certificate that %w", err)
	}
	if len(m.chains(trusted, m.leaf.NotBefore, true)) == 0 {
		return identity.Identity{}, errors.New("has a certificate of no authority of the trusted root")
	}
	return id, nil
}

// chains returns the chains from the certificate to the authorities of the trusted root, each of
// which must be valid at a time. With anyTime, the period of an authority is not compared: the
// signature is that of a known authority, whatever else is wrong with it.
func (m *material) chains(trusted *trustedroot.Root, at time.Time, anyTime bool) [][]*x509.Certificate {
	var all [][]*x509.Certificate
	for _, ca := range trusted.FulcioCertificateAuthorities() {
		fulcio, ok := ca.(*root.FulcioCertificateAuthority)
		if !ok {
			continue
		}
		with := *fulcio
		with.Intermediates = slices.Concat(fulcio.Intermediates, m.intermediates)
		if anyTime {
			with.ValidityPeriodStart, with.ValidityPeriodEnd = time.Time{}, time.Time{}
		}
		chains, err := with.Verify(m.leaf, at)
		if err != nil {
			continue
		}
		for _, chain := range chains {
			if len(chain) <= trustedroot.MaxChain {
				all = append(all, chain)
			}
		}
	}
	return all
}

// verifyCertificate verifies that the certificate was valid at each of the verified times, that a
// log of certificates of the trusted root lists it, and that no key of its chain is revoked. The
// error is the rest of a sentence that begins with the identity.
func verifyCertificate(m *material, times []time.Time, revoked map[string]bool, trusted *trustedroot.Root) error {
	var chains [][]*x509.Certificate
	for _, at := range times {
		if at.Before(m.leaf.NotBefore) || at.After(m.leaf.NotAfter) {
			return fmt.Errorf("but its certificate is valid from %s to %s, and the verified time is %s",
				shownTime(m.leaf.NotBefore), shownTime(m.leaf.NotAfter), shownTime(at))
		}
		if chains = m.chains(trusted, at, false); len(chains) == 0 {
			return fmt.Errorf("but no authority of the trusted root could issue its certificate at the verified "+
				"time, %s", shownTime(at))
		}
		if chains = slices.DeleteFunc(chains, func(chain []*x509.Certificate) bool {
			return slices.ContainsFunc(chain, func(cert *x509.Certificate) bool { return isRevoked(cert, revoked) })
		}); len(chains) == 0 {
			return errors.New("and spec.revokedKeys lists a key of its certificate's chain")
		}
	}
	if !trusted.ListsCT() {
		return nil
	}
	if err := verify.VerifySignedCertificateTimestamp(chains, 1, trusted); err != nil {
		return errors.New("but no certificate transparency log of the trusted root lists its certificate")
	}
	return nil
}

// isRevoked reports whether the key of a certificate is revoked. The certificate may have encoded
// it in another way than a file with the key does.
func isRevoked(cert *x509.Certificate, revoked map[string]bool) bool {
	if len(revoked) == 0 {
		return false
	}
	k, err := newKey(cert.PublicKey)
	return err != nil || revoked[k.id] || revoked[hexSHA256(cert.RawSubjectPublicKeyInfo)]
}

func shownTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }
