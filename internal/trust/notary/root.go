package notary

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// rootFile is a decoded root.json.
type rootFile struct {
	*envelope
	raw   []byte
	roles map[string]role
}

// decodeRoot decodes root.json with the keys and thresholds of its four roles.
func decodeRoot(raw []byte) (*rootFile, error) {
	e, err := decodeEnvelope(raw, "Root")
	if err != nil {
		return nil, err
	}
	roles, err := e.signed.Object("roles")
	if err != nil {
		return nil, err
	}
	names := []string{rootRole, timestampRole, snapshotRole, targetsRole}
	entries := make([]roleEntry, len(names))
	for i, name := range names {
		o, err := roles.Object(name)
		if err != nil {
			return nil, fmt.Errorf("role %s: %w", name, err)
		}
		if entries[i], err = decodeRoleEntry(o); err != nil {
			return nil, fmt.Errorf("role %s: %w", name, err)
		}
	}
	keys, err := decodeKeys(e.signed, maxRootKeys, entries...)
	if err != nil {
		return nil, err
	}
	f := &rootFile{envelope: e, raw: raw, roles: map[string]role{}}
	for i, name := range names {
		f.roles[name] = entries[i].role(keys)
	}
	return f, nil
}

// rootVerifier verifies the root files of one repository at one time.
type rootVerifier struct {
	*Root
	repository string
	at         time.Time
	grace      time.Duration   // for expired files that were verified before; 0 in a fetch
	usedKeys   map[string]bool // IDs of the keys that the result depends on; nil: not recorded
}

// isRootKey reports whether a root key counts. It must have a certificate, because nothing else in
// the metadata binds the repository. The leaf certificate must come first, be the only leaf, be for
// this repository and not be signed with SHA-1. Only an earlier root may have an expired
// certificate.
func (c rootVerifier) isRootKey(k *publicKey, earlier bool) bool {
	if !c.counts(k) || k.chain == nil {
		return false
	}
	leaf := k.chain[0]
	if leaf.IsCA || !commonNameIs(leaf.Subject.CommonName, c.repository) {
		return false
	}
	for _, issuer := range k.chain[1:] {
		if !issuer.IsCA {
			return false
		}
	}
	switch leaf.SignatureAlgorithm {
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.MD5WithRSA, x509.MD2WithRSA:
		return false
	}
	return earlier || !c.at.Before(leaf.NotBefore.Add(-clockLeeway)) && c.expiryCutoff().Before(leaf.NotAfter)
}

// expiryCutoff returns the time at which a file must not be expired: now, less the grace.
func (c rootVerifier) expiryCutoff() time.Time { return c.at.Add(-c.grace) }

// clockLeeway is how long before its start a certificate is accepted. Clients accept one day, for
// signers whose clock is ahead.
const clockLeeway = 24 * time.Hour

// commonNameIs reports whether a certificate's common name is the repository, or a prefix of it
// followed by "*".
func commonNameIs(commonName, repository string) bool {
	if prefix, ok := strings.CutSuffix(commonName, "*"); ok {
		return strings.HasPrefix(repository, prefix)
	}
	return commonName == repository
}

// isPinnedKey reports whether the TrustRoot pins a root key, by its ID or by the CA of its
// certificate.
func (c rootVerifier) isPinnedKey(k *publicKey, earlier bool) bool {
	if c.pins[k.canonical] {
		return true
	}
	if c.ca == nil {
		return false
	}
	at := c.at
	pool := x509.NewCertPool()
	for i, cert := range k.chain {
		if i > 0 {
			pool.AddCert(cert)
		}
		if (earlier || c.expiryCutoff().Before(cert.NotAfter)) && cert.NotAfter.Before(at) {
			at = cert.NotAfter
		}
	}
	if start := k.chain[0].NotBefore; at.Before(start) && start.Sub(at) <= clockLeeway {
		at = start
	}
	_, err := k.chain[0].Verify(x509.VerifyOptions{
		Roots: c.ca, Intermediates: pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err == nil
}

// selfSigned returns the signers of a root among the keys of its own root role. It fails if fewer
// than its threshold count.
func (c rootVerifier) selfSigned(f *rootFile, earlier bool) ([]*publicKey, error) {
	signers, err := f.verify(f.roles[rootRole], func(k *publicKey) bool { return c.isRootKey(k, earlier) })
	if err == nil {
		return signers, nil
	}
	if late, lateErr := f.verify(f.roles[rootRole],
		func(k *publicKey) bool { return c.isRootKey(k, true) }); lateErr == nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataExpired,
			"the certificate of root key %s is not valid at %s; the root must be rotated to a new certificate",
			late[0].canonical, c.at.Format(time.RFC3339))
	}
	if other := f.signers(f.roles[rootRole], c.counts); len(other) >= f.roles[rootRole].threshold {
		return nil, c.notRootKeys(other)
	}
	return nil, err
}

