package notation

import (
	"context"
	"slices"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Pack implements bydigest.Verifier. It keeps the signatures by certificates of roles: anyone may
// push others. The answers about revocation are kept with them.
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
	own := &collection{}
	for i, j := range have.judged { // one for each signature
		if j.by != "" {
			own.Signatures = append(own.Signatures, c.Signatures[i])
		}
	}
	if len(own.Signatures) == 0 {
		return nil, nil
	}
	for _, a := range have.answers {
		own.Answers = append(own.Answers, *a)
	}
	packed, err := v.packer.Pack(own)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: %w", have.digest, err)
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
	if len(c.Signatures) == 0 || len(c.Signatures) > 2*maxSignatures || !imageref.ValidDigest(about.Digest) {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: the record has no signature", about)
	}
	answers := make([]*answer, len(c.Answers))
	for i := range c.Answers {
		answers[i] = &c.Answers[i]
	}
	return v.verify(context.Background(), about, c, v.offline(answers))
}
