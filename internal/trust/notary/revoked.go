package notary

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// revokes reports whether spec.revokedKeys lists a key, by its canonical ID or by that which the
// metadata uses.
func (r *Root) revokes(k *publicKey) bool { return r.revoked[k.canonical] || r.revoked[k.id] }

// counts reports whether a key may count for anything, and notes that it was asked.
func (c rootVerifier) counts(k *publicKey) bool {
	if c.usedKeys != nil {
		c.usedKeys[k.canonical], c.usedKeys[k.id] = true, true
	}
	return !c.revokes(k)
}

// regardless returns the same rules with no key revoked: to find out what a revocation has changed,
// never to believe anything.
func (c rootVerifier) withoutRevocations() rootVerifier {
	all := *c.Root
	all.revoked = nil
	c.Root = &all
	return c
}

// revokedSigner returns a revoked key of a role that has signed the file; nil where there is none.
func (c rootVerifier) revokedSigner(e *envelope, r role) *publicKey {
	signers := e.signers(r, c.revokes)
	if len(signers) == 0 {
		return nil
	}
	return signers[0]
}

// revokedFile says that a file of a top-level role would be signed but for a revoked key; nil where
// that is not the reason.
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

// revokedRoot says which revoked key breaks a chain of roots that holds without the revocation.
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

// rootKeys lists the keys that signed a root.
func (c rootVerifier) rootKeys(f *rootFile) string {
	var ids []string
	for _, k := range f.signers(f.roles[rootRole], c.counts) {
		ids = append(ids, k.canonical)
	}
	return strings.Join(ids, ", ")
}

// restamped returns evidence of another Root as this one's, without verifying it again, where that
// would come to the same: the two differ in nothing but keys revoked or taken back, and verifying
// it depended on none of those. nil where it has to be verified. A revocation must take effect at
// once however many repositories are held, and most of them know nothing of the key.
func (r *Root) adopt(ev *evidence, at time.Time) *evidence {
	was := ev.root
	if was == nil || ev.raw == nil || !at.Before(ev.notAfter) || !r.equalButRevocations(was) {
		return nil
	}
	for id := range r.revoked {
		if !was.revoked[id] && ev.usedKey(id) {
			return nil
		}
	}
	for id := range was.revoked {
		if !r.revoked[id] && ev.usedKey(id) {
			return nil
		}
	}
	same := *ev
	same.root = r
	return &same
}

// differsByRevocation reports whether two Roots judge alike but for what they revoke.
func (r *Root) equalButRevocations(was *Root) bool {
	return r.name == was.name && maps.Equal(r.pins, was.pins) && slices.Equal(r.caFingerprints, was.caFingerprints) &&
		maps.Equal(r.roleNames, was.roleNames) && slices.EqualFunc(r.roles, was.roles, func(a, b mappedRole) bool {
		return a.role == b.role && a.threshold == b.threshold && slices.Equal(a.delegations, b.delegations) &&
			(a.keys == nil) == (b.keys == nil) && maps.Equal(a.keys, b.keys)
	})
}

// dependsOn reports whether verifying the evidence asked about a key, whatever the answer was.
func (e *evidence) usedKey(id string) bool {
	_, found := slices.BinarySearch(e.usedKeys, id)
	return found
}
