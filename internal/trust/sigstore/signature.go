package sigstore

import (
	"errors"

	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

// The layouts in which cosign stores signatures in a registry.
const (
	// layoutTag is the tag sha256-<hex>.sig, whose manifest has a layer for each signature.
	layoutTag layout = "tag"
	// layoutBundle is a Sigstore bundle in a manifest that refers to the image.
	layoutBundle layout = "bundle"
)

type layout string

// String returns the layout in the words of messages.
func (l layout) String() string {
	if l == layoutTag {
		return "signature of cosign's tag"
	}
	return "Sigstore bundle"
}

// kept is one signature as the registry has it, so that it can be verified again. The zero value of
// all contents is what was found in the place of a signature, and is none: Why says why.
type kept struct {
	Layout layout `json:"layout"`
	// ID is the digest by which the registry has it: of the manifest of a bundle, or of the payload
	// in the tag layout, where several signatures may share one.
	ID string `json:"id"`

	// Payload and Signature are of the tag layout. Signature is base64, as the annotation has it.
	Payload   []byte `json:"payload,omitempty"`
	Signature string `json:"signature,omitempty"`
	extras
	// Bundle is the bundle's JSON.
	Bundle []byte `json:"bundle,omitempty"`

	// Why is the rest of a sentence that begins with the layout.
	Why string `json:"why,omitempty"`
	shed
}

// size bounds what decoding the signature takes up, in bytes.
func (s *kept) size() int64 {
	return int64(len(s.Payload)+len(s.Signature)+len(s.Bundle)) + int64(s.bytes())
}

// same reports whether two entries are one signature.
func (s *kept) same(other *kept) bool {
	return s.Layout == other.Layout && s.ID == other.ID && s.Signature == other.Signature &&
		s.extras.same(&other.extras)
}

// collection is all signatures on one digest.
type collection struct {
	// Tag is the digest of the manifest of the tag layout, empty where there is none.
	Tag        string `json:"tag,omitempty"`
	Signatures []kept `json:"signatures"`
	// Manifest is the image's own, where a signature is over it.
	Manifest []byte `json:"manifest,omitempty"`
	// Judges are those that have judged the signatures whose contents are not kept, empty where
	// there are none.
	Judges string `json:"judges,omitempty"`
	// Attestations are in the collection of a record only.
	Attestations *attestations `json:"attestations,omitempty"`
}

// maxUnpacked bounds an unpacked collection, in bytes: base64 of what was fetched, and its frame.
const maxUnpacked = 2*(4*maxSignatures*maxSignature+2*maxAttestedBytes+registry.MaxManifest) + 1<<20

// unpack returns the collection of a compressed form.
func unpack(packed []byte) (*collection, error) {
	c := &collection{}
	if err := bydigest.Unpack(packed, maxUnpacked, c); err != nil {
		return nil, err
	}
	if len(c.Signatures) > 2*maxSignatures*2 || c.Attestations != nil && len(c.Attestations.All) > 4*maxAttested {
		return nil, errors.New("there are more signatures than are kept")
	}
	return c, nil
}
