package bydigest

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Packer compresses what a format keeps of signatures, so that it can verify them again. The zero
// value is ready for use.
type Packer struct {
	writers sync.Pool // of *gzip.Writer: a new one allocates 800 KB
}

// Pack returns the JSON of signatures in compressed form. Equal signatures have equal forms.
func (p *Packer) Pack(signatures any) ([]byte, error) {
	packed, err := p.gzip(func(w io.Writer) error { return json.NewEncoder(w).Encode(signatures) })
	if err != nil {
		return nil, fmt.Errorf("compressing the signatures: %w", err)
	}
	return packed, nil
}

// Compress returns data in compressed form.
func (p *Packer) Compress(data []byte) ([]byte, error) {
	return p.gzip(func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

func (p *Packer) gzip(write func(io.Writer) error) ([]byte, error) {
	var out bytes.Buffer
	w, ok := p.writers.Get().(*gzip.Writer)
	if !ok {
		w = gzip.NewWriter(nil)
	}
	defer p.writers.Put(w)
	w.Reset(&out)
	if err := write(w); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return bytes.Clone(out.Bytes()), nil
}

// Unpack reads what Pack has made, of at most limit bytes of JSON.
func Unpack(packed []byte, limit int64, signatures any) error {
	data, err := Uncompress(packed, limit)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, signatures); err != nil {
		return fmt.Errorf("decoding the signatures: %w", err)
	}
	return nil
}

// Uncompress returns what has the compressed form, of at most limit bytes.
func Uncompress(packed []byte, limit int64) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("uncompressing the signatures: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("uncompressing the signatures: %w", err)
	}
	if int64(len(data)) > limit {
		return nil, errors.New("the signatures are larger than any that are kept")
	}
	return data, nil
}
