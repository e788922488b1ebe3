package simplesigning

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

const (
	// decodeCost bounds the memory that reading and verifying a signature takes up, by byte of it,
	// and decodeFrame what any takes up: the tables of a decompressor among it.
	decodeCost  = 16
	decodeFrame = 6 << 20
	// skew is by how much the clock of a signer may be ahead.
	skew = 10 * time.Minute
)

// verifier is the bydigest.Verifier of the format.
type verifier struct {
	source   source
	roles    *roles
	identity *identity
	budget   *budget.Budget
	now      func() time.Time
	packer   bydigest.Packer
}

var _ bydigest.Verifier = (*verifier)(nil)

// Fetch implements bydigest.Verifier. What cannot be fetched is a fault of the evidence, which
// keeps what was fetched before. It is an error where nothing is left that was verified.
func (v *verifier) Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	before, have := v.held(held)
	all, faults := v.source.fetch(ctx, &about)
	if len(faults) > 0 {
		all = merge(all, before)
	}
	switch {
	case len(all) == 0 && len(faults) > 0:
		return nil, faults[0]
	case len(all) == 0:
		return trust.Unsigned{}, nil
	}
	next, err := v.verify(ctx, about, &collection{Signatures: all})
	if err != nil {
		return nil, err
	}
	next.faults = append(faults, next.faults...)
	if len(next.faults) > 0 && !next.Signed() {
		return nil, next.faults[0]
	}
	if have != nil && len(have.faults) == 0 && len(next.faults) == 0 && bytes.Equal(have.packed, next.packed) &&
		slices.Equal(have.judged, next.judged) {
		return held, nil
	}
	return next, nil
}

// merge adds the signatures that were fetched before.
func merge(all, before []kept) []kept {
	for i := range before {
		old := &before[i]
		if !old.Dropped && len(all) < 2*maxSignatures &&
			!slices.ContainsFunc(all, func(k kept) bool { return k.same(old) }) {
			all = append(all, *old)
		}
	}
	return all
}

// held returns the signatures in held evidence.
func (v *verifier) held(held trust.Evidence) ([]kept, *evidence) {
	have, ok := held.(*evidence)
	if !ok || have.by != v {
		return nil, nil
	}
	c, err := unpack(have.packed)
	if err != nil {
		return nil, nil // then everything is fetched anew
	}
	return c.Signatures, have
}

// verify judges every signature of a collection.
func (v *verifier) verify(ctx context.Context, about trust.Subject, c *collection) (*evidence, error) {
	e := &evidence{by: v, about: about}
	for i := range c.Signatures {
		j, err := v.judge(ctx, &about, &c.Signatures[i])
		if err != nil {
			e.faults = append(e.faults, trust.AsFault(err, v1alpha1.ReasonMetadataInvalid))
			j = judgement{name: c.Signatures[i].Name, fault: true}
		}
		e.judged = append(e.judged, j)
	}
	e.conclude()
	e.shed(c)
	var err error
	if e.packed, err = v.packer.Pack(c); err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: %w", about, err)
	}
	return e, nil
}

// judge verifies one signature. The error is a *trust.Fault.
func (v *verifier) judge(ctx context.Context, about *trust.Subject, s *kept) (judgement, error) {
	j := judgement{name: s.Name, why: s.Why, copied: s.Dropped && s.Why == ""}
	if s.Why != "" || s.Dropped {
		return j, nil
	}
	release, err := v.budget.Acquire(ctx, decodeFrame+decodeCost*int64(len(s.Data)))
	if err != nil {
		return j, trust.NewFault(budgetReason(err), "%s: %w", s.Name, err)
	}
	defer release()
	m, err := readMessage(s.Data)
	if err != nil {
		j.why = err.Error()
		return j, nil
	}
	by, named := v.roles.signer(m)
	switch {
	case by == nil && named:
		j.why = "is no signature of the key that it names, or was changed"
		return j, nil
	case by == nil:
		j.unknown = true
		return j, nil
	}
	j.by, j.signer = by.of.id, by.id
	j.made, j.content = m.signature.CreationTime, sha256.Sum256(m.content)
	if j.why = v.refuse(m, by); j.why != "" {
		return j, nil
	}
	p, err := readPayload(m.content)
	switch {
	case err != nil:
		j.why = err.Error()
	case p.digest != about.Digest:
		j.why = "is about another image, " + shown(p.digest)
	default:
		j.reference, j.scope = shown(p.reference), v.identity.scope(p.reference, about)
		j.until, j.ends = by.expiry()
		if own := after(j.made, m.signature.SigLifetimeSecs); later(j.until, own) {
			j.until, j.ends = own, ""
		}
	}
	return j, nil
}

// refuse says why a signature by a key of the trust root does not count; empty: it does. The key
// must be valid now, and must have been made before the signature. When the signature was made,
// only the signature says: so a key that has expired since counts no longer.
func (v *verifier) refuse(m *message, by *signer) string {
	now, made := v.now(), m.signature.CreationTime
	if why := v.roles.invalid(by, now); why != "" {
		return "is by a key that " + why
	}
	if err := checkHash(m.signature); err != nil {
		return "is " + err.Error()
	}
	for _, n := range m.signature.Notations {
		if n.IsCritical {
			return fmt.Sprintf("has the critical notation %q, which is not known here", shown(n.Name))
		}
	}
	switch until := after(made, m.signature.SigLifetimeSecs); {
	case made.Before(by.from):
		return "is dated before its key was made"
	case made.After(now.Add(skew)):
		return "is dated in the future, at " + made.UTC().Format(time.RFC3339)
	default:
		return expired(until, now)
	}
}

// Recheck implements bydigest.Verifier.
func (v *verifier) Recheck(about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	have, ok := held.(*evidence)
	if !ok || have.about.Digest != about.Digest {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: the evidence is not of this format", about)
	}
	c, err := unpack(have.packed)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: %w", about, err)
	}
	next, err := v.verify(context.Background(), about, c)
	if err != nil {
		return nil, err
	}
	next.faults = append(slices.Clone(have.faults), next.faults...)
	return next, nil
}

// Pack implements bydigest.Verifier. It keeps the signatures that a key of the trust root has made:
// anyone may have added others.
func (v *verifier) Pack(held trust.Evidence) ([]byte, error) {
	have, ok := held.(*evidence)
	if !ok {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "the evidence is not of this format, so it is not "+
			"stored")
	}
	c, err := unpack(have.packed)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: %w", have.about, err)
	}
	own := &collection{}
	for i := range have.judged { // one for each signature
		if have.judged[i].by != "" {
			own.Signatures = append(own.Signatures, c.Signatures[i])
		}
	}
	if len(own.Signatures) == 0 {
		return nil, nil
	}
	packed, err := v.packer.Pack(own)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: %w", have.about, err)
	}
	return packed, nil
}

// Unpack implements bydigest.Verifier.
func (v *verifier) Unpack(about trust.Subject, packed []byte, held trust.Evidence) (trust.Evidence, error) {
	if held != nil {
		return held, nil // at least as new as the record
	}
	c, err := unpack(packed)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: the record: %w", about, err)
	}
	c.Signatures = slices.DeleteFunc(c.Signatures, func(s kept) bool { return s.Why != "" || s.Dropped })
	if len(c.Signatures) == 0 || !imageref.ValidDigest(about.Digest) {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: the record has no signature", about)
	}
	return v.verify(context.Background(), about, c)
}
