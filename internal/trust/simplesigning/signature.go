package simplesigning

import (
	"bytes"
	"errors"

	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

// kept is one signature as the server has it, so that it can be verified again.
type kept struct {
	// Name is the name of it in messages: "signature-1".
	Name string `json:"name"`
	Data []byte `json:"data,omitempty"`
	// Why says why it was not kept, in the rest of a sentence that begins with the name.
	Why string `json:"why,omitempty"`
	// Dropped says that it was a signature that does not count, or a copy of another one, and that
	// its data is not kept. The server has it.
	Dropped bool `json:"dropped,omitempty"`
}

// collection is all signatures on one digest.
type collection struct {
	Signatures []kept `json:"signatures"`
}

// maxUnpacked bounds an unpacked collection, in bytes: base64 of what was fetched, and its frame.
const maxUnpacked = 2*2*maxSignatures*maxSignature + 1<<20

// unpack returns the collection of a compressed form.
func unpack(packed []byte) (*collection, error) {
	c := &collection{}
	if err := bydigest.Unpack(packed, maxUnpacked, c); err != nil {
		return nil, err
	}
	if len(c.Signatures) > 2*maxSignatures {
		return nil, errors.New("there are more signatures than are kept")
	}
	return c, nil
}

// same reports whether two entries are one signature.
func (k *kept) same(other *kept) bool { return bytes.Equal(k.Data, other.Data) && k.Why == other.Why }
