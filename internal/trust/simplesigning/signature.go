package simplesigning

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// kept is one signature as the server has it, so that it can be verified again.
type kept struct {
	// Name is the name of it in messages: "signature-1".
	Name string `json:"name"`
	Data []byte `json:"data,omitempty"`
	// Why says why it was not kept, in the rest of a sentence that begins with the name.
	Why string `json:"why,omitempty"`
}

// collection is all signatures on one digest.
type collection struct {
	Signatures []kept `json:"signatures"`
}

// maxUnpacked bounds an unpacked collection, in bytes: base64 of what was fetched, and its frame.
const maxUnpacked = 2*2*maxSignatures*maxSignature + 1<<20

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
		return nil, fmt.Errorf("decompressing the signatures: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxUnpacked+1))
	if err != nil {
		return nil, fmt.Errorf("decompressing the signatures: %w", err)
	}
	if len(data) > maxUnpacked {
		return nil, errors.New("the signatures are larger than any that are kept")
	}
	c := &collection{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("decoding the signatures: %w", err)
	}
	if len(c.Signatures) > 2*maxSignatures {
		return nil, errors.New("there are more signatures than are kept")
	}
	return c, nil
}

// same reports whether two entries are one signature.
func (k *kept) same(other *kept) bool { return bytes.Equal(k.Data, other.Data) && k.Why == other.Why }
