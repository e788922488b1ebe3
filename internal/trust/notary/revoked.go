package notary

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// revokes reports whether spec.revokedKeys lists a key, by its canonical ID or by the ID that the
// metadata uses.
func (r *Root) revokes(k *publicKey) bool { return r.revoked[k.canonical] || r.revoked[k.id] }

// counts reports whether a key may count, and records the key in usedKeys.
func (c rootVerifier) counts(k *publicKey) bool {
	if c.usedKeys != nil {
		c.usedKeys[k.canonical], c.usedKeys[k.id] = true, true
	}
	return !c.revokes(k)
}

// withoutRevocations returns the same verifier with no revoked keys. It finds out what a revocation
// changes; its results are never evidence.
func (c rootVerifier) withoutRevocations() rootVerifier {
	all := *c.Root
	all.revoked = nil
	c.Root = &all
	return c
}

// revokedSigner returns a revoked key of a role that has signed the file, or nil.
func (c rootVerifier) revokedSigner(e *envelope, r role) *publicKey {
	signers := e.signers(r, c.revokes)
	if len(signers) == 0 {
		return nil
	}
	return signers[0]
}

// revokedFile returns a fault if a file of a top-level role would reach its threshold with its
// revoked keys, and nil otherwise.
func (c rootVerifier) revokedFile(name string, e *envelope, r role) error {
	k := c.revokedSigner(e, r)
	if k == nil || len(e.signers(r, func(*publicKey) bool { return true })) < r.threshold {
		return nil
	}
	return trust.NewFault(v1alpha1.ReasonKeyRevoked,
		"is signed by key %s, which spec.revokedKeys of TrustRoot %q lists; nothing of this repository can be "+
			"verified until its %s key is replaced ('notary key rotate')",
		k.canonical, c.name, name)
}

// revokedRoot returns a fault that names the revoked key that breaks a chain of roots.
func (c rootVerifier) revokedRoot(chain []*rootFile) error {
	newest := chain[len(chain)-1]
	if _, err := c.selfSigned(newest, false); err != nil {
		if k := c.revokedSigner(newest.envelope, newest.roles[rootRole]); k != nil {
			return trust.NewFault(v1alpha1.ReasonKeyRevoked,
				"is signed by root key %s, which spec.revokedKeys of TrustRoot %q lists; nothing of this repository "+
					"can be verified until it has a root of another key and spec.notary.root pins that",
				k.canonical, c.name)
		}
		return err
	}
	for _, f := range slices.Backward(chain) {
		if k := c.revokedSigner(f.envelope, f.roles[rootRole]); k != nil {
			return trust.NewFault(v1alpha1.ReasonKeyRevoked,
				"follows from the pinned root only by root key %s, which spec.revokedKeys of TrustRoot %q lists; "+
					"compare root key %s with 'docker trust inspect' and pin it",
				k.canonical, c.name, c.rootKeys(newest))
		}
	}
	return c.notPinned(newest)
}

// rootKeys returns the IDs of the keys that signed a root.
func (c rootVerifier) rootKeys(f *rootFile) string {
	var ids []string
	for _, k := range f.signers(f.roles[rootRole], c.counts) {
		ids = append(ids, k.canonical)
	}
	return strings.Join(ids, ", ")
}

// adopt returns evidence of another Root as evidence of this one, without verifying it again. It
// returns nil unless the two Roots differ only in revoked keys, and the verification used none of
// those. So a revocation takes effect at once even with many repositories: most of them do not use
// the key.
func (r *Root) adopt(ev *evidence, at time.Time) *evidence {
	earlier := ev.root
	if earlier == nil || ev.raw == nil || !at.Before(ev.notAfter) || !r.equalButRevocations(earlier) {
		return nil
	}
	for id := range r.revoked {
		if !earlier.revoked[id] && ev.usedKey(id) {
			return nil
		}
	}
	for id := range earlier.revoked {
		if !r.revoked[id] && ev.usedKey(id) {
			return nil
		}
	}
	same := *ev
	same.root = r
	return &same
}

// equalButRevocations reports whether two Roots differ in nothing but revoked keys.
func (r *Root) equalButRevocations(earlier *Root) bool {
	return r.name == earlier.name && maps.Equal(r.pins, earlier.pins) &&
		slices.Equal(r.caFingerprints, earlier.caFingerprints) && maps.Equal(r.roleNames, earlier.roleNames) &&
		slices.EqualFunc(r.roles, earlier.roles, func(a, b mappedRole) bool {
			return a.role == b.role && a.threshold == b.threshold && slices.Equal(a.delegations, b.delegations) &&
				(a.keys == nil) == (b.keys == nil) && maps.Equal(a.keys, b.keys)
		})
}

// usedKey reports whether the verification of the evidence checked a key, whatever the result.
func (e *evidence) usedKey(id string) bool {
	_, found := slices.BinarySearch(e.usedKeys, id)
	return found
}
