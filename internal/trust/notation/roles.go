package notation

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/cabundle"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxCertificates bounds the distinct certificates of a trust root. Each certificate of each
	// signature is compared with them.
	maxCertificates = 256
	// maxRSABits bounds the time that one check of a signature takes, which otherwise could be
	// seconds.
	maxRSABits = 8192
)

// role says whose certificates may sign for a role of a policy.
type role struct {
	name      string
	threshold int
	store     map[string]bool // of the certificates, by their DER
	any       bool            // every certificate of these CAs
	subjects  []subject
}

// roles are the roles of a trust root.
type roles struct {
	all          []role
	fingerprints []string        // of the certificates' keys, sorted
	revoked      map[string]bool // IDs of keys
	authorities  *x509.CertPool  // of timestamps; nil: none
}

// newRoles compiles the roles of a TrustRoot. notes says which certificates do not count. The error
// is a *trust.Fault and names the field.
func newRoles(spec *v1alpha1.TrustRootSpec, material trust.Material) (r *roles, notes []string, err error) {
	r = &roles{revoked: map[string]bool{}}
	distinct, ids := map[string]bool{}, map[string]bool{}
	for i := range spec.Notation.Roles {
		one, field := &spec.Notation.Roles[i], fmt.Sprintf("spec.notation.roles[%d]", i)
		compiled := role{
			name: string(one.Name), threshold: int(max(one.Threshold, 1)), store: map[string]bool{},
		}
		for _, p := range pems(field, one, material) {
			bundle, err := cabundle.Read([]byte(p.data), maxCertificates, acceptAnchor)
			if err != nil {
				return nil, nil, trust.NewFault(v1alpha1.ReasonInvalidKey, "%s: %w", p.field, err)
			}
			for _, skipped := range bundle.Skipped {
				notes = append(notes, fmt.Sprintf("%s: skipped %s", p.field, skipped))
			}
			for _, cert := range bundle.Certificates {
				compiled.store[string(cert.Raw)], distinct[string(cert.Raw)], ids[keyID(cert)] = true, true, true
			}
		}
		if compiled.any, compiled.subjects, err = identities(field, one.Identities); err != nil {
			return nil, nil, err
		}
		r.all = append(r.all, compiled)
	}
	if len(distinct) > maxCertificates {
		return nil, nil, trust.NewFault(v1alpha1.ReasonInvalidSpec,
			"spec.notation.roles: %d distinct certificates; at most %d may be listed", len(distinct), maxCertificates)
	}
	r.fingerprints = slices.Sorted(maps.Keys(ids))
	for _, id := range spec.RevokedKeys {
		r.revoked[string(id)] = true
	}
	more, err := r.readAuthorities(spec.Notation, material)
	return r, append(notes, more...), err
}

// identities compiles the identities of a role.
func identities(field string, all []v1alpha1.CertificateSubject) (every bool, subjects []subject, err error) {
	if len(all) == 0 {
		return false, nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "%s.identities: at least one is needed", field)
	}
	for i, text := range all {
		if text == anySubject {
			every = true
			continue
		}
		s, err := parseSubject(string(text))
		if err != nil {
			return false, nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "%s.identities[%d]: %w", field, i, err)
		}
		subjects = append(subjects, s)
	}
	return every, subjects, nil
}

// acceptAnchor refuses a certificate that no chain can rest on: one that is neither a CA nor
// self-signed.
func acceptAnchor(cert *x509.Certificate) error {
	if err := checkSize(cert); err != nil {
		return err
	}
	if cert.BasicConstraintsValid && cert.IsCA {
		return nil
	}
	if !bytes.Equal(cert.RawSubject, cert.RawIssuer) ||
		cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil {
		return errors.New(
			"it is neither a CA nor self-signed; give the CA that issued it, and its subject in identities",
		)
	}
	return nil
}

// checkSize refuses a key that takes too long to verify with.
func checkSize(cert *x509.Certificate) error {
	if k, ok := cert.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() > maxRSABits {
		return fmt.Errorf("its RSA key has %d bits, more than %d", k.N.BitLen(), maxRSABits)
	}
	return nil
}

// readAuthorities compiles the timestamp authorities.
func (r *roles) readAuthorities(spec *v1alpha1.NotationSpec, material trust.Material) (notes []string, err error) {
	data, field := string(spec.TimestampAuthorities), "spec.notation.timestampAuthorities"
	if from := spec.TimestampAuthoritiesFrom; from != nil {
		data = material[*from]
		field = fmt.Sprintf("%sFrom (%s %s, entry %s)", field, from.Kind, from.Name, from.Key)
	} else if data == "" {
		return nil, nil
	}
	bundle, err := cabundle.Read([]byte(data), maxCertificates, acceptAnchor)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidKey, "%s: %w", field, err)
	}
	for _, skipped := range bundle.Skipped {
		notes = append(notes, fmt.Sprintf("%s: skipped %s", field, skipped))
	}
	r.authorities = bundle.Pool()
	return notes, nil
}

// certificatePEM is PEM with its origin, so that an error can name the field.
type certificatePEM struct{ field, data string }

// pems joins inline certificates and those of Secrets and ConfigMaps.
func pems(field string, of *v1alpha1.NotationRole, material trust.Material) []certificatePEM {
	all := make([]certificatePEM, 0, len(of.Certificates)+len(of.CertificatesFrom))
	for i, p := range of.Certificates {
		all = append(all, certificatePEM{field: fmt.Sprintf("%s.certificates[%d]", field, i), data: string(p)})
	}
	for i, s := range of.CertificatesFrom {
		origin := fmt.Sprintf("%s.certificatesFrom[%d] (%s %s, entry %s)", field, i, s.Kind, s.Name, s.Key)
		all = append(all, certificatePEM{field: origin, data: material[s]})
	}
	return all
}

// keyID is the hexadecimal SHA-256 of the DER of a certificate's public key. It is encoded anew:
// one key has one ID, whatever certificate it is in and however that encodes it.
func keyID(cert *x509.Certificate) string {
	der, err := x509.MarshalPKIXPublicKey(cert.PublicKey)
	if err != nil {
		der = cert.RawSubjectPublicKeyInfo // of a type that makes no signature here
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// anchor returns the position of the topmost certificate of a chain that the role's trust store
// has. Below it, each certificate was issued in its name. ok is false if it has none.
func (r *role) anchor(chain []*x509.Certificate) (at int, ok bool) {
	for i := len(chain) - 1; i >= 0; i-- {
		if r.store[string(chain[i].Raw)] {
			return i, true
		}
	}
	return 0, false
}

// names reports whether a signing certificate has one of the role's identities.
func (r *role) names(leaf *x509.Certificate) bool {
	return r.any || slices.ContainsFunc(r.subjects, func(s subject) bool { return s.within(leaf.Subject) })
}

// named returns the roles of these names that the trust root lists.
func (r *roles) named(names []string) []*role {
	var some []*role
	for i := range r.all {
		if slices.Contains(names, r.all[i].name) {
			some = append(some, &r.all[i])
		}
	}
	return some
}

// revokedIn returns the first certificate of a chain whose key spec.revokedKeys lists; nil: none.
func (r *roles) revokedIn(chain []*x509.Certificate) *x509.Certificate {
	for _, cert := range chain {
		if r.revoked[keyID(cert)] {
			return cert
		}
	}
	return nil
}
