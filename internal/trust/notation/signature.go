package notation

import (
	"errors"

	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

// kept is one signature as the registry has it, so that it can be verified again. Without an
// envelope, it is something else in the place of a signature: Why says what.
type kept struct {
	// ID is the digest of its manifest.
	ID string `json:"id"`
	// MediaType is that of the envelope: JWS or COSE.
	MediaType string `json:"mediaType,omitempty"`
	Envelope  []byte `json:"envelope,omitempty"`
	// Why is the rest of a sentence that begins with the signature.
	Why string `json:"why,omitempty"`
	// Dropped says that it was a signature, of which the envelope is not kept: it is needed again
	// to judge it by other roles. Copy says that another one with the same signature is kept.
	Dropped bool `json:"dropped,omitempty"`
	Copy    bool `json:"copy,omitempty"`
}

// collection is all signatures on one digest.
type collection struct {
	Signatures []kept `json:"signatures"`
	// Answers are what the signatures were checked for revocation with. Only records have them.
	Answers []answer `json:"answers,omitempty"`
}

// maxUnpacked bounds an unpacked collection, in bytes: base64 of what was fetched, and its frame.
const maxUnpacked = 2*(2*maxSignatures*maxSignature+maxRecordedAnswers) + 1<<20

// unpack returns the collection of a compressed form.
func unpack(packed []byte) (*collection, error) {
	c := &collection{}
	if err := bydigest.Unpack(packed, maxUnpacked, c); err != nil {
		return nil, err
	}
	if len(c.Signatures) > 2*maxSignatures || len(c.Answers) > maxLinks {
		return nil, errors.New("there are more signatures than are kept")
	}
	return c, nil
}
