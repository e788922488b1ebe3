package tufroot

import (
	"context"
	"encoding/json"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

// record is the record of a Base.
type record struct {
	// Metadata is a packed tufrepo.State.
	Metadata []byte `json:"metadata"`
	// TrustedRoot is the trusted_root.json, byte for byte.
	TrustedRoot []byte `json:"trustedRoot"`
}

// Pack encodes a trusted root and its metadata. The error is a *trust.Fault.
func (s *Source) Pack(held trust.Evidence) ([]byte, error) {
	base, ok := held.(*Base)
	if !ok {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: what is held is no trusted root", s.mirror)
	}
	data, err := json.Marshal(record{Metadata: base.state.Pack(), TrustedRoot: base.trustedRoot})
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "encoding the record: %w", err)
	}
	return data, nil
}

// Unpack decodes a record, and verifies it again from the pinned root. It has the contract of
// trust.Keeper.Unpack, for one subject.
func (s *Source) Unpack(packed []byte, held trust.Evidence) (trust.Evidence, error) {
	var in record
	if err := json.Unmarshal(packed, &in); err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: decoding the record: %w", s.mirror, err)
	}
	ctx := context.Background()
	var before *tufrepo.State
	if base := s.own(ctx, held); base != nil {
		before = base.state
	}
	state, err := s.client.Unpack(ctx, in.Metadata, before)
	switch state {
	case nil:
		return nil, err
	case before:
		return held, nil
	}
	next, invalid := s.verified(state, in.TrustedRoot)
	if invalid != nil {
		return nil, invalid
	}
	return next, err // if it has expired, next remembers the versions
}
