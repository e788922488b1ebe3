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

// evidence is what was verified about one repository. It implements trust.Evidence. Only inside a
// Fetch does it occur without raw: nothing was verified yet, or only what was seen is left of it.
//
// Thousands of repositories are held, so it holds what its statements share once, and finds them by
// halves in sorted slices: maps would take as much room as the statements, and statements that are
// put together for whoever asks a third of what they would take.
type evidence struct {
	root             *Root // whose pins and roles it was verified under
	repository       string
	statements       []indexedStatement // sorted by tag, digest and role
	byDigest         []int32            // the places of lines, sorted by digest, role and tag
	notAfter         time.Time
	file             string
	files            []trust.File
	seenExpired      []string          // delegations that had expired when they were first verified
	rejected         []rejectedTarget  // what was signed and proves no role, sorted by tag, role and digest
	rejectedByDigest []int32           // the places of idle, sorted by digest and role, each digest and cause once
	rejectedFiles    map[string]string // why the file of a delegation does not count
	delegations      []string          // all that the files name, sorted
	raw              *packed
	size             int64
	timestamp        [sha256.Size]byte
	seen             map[string]seenVersion
	anchors          []string     // pinned keys among the root keys
	usedKeys         []string     // the IDs of the keys that verifying it depended on, sorted
	known            bool         // without raw: that the repository was signed before
	unusable         *trust.Fault // without raw: why what was verified before does not count
}

// line is one statement, beside what others say in the same voice.
type indexedStatement struct {
	tag, digest string
	proof       *roleProof
}

// voice is a role that speaks by the same keys until the same time.
type roleProof struct {
	role     string
	keys     []string
	notAfter time.Time
}

func (l indexedStatement) statement() trust.Statement {
	return trust.Statement{Digest: l.digest, Tag: l.tag, Role: l.proof.role, Keys: l.proof.keys, NotAfter: l.proof.notAfter}
}

// Hints implements trust.Evidence: what a tag means is signed.
func (*evidence) Hints(string) []string { return nil }

// Statements implements trust.Evidence: what delegations have signed, each for a tag.
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

// span returns where the lines of a tag are, those about one digest where it is given.
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

// under returns the statements about a digest under any tag.
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

// Signed implements trust.Evidence: there is trust data.
func (*evidence) Signed() bool { return true }

// Faults implements trust.Evidence: what is verified is verified in full.
func (*evidence) Faults() []*trust.Fault { return nil }

// Expiry returns when the first of the top-level files expires, and which.
func (e *evidence) Expiry() (time.Time, string) { return e.notAfter, e.file }

// Size implements trust.Sized.
func (e *evidence) Size() int64 { return e.size }

// Files implements trust.Dated.
func (e *evidence) Files() []trust.File { return e.files }

// Anchors implements trust.Anchored.
func (e *evidence) Anchors() []string { return e.anchors }

// index takes statements sorted by tag, digest and role. What they share is held once.
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
	const each = 5*8 + 4 // a line, and its place by digest
	e.size += int64(len(all)) * each
}

// textSize is how much memory the bytes of a string take up, in the steps of the allocator.
func textSize(s string) int64 { return int64(len(s)+15) &^ 15 }

// digestText writes a digest as registries do, with no allocation but its own.
func digestText(digest [sha256.Size]byte) string {
	const prefix = "sha256:"
	var b [len(prefix) + 2*sha256.Size]byte
	copy(b[:], prefix)
	hex.Encode(b[len(prefix):], digest[:])
	return string(b[:])
}

// packed is files, compressed: digests of the same images recur from file to file.
type packed struct {
	names []string // of others; the roots come before them, unnamed
	sizes []int
	data  []byte
}

func pack(f files) *packed {
	p := &packed{names: slices.Sorted(maps.Keys(f.others))}
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	add := func(raw []byte) {
		p.sizes = append(p.sizes, len(raw))
		_, _ = w.Write(raw) // a bytes.Buffer takes everything
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

// unpack returns the roots, and those of the others that are wanted, told by their name and size.
// Nothing may follow the files: what was written down is kept as it is.
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
		return f, errors.New("unpacking metadata: more follows than the files that it is of")
	}
	return f, nil
}

// size is how many bytes the files have together.
func (p *packed) size() int {
	n := 0
	for _, size := range p.sizes {
		n += size
	}
	return n
}

func isSnapshot(name string, _ int) bool { return name == snapshotRole }

func isAny(string, int) bool { return true }
