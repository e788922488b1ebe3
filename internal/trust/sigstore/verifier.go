package sigstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/trustedroot"
)

// decodeCost bounds the memory that decoding and verifying a signature allocates, by byte of it.
// decodeFrame bounds what any allocates, for certificates, log entries and timestamps, whose
// numbers are bounded.
const (
	decodeCost  = 48
	decodeFrame = 1 << 20
)

// verifier is the bydigest.Verifier of the format.
type verifier struct {
	registry registries
	roles    *roles
	// repository has the signatures; empty: that of the image has.
	repository string
	// match is set where a signature counts only if it names the repository of the image.
	match bool
	// trusted returns the trusted root of the present. Nil: the TrustRoot names none. The error is
	// a *trust.Fault: it could not be fetched yet, so that nothing that needs it can be checked.
	trusted func() (*trustedroot.Root, error)
	// log says which signatures need an entry in a transparency log.
	log    v1alpha1.TransparencyLog
	budget *budget.Budget
	// transfers bounds the bytes of attestations that are fetched and not verified yet.
	transfers *semaphore.Weighted
	// now is the time for the text of a denial.
	now    func() time.Time
	packer *bydigest.Packer
}

// Fetch implements bydigest.Verifier. It looks for signatures in both layouts. What cannot be
// fetched is a fault of the evidence, which keeps in its place what was fetched before. It is an
// error where nothing is left that was verified.
func (v *verifier) Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	before, have := v.held(held)
	before.forget(v.judges())
	found := v.collect(ctx, about, before, have.attestations().forget(v.judges()))
	defer found.attested.release()
	switch none := len(found.Signatures) == 0 && len(found.attested.All) == 0; {
	case found.unread, none && len(found.faults) > 0:
		return nil, found.faults[0]
	case none:
		return trust.Unsigned{}, nil
	}
	next, err := v.verify(ctx, about, &found.collection, found.fetchManifest)
	if err != nil {
		return nil, err
	}
	next.addAttestations(v.attestAgain(ctx, about, &found.attested.attestations, have, next.trusted))
	next.carry(found.faults)
	if len(next.faults) > 0 && !next.Signed() {
		return nil, next.faults[0]
	}
	if have != nil && len(have.faults) == 0 && len(next.faults) == 0 && bytes.Equal(have.packed, next.packed) &&
		have.trusted == next.trusted && have.attested == next.attested {
		return held, nil
	}
	return next, nil
}

// held returns the signatures in held evidence.
func (v *verifier) held(held trust.Evidence) (*collection, *evidence) {
	have, ok := held.(*evidence)
	if !ok || have.roles != v.roles {
		return &collection{}, nil
	}
	c, err := unpack(have.packed)
	if err != nil {
		return &collection{}, nil // then everything is fetched anew
	}
	return c, have
}

// verify judges every signature of a collection. manifest fetches the image's manifest; nil: it is
// not to be had.
func (v *verifier) verify(ctx context.Context, about trust.Subject, c *collection,
	manifest func() ([]byte, error)) (*evidence, error) {
	e := &evidence{digest: about.Digest, roles: v.roles, trusted: v.trustedID(), judges: v.judges(), now: v.now}
	var signatures []*proof
	for i := range c.Signatures {
		j, err := v.judge(ctx, about, &c.Signatures[i], c.Manifest)
		if errors.Is(err, errNeedsManifest) && manifest != nil {
			if c.Manifest, err = manifest(); err == nil {
				j, err = v.judge(ctx, about, &c.Signatures[i], c.Manifest)
			}
		}
		if err != nil {
			e.faults = append(e.faults, trust.AsFault(err, v1alpha1.ReasonMetadataInvalid))
			j = judgement{layout: c.Signatures[i].Layout, fault: true}
		}
		if j.proof != nil && j.why == "" {
			signatures = append(signatures, j.proof)
		}
		e.judged = append(e.judged, j)
	}
	e.statements = v.roles.statements(about.Digest, signatures)
	v.shed(e, c)
	var err error
	if e.packed, err = v.packer.Pack(c); err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: %w", about, err)
	}
	return e, nil
}

