package sigstore

import (
	"fmt"
	"slices"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/identity"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/trustedroot"
)

// proof is what one signature proves: who has made it, and at what verified time it existed. The
// zero value proves nothing.
type proof struct {
	// key is the ID of the public key that has made the signature: one that a role lists, or that
	// of a certificate of a trusted authority. Empty: no key that the trust root knows has.
	key string
	// listed says that a role lists the key itself.
	listed bool
	// identity is whom the certificate was issued to, by a trusted authority. Zero: there is no
	// such certificate.
	identity identity.Identity
	// time is the earliest time at which a log or a timestamp authority has seen the signature.
	// Zero: there is none.
	time time.Time
	// until is when the signature stops to count. Zero: never.
	until time.Time
	// whyKey and whyIdentity say why the signature does not count for its key or for its identity,
	// in the rest of a sentence that begins with the signer. Empty: it counts.
	whyKey, whyIdentity string
}

// signer returns the signer that a signature counts for in a role: the first of its keys, and then
// of its identities, that has made it.
func (r *role) signer(p *proof) (identity.Signer, bool) {
	if p.key == "" {
		return identity.Signer{}, false
	}
	if p.listed && p.whyKey == "" && r.lists(p.key) {
		return identity.Signer{Entry: "key " + p.key, Key: p.key, Until: p.until}, true
	}
	if i, ok := r.identities.Match(p.identity); ok && p.whyIdentity == "" {
		return identity.Signer{Entry: fmt.Sprintf("identity %d", i), Key: p.key, Until: p.until}, true
	}
	return identity.Signer{}, false
}

// known reports whether a role lists the signer, even if the signature does not count.
func (r *role) known(p *proof) bool {
	if p.key == "" {
		return false
	}
	_, ok := r.identities.Match(p.identity)
	return ok || p.listed && r.lists(p.key)
}

// prove verifies who has made a signature, and when. The error is a *trust.Fault: the trusted root
// that this needs could not be fetched.
func (v *verifier) prove(c *claim) (*proof, error) {
	p := &proof{}
	by := v.roles.signer(c)
	if by != nil {
		p.key, p.listed = by.id, true
	}
	root, fault := v.trustedRoot()
	if holder := v.certified(c, by); holder != nil {
		if fault != nil {
			return nil, fault
		}
		id, err := verifyHolder(c.material, root)
		if err != nil {
			p.whyIdentity = err.Error()
		} else {
			p.key, p.identity, by = holder.id, id, holder
		}
	} else if by == nil && c.material.certificateErr != nil {
		p.whyIdentity = c.material.certificateErr.Error()
	}
	if by == nil || !v.roles.known(p) {
		return p, nil
	}
	if fault != nil && (v.log == v1alpha1.TransparencyLogRequire || !c.material.timeless()) {
		return nil, fault
	}
	v.judgeTime(p, c, by, root)
	if v.roles.revoked[p.key] {
		p.whyKey = "and spec.revokedKeys lists that key"
	}
	return p, nil
}

// trustedRoot returns the trusted root, nil if there is none.
func (v *verifier) trustedRoot() (*trustedroot.Root, error) {
	if v.trusted == nil {
		return nil, nil
	}
	return v.trusted()
}

// certified returns the key of the certificate that a signature came with, if it has made the
// signature and identities count at all. by is the listed key that has made it, or nil.
func (v *verifier) certified(c *claim, by *key) *key {
	if c.material.leaf == nil || !v.roles.identified || v.trusted == nil {
		return nil
	}
	k, err := newKey(c.material.leaf.PublicKey)
	if err != nil || by != nil && by.id != k.id || by == nil && !c.signedBy(k) {
		return nil
	}
	return k
}

// judgeTime sets the verified time of a signature, and why it does not count without one or the
// other. Nothing that the spec says is needed for a signature without a trusted root.
func (v *verifier) judgeTime(p *proof, c *claim, by *key, root *trustedroot.Root) {
	if root == nil {
		return
	}
	stamps := verifyTimestamps(c, v.roles.revoked, root)
	l, err := verifyLogs(c, by, p.listed, root)
	if err == nil {
		err = inWindows(l.windows, stamps)
	}
	if err != nil {
		p.whyKey = "but " + err.Error()
		p.whyIdentity = p.whyKey
		return
	}
	times := stamps
	if v.log != v1alpha1.TransparencyLogIgnore {
		times = slices.Concat(stamps, l.times)
	}
	if len(times) > 0 {
		p.time = slices.MinFunc(times, time.Time.Compare)
	}
	if v.log == v1alpha1.TransparencyLogRequire {
		if l.entries == 0 {
			p.whyKey = l.missing() + ", which transparencyLog: Require demands"
			p.whyIdentity = p.whyKey
			return
		}
		if len(times) == 0 {
			p.until = lastEnd(l.windows)
		}
	}
	if p.identity == (identity.Identity{}) {
		return
	}
	if len(times) == 0 {
		p.whyIdentity = v.timeless(c, &l)
		return
	}
	if err := verifyCertificate(c.material, times, v.roles.revoked, root); err != nil {
		p.whyIdentity = err.Error()
	}
}

// timeless says that an identity has no verified time.
func (v *verifier) timeless(c *claim, l *logged) string {
	stamp := "it has no signed timestamp of an authority of the trusted root"
	if c.material.timestampErr != nil {
		stamp = "its signed timestamp " + c.material.timestampErr.Error()
	}
	switch {
	case v.log == v1alpha1.TransparencyLogIgnore:
		return "but " + stamp + ", which transparencyLog: Ignore demands of identities"
	case l.entries > 0:
		return "but its log entry has no time that the log has signed, and " + stamp
	}
	return l.missing() + ", and " + stamp
}

// missing says that there is no entry in a log.
func (l *logged) missing() string {
	if l.unknown > 0 {
		return "but its log entry is of no log of the trusted root"
	}
	return "but it is not in a transparency log"
}

// inWindows checks that a signature was made while the keys of the logs were valid whose entries
// have no time of their own. If it has no verified time at all, the keys are compared by until.
func inWindows(logs []*root.TransparencyLog, times []time.Time) error {
	for _, log := range logs {
		from, to := log.ValidityPeriodStart, log.ValidityPeriodEnd
		for _, at := range times {
			if at.Before(from) || !to.IsZero() && at.After(to) {
				return fmt.Errorf("its log entry is not valid: the key of the log was not valid at the verified "+
					"time, %s", shownTime(at))
			}
		}
	}
	return nil
}

// lastEnd returns when the last of some logs' keys is no longer valid, zero for never.
func lastEnd(logs []*root.TransparencyLog) time.Time {
	var last time.Time
	for _, log := range logs {
		if log.ValidityPeriodEnd.IsZero() {
			return time.Time{}
		}
		if log.ValidityPeriodEnd.After(last) {
			last = log.ValidityPeriodEnd
		}
	}
	return last
}
