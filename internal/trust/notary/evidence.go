package notary

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// evidence is the verified metadata of one repository. It implements trust.Evidence. Inside a Fetch
// it can lack raw: no files are verified, or only the seen versions are kept.
//
// The store holds evidence of thousands of repositories, so it stores shared parts of statements
// once and finds statements by binary search in sorted slices. Maps would take as much memory as
// the statements. Statements that are built on request take a third of the memory.
type evidence struct {
	root             *Root // it was verified under the pins and roles of this
	repository       string
	statements       []indexedStatement // sorted by tag, digest and role
	byDigest         []int32            // indexes of statements, sorted by digest, role and tag
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

// indexedStatement is one statement. Statements of a role with the same keys share a roleProof.
type indexedStatement struct {
	tag, digest string
	proof       *roleProof
}

// roleProof is a role that the same keys prove until the same time.
type roleProof struct {
	role     string
	keys     []string
	notAfter time.Time
}

func (l indexedStatement) statement() trust.Statement {
	return trust.Statement{
		Digest: l.digest, Tag: l.tag, Role: l.proof.role, Keys: l.proof.keys, NotAfter: l.proof.notAfter,
	}
}

// Hints implements trust.Evidence. There are none: the digest of a tag is signed.
func (*evidence) Hints(string) []string { return nil }

// Statements implements trust.Evidence. Each is about a tag.
func (e *evidence) Statements(tag, digest string) []trust.Statement {
	if tag == "" && digest != "" {
		return e.statementsOf(digest)
	}
	from, to := 0, len(e.statements)
	if tag != "" {
		from, to = e.tagRange(indexedStatement{tag: tag, digest: digest})
	}
	all := make([]trust.Statement, to-from)
	for i, l := range e.statements[from:to] {
		all[i] = l.statement()
	}
	return all
}

// tagRange returns the range of the statements about a tag, and about one digest if it is given.
func (e *evidence) tagRange(of indexedStatement) (from, to int) {
	compare := func(l, of indexedStatement) int {
		if of.digest == "" {
			return strings.Compare(l.tag, of.tag)
		}
		return cmp.Or(strings.Compare(l.tag, of.tag), strings.Compare(l.digest, of.digest))
	}
	from, _ = slices.BinarySearchFunc(e.statements, of, compare)
	to = from
	for to < len(e.statements) && compare(e.statements[to], of) == 0 {
		to++
	}
	return from, to
}

// statementsOf returns the statements about a digest under any tag.
func (e *evidence) statementsOf(digest string) []trust.Statement {
	from, _ := slices.BinarySearchFunc(e.byDigest, digest,
		func(i int32, digest string) int { return strings.Compare(e.statements[i].digest, digest) })
	to := from
	for to < len(e.byDigest) && e.statements[e.byDigest[to]].digest == digest {
		to++
	}
	all := make([]trust.Statement, to-from)
	for n, i := range e.byDigest[from:to] {
		all[n] = e.statements[i].statement()
	}
	return all
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

// setStatements stores statements that are sorted by tag, digest and role. It stores shared strings
// once.
func (e *evidence) setStatements(all []rawStatement) {
	e.statements, e.byDigest = make([]indexedStatement, len(all)), make([]int32, len(all))
	for i, s := range all {
		e.statements[i], e.byDigest[i] = indexedStatement{tag: s.tag, proof: s.proof}, int32(i)
		if i > 0 && all[i-1].tag == s.tag {
			e.statements[i].tag = e.statements[i-1].tag
		} else {
			e.size += textSize(s.tag)
		}
	}
	slices.SortFunc(e.byDigest, func(i, j int32) int {
		a, b := &all[i], &all[j]
		return cmp.Or(bytes.Compare(a.digest[:], b.digest[:]), strings.Compare(a.proof.role, b.proof.role),
			strings.Compare(a.tag, b.tag))
	})
	text := ""
	for n, i := range e.byDigest {
		if n == 0 || all[e.byDigest[n-1]].digest != all[i].digest {
			text = digestText(all[i].digest)
			e.size += textSize(text)
		}
		e.statements[i].digest = text
	}
	const each = 5*8 + 4 // a statement, and its index by digest
	e.size += int64(len(all)) * each
}

// textSize returns the memory of a string's bytes, rounded up as the allocator does.
func textSize(s string) int64 { return int64(len(s)+15) &^ 15 }

// digestText formats a digest as registries do. It allocates only the result.
func digestText(digest [sha256.Size]byte) string {
	const prefix = "sha256:"
	var b [len(prefix) + 2*sha256.Size]byte
	copy(b[:], prefix)
	hex.Encode(b[len(prefix):], digest[:])
	return string(b[:])
}

// packed is compressed files. They compress well: the same digests occur in several files.
type packed struct {
	names []string // of others; the roots come first and have no name
	sizes []int
	data  []byte
}

// pack compresses files.
func pack(f files) *packed {
	p := &packed{names: slices.Sorted(maps.Keys(f.others))}
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
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
