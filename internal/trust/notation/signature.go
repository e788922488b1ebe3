package notation

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
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
}

// collection is all signatures on one digest.
type collection struct {
	Signatures []kept `json:"signatures"`
	// Answers are what the signatures were checked for revocation with. Only records have them.
	Answers []answer `json:"answers,omitempty"`
}

// maxUnpacked bounds an unpacked collection, in bytes: base64 of what was fetched, and its frame.
const maxUnpacked = 2*(2*maxSignatures*maxSignature+maxRecordedAnswers) + 1<<20

// packer compresses collections. The zero value is ready for use.
type packer struct {
	writers sync.Pool // of *gzip.Writer: a new one allocates 800 KB
}

// pack returns a collection in compressed form. Equal collections have equal forms.
func (p *packer) pack(c *collection) ([]byte, error) {
	var out bytes.Buffer
	w, ok := p.writers.Get().(*gzip.Writer)
	if !ok {
		w = gzip.NewWriter(nil)
	}
	defer p.writers.Put(w)
	w.Reset(&out)
	if err := json.NewEncoder(w).Encode(c); err != nil {
		return nil, fmt.Errorf("encoding the signatures: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compressing the signatures: %w", err)
	}
	return bytes.Clone(out.Bytes()), nil
}

// unpack returns the collection of a compressed form.
func unpack(packed []byte) (*collection, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("uncompressing the signatures: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxUnpacked+1))
	if err != nil {
		return nil, fmt.Errorf("uncompressing the signatures: %w", err)
	}
	if len(data) > maxUnpacked {
		return nil, errors.New("the signatures are larger than any that are kept")
	}
	c := &collection{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("decoding the signatures: %w", err)
	}
	if len(c.Signatures) > 2*maxSignatures || len(c.Answers) > maxLinks {
		return nil, errors.New("there are more signatures than are kept")
	}
	return c, nil
}