// judge verifies one signature. The error is a *trust.Fault, or errNeedsManifest.
func (v *verifier) judge(ctx context.Context, about trust.Subject, s *kept, manifest []byte) (judgement, error) {
	if s.Why != "" {
		return judgement{layout: s.Layout, why: s.Why, by: s.By}, nil
	}
	if s.Copy {
		return judgement{layout: s.Layout, copied: true}, nil
	}
	if s.Unchecked {
		return judgement{}, v.dropped("a " + s.Layout.String())
	}
	release, err := bydigest.Acquire(ctx, v.budget, decodeFrame+decodeCost*(s.size()+int64(len(manifest))/4))
	if err != nil {
		return judgement{}, err
	}
	defer release()
	c, err := s.read(about.Digest, manifest)
	if errors.Is(err, errNeedsManifest) {
		return judgement{}, err
	}
	if err != nil {
		return judgement{layout: s.Layout, why: err.Error()}, nil
	}
	p, err := v.prove(c)
	if err != nil {
		return judgement{}, err
	}
	j := judgement{layout: s.Layout, proof: p, signature: sha256.Sum256(c.signature)}
	if v.match && v.roles.known(p) && !c.names(about.Repository) {
		j.why = "but names " + named(c.repository) + ", and signedRepository is Match"
	}
	return j, nil
}

// trustedID returns the ID of the trusted root of the present, empty if there is none.
func (v *verifier) trustedID() string {
	if r, err := v.trustedRoot(); err == nil && r != nil {
		return r.ID()
	}
	return ""
}

func named(repository string) string {
	if repository == "" {
		return "no repository"
	}
	return "the repository " + shown(repository)
}

// Recheck implements bydigest.Verifier.
func (v *verifier) Recheck(about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	have, ok := held.(*evidence)
	if !ok || have.digest != about.Digest {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: the evidence is not of this format", about)
	}
	c, err := unpack(have.packed)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: %w", about, err)
	}
	next, err := v.verify(context.Background(), about, c, nil)
	if err != nil {
		return nil, err
	}
	next.addAttestations(v.attest(context.Background(), about, have.attestations()))
	next.carry(have.unfetched)
	next.before = next.unchecked() && have.Signed()
	return next, nil
}

// carry adds the faults of what could not be fetched.
func (e *evidence) carry(unfetched []*trust.Fault) {
	e.unfetched = unfetched
	e.faults = slices.Concat(unfetched, e.faults)
}

// unchecked reports whether a signature or attestation could not be checked.
func (e *evidence) unchecked() bool {
	return e.attested.unchecked() || slices.ContainsFunc(e.judged, func(j judgement) bool { return j.fault })
}

// Pack implements bydigest.Verifier. It keeps the signatures that a key or identity of the trust
// root has made, and those that cannot be checked now, as far as their contents are kept: anyone
// may push others.
func (v *verifier) Pack(held trust.Evidence) ([]byte, error) {
	have, ok := held.(*evidence)
	if !ok {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "the evidence is not of this format, so it is not "+
			"stored")
	}
	c, err := unpack(have.packed)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: %w", have.digest, err)
	}
	own := &collection{Manifest: c.Manifest}
	for i, j := range have.judged { // one for each signature
		if j.fault && !c.Signatures[i].Dropped || j.proof != nil && v.roles.known(j.proof) {
			own.Signatures = append(own.Signatures, c.Signatures[i])
		}
	}
	own.Attestations = have.attested.decisive(have.roles, have.judges)
	if len(own.Signatures) == 0 && (own.Attestations == nil || len(own.Attestations.All) == 0) {
		return nil, nil
	}
	packed, err := v.packer.Pack(own)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: %w", have.digest, err)
	}
	return packed, nil
}

// Unpack implements bydigest.Verifier.
func (v *verifier) Unpack(about trust.Subject, packed []byte, held trust.Evidence) (trust.Evidence, error) {
	if have, ok := held.(*evidence); held != nil && (!ok || have.roles == v.roles) {
		return held, nil // at least as new as the record
	}
	c, err := unpack(packed)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: the record: %w", about, err)
	}
	if c.Manifest != nil && digestOf(c.Manifest) != about.Digest {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: the record has the manifest of another image",
			about)
	}
	c.Signatures = slices.DeleteFunc(c.Signatures, func(s kept) bool { return s.Why != "" || s.Dropped })
	for i := range c.Signatures {
		c.Signatures[i].Counted = true // once, or it is within the bounds
	}
	attestations := c.Attestations
	c.Attestations, c.Judges = nil, ""
	if attestations == nil {
		attestations = noAttestations()
	}
	if err := attestations.checkRecorded(); err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: %w", about, err)
	}
	if len(c.Signatures)+len(attestations.All) == 0 || !imageref.ValidDigest(about.Digest) {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: the record has no signature", about)
	}
	next, err := v.verify(context.Background(), about, c, nil)
	if err != nil {
		return nil, err
	}
	next.addAttestations(v.attest(context.Background(), about, attestations))
	next.before = next.unchecked() // what is recorded counted once
	return next, nil
}