// notRootKeys returns why the signatures on a root do not count, although enough of its keys made
// them.
func (c rootVerifier) notRootKeys(signers []*publicKey) error {
	k := signers[max(0, slices.IndexFunc(signers, func(k *publicKey) bool { return !c.isRootKey(k, true) }))]
	if k.chain == nil {
		return fmt.Errorf(
			"is signed by root key %s, which has no certificate, so nothing binds it to this repository; "+
				"rotate the root to a key with a certificate", k.canonical)
	}
	return fmt.Errorf(
		"is signed by root key %s, whose certificate is not valid for this repository: its common name must be the "+
			"repository, it must not be a CA, nor be signed with SHA-1", k.canonical)
}

func (c rootVerifier) isSelfSigned(f *rootFile) bool {
	_, err := c.selfSigned(f, false)
	return err == nil
}

// isPinned reports whether a root may start the chain of trust: its own threshold of keys signed
// it, and one of them is pinned.
func (c rootVerifier) isPinned(f *rootFile, earlier bool) bool {
	signers, err := c.selfSigned(f, earlier)
	return err == nil && slices.ContainsFunc(signers, func(k *publicKey) bool { return c.isPinnedKey(k, earlier) })
}

// follows verifies that next is the version after prev, and that prev's threshold of keys signed
// it.
func (c rootVerifier) follows(prev, next *rootFile) error {
	if next.version != prev.version+1 {
		return fmt.Errorf("is version %d, but version %d was expected", next.version, prev.version+1)
	}
	if _, err := next.verify(prev.roles[rootRole],
		func(k *publicKey) bool { return c.isRootKey(k, true) }); err != nil {
		return fmt.Errorf("version %d does not follow from version %d: %w", next.version, prev.version, err)
	}
	return nil
}

// verifyChain verifies consecutive roots, oldest first. It returns the roots from the newest pinned
// one, or from trusted if that is earlier. trusted is the index of the root that was trusted
// before, or len(chain). Every step from it must hold, even if a later root is pinned.
func (c rootVerifier) verifyChain(chain []*rootFile, trusted int) ([]*rootFile, error) {
	found, err := c.verifyChainOnce(chain, trusted)
	if err == nil || len(c.revoked) == 0 {
		return found, err
	}
	if _, err := c.withoutRevocations().verifyChainOnce(chain, trusted); err != nil {
		return nil, err // the revocation is not the cause
	}
	return nil, c.revokedRoot(chain)
}

// verifyChainOnce is verifyChain without the search for a revoked key.
func (c rootVerifier) verifyChainOnce(chain []*rootFile, trusted int) ([]*rootFile, error) {
	last := len(chain) - 1
	if _, err := c.selfSigned(chain[last], false); err != nil {
		return nil, err
	}
	from := last
	for from >= 0 && !c.isPinned(chain[from], from != last) {
		from--
	}
	if from < 0 {
		return nil, c.notPinned(chain[last])
	}
	from = min(from, trusted)
	for i := from; i < last; i++ {
		if _, err := c.selfSigned(chain[i], true); err != nil {
			return nil, fmt.Errorf("version %d: %w", chain[i].version, err)
		}
		if err := c.follows(chain[i], chain[i+1]); err != nil {
			return nil, err
		}
	}
	return chain[from:], chain[last].current(c.expiryCutoff())
}

// notPinned returns the fault of a root that no pin leads to.
func (c rootVerifier) notPinned(f *rootFile) error {
	return trust.NewFault(v1alpha1.ReasonRootNotPinned,
		"is signed by root key %s, which spec.notary.root of TrustRoot %q does not pin, and no earlier root that it "+
			"pins leads there; compare with 'docker trust inspect' before pinning it",
		c.rootKeys(f), c.name)
}

// certificateExpiry returns when the newest root stops being valid because of expired certificates:
// too few signers are left for its threshold, or no pinned one.
func (c rootVerifier) certificateExpiry(chain []*rootFile) time.Time {
	f := chain[len(chain)-1]
	signers, err := c.selfSigned(f, false)
	if err != nil {
		return c.at
	}
	var all, pinned []time.Time
	for _, k := range signers {
		end := k.chain[0].NotAfter.UTC()
		all = append(all, end)
		if c.isPinnedKey(k, false) {
			pinned = append(pinned, end)
		}
	}
	end := latest(all, f.roles[rootRole].threshold)
	if len(chain) == 1 {
		end = earliest(end, latest(pinned, 1))
	}
	return end
}
