package notary

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// evidence is the verified metadata of one repository. It implements trust.Evidence. Inside a Fetch
// it can lack raw: no files are verified, or only the seen versions are kept.
//
// The store holds evidence of thousands of repositories, so its parts are compact.
type evidence struct {
	root             *Root // it was verified under the pins and roles of this
	repository       string
	statements       statementIndex
	notAfter         time.Time
	file             string
	files            []trust.File
	seenExpired      []string          // delegations that were never seen valid, sorted
	rejected         []rejectedTarget  // signed targets that prove no role, sorted by tag, role and digest
	rejectedByDigest []int32           // indexes of rejected, sorted by digest and role, each digest and cause once
	rejectedFiles    map[string]string // by delegation: why its file does not count
	delegations      []string          // all that the files list, sorted
	raw              *packed
	size             int64
	timestamp        [sha256.Size]byte
	seen             map[string]seenVersion
	anchors          []string     // pinned keys among the root keys
	usedKeys         []string     // IDs of the keys that its verification depended on, sorted
	known            bool         // without raw: whether the repository was signed before
	unusable         *trust.Fault // without raw: why the earlier evidence does not count
}

// Hints implements trust.Evidence. There are none: the digest of a tag is signed.
func (*evidence) Hints(string) []string { return nil }

// Statements implements trust.Evidence. Each is about a tag.
func (e *evidence) Statements(tag, digest string) []trust.Statement {
	return e.statements.find(tag, digest)
}

// Signed implements trust.Evidence. The repository has trust data.
func (*evidence) Signed() bool { return true }

// Faults implements trust.Evidence. There are none: the metadata is verified completely.
func (*evidence) Faults() []*trust.Fault { return nil }

// Expiry returns when the first top-level file expires, and its name.
func (e *evidence) Expiry() (time.Time, string) { return e.notAfter, e.file }

// Size implements trust.Sized.
func (e *evidence) Size() int64 { return e.size }

// Files implements trust.Dated.
func (e *evidence) Files() []trust.File { return e.files }

// Anchors implements trust.Anchored.
func (e *evidence) Anchors() []string { return e.anchors }

// textSize returns the memory of a string's bytes, rounded up as the allocator does.
func textSize(s string) int64 { return int64(len(s)+15) &^ 15 }

// packed is compressed files. They compress well: the same digests occur in several files.
type packed struct {
	names []string // of others; the roots come first and have no name
	sizes []int
	data  []byte
}

// pack compresses files.
func (r *Root) pack(f files) *packed {
	p := &packed{names: slices.Sorted(maps.Keys(f.others))}
	var buf bytes.Buffer
	w, idle := r.compressors.Get().(*gzip.Writer)
	if !idle {
		w = gzip.NewWriter(nil)
	}
	defer r.compressors.Put(w)
	w.Reset(&buf)
	add := func(raw []byte) {
		p.sizes = append(p.sizes, len(raw))
		_, _ = w.Write(raw) // a bytes.Buffer never fails
	}
	for _, raw := range f.roots {
		add(raw)
	}
	for _, name := range p.names {
		add(f.others[name])
	}
	_ = w.Close()
	p.data = bytes.Clone(buf.Bytes())
	return p
}

// unpack returns the roots and the wanted other files. Data after the files is an error: it would
// be stored again unread.
func (p *packed) unpack(wanted func(name string, size int) bool) (files, error) {
	f := files{others: make(map[string][]byte, len(p.names))}
	r, err := gzip.NewReader(bytes.NewReader(p.data))
	if err != nil {
		return f, fmt.Errorf("unpacking metadata: %w", err)
	}
	roots := len(p.sizes) - len(p.names)
	for i, size := range p.sizes {
		if i >= roots && !wanted(p.names[i-roots], size) {
			if _, err := io.CopyN(io.Discard, r, int64(size)); err != nil {
				return f, fmt.Errorf("unpacking metadata: %w", err)
			}
			continue
		}
		raw := make([]byte, size)
		if _, err := io.ReadFull(r, raw); err != nil {
			return f, fmt.Errorf("unpacking metadata: %w", err)
		}
		if i < roots {
			f.roots = append(f.roots, raw)
		} else {
			f.others[p.names[i-roots]] = raw
		}
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return f, errors.New("unpacking metadata: data follows the last file")
	}
	return f, nil
}

// size returns the total size of the files, uncompressed, in bytes.
func (p *packed) size() int {
	n := 0
	for _, size := range p.sizes {
		n += size
	}
	return n
}

func isSnapshot(name string, _ int) bool { return name == snapshotRole }

func isAny(string, int) bool { return true }
