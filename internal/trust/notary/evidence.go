package notary

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// evidence is what was verified about one repository. It implements trust.Evidence. Only inside a Fetch does it occur
// without raw: nothing was verified yet, or only what was seen is left of it.
//
// Thousands of repositories are held, so its indexes are sorted slices, searched by halves: maps would take as much
// room as the statements.
type evidence struct {
	root       *Root // whose pins and roles it was verified under
	repository string
	statements []trust.Statement   // sorted by tag, digest and role
	byDigest   [][]trust.Statement // one run a digest, sorted by digest; each sorted by role and tag
	notAfter   time.Time
	file       string
	raw        *packed
	timestamp  [sha256.Size]byte
	floors     map[string]floor
	asked      []string     // the IDs of the keys that verifying it depended on, sorted
	known      bool         // without raw: that the repository was signed before
	unusable   *trust.Fault // without raw: why what was verified before does not count
}

// Tag returns the statements about a tag, sorted by digest and role.
func (e *evidence) Tag(tag string) []trust.Statement {
	at, found := slices.BinarySearchFunc(e.statements, tag, func(s trust.Statement, tag string) int { return strings.Compare(s.Tag, tag) })
	if !found {
		return nil
	}
	end := at + 1
	for end < len(e.statements) && e.statements[end].Tag == tag {
		end++
	}
	return e.statements[at:end:end]
}

// Digest returns the statements about a digest under any tag, sorted by role and tag.
func (e *evidence) Digest(digest string) []trust.Statement {
	at, found := slices.BinarySearchFunc(e.byDigest, digest, func(run []trust.Statement, digest string) int { return strings.Compare(run[0].Digest, digest) })
	if !found {
		return nil
	}
	return e.byDigest[at]
}

// Expiry returns when the first of the top-level files expires, and which.
func (e *evidence) Expiry() (time.Time, string) { return e.notAfter, e.file }

// index takes statements sorted by tag, digest and role. What repeats is kept once: strings, lists of keys and, for a
// digest under a single tag, the statements themselves, since sorted by role they are in the order of both indexes.
func (e *evidence) index(all []trust.Statement) {
	e.statements = append(make([]trust.Statement, 0, len(all)), all...) // without the room it grew by
	intern(e.statements)
	runs := map[string][]trust.Statement{}
	for i, s := range e.statements {
		run := runs[s.Digest]
		switch {
		case run == nil:
			runs[s.Digest] = e.statements[i : i+1 : i+1]
		case run[0].Tag == s.Tag:
			runs[s.Digest] = e.statements[i-len(run) : i+1 : i+1]
		default:
			runs[s.Digest] = append(run, s)
		}
	}
	e.byDigest = make([][]trust.Statement, 0, len(runs))
	for _, digest := range slices.Sorted(maps.Keys(runs)) {
		run := runs[digest]
		if run[0].Tag != run[len(run)-1].Tag {
			slices.SortFunc(run, func(a, b trust.Statement) int {
				return cmp.Or(strings.Compare(a.Role, b.Role), strings.Compare(a.Tag, b.Tag))
			})
			run = slices.Clip(run)
		}
		e.byDigest = append(e.byDigest, run)
	}
}

func intern(all []trust.Statement) {
	texts := map[string]string{}
	once := func(s *string) {
		if held, ok := texts[*s]; ok {
			*s = held
		} else {
			texts[*s] = *s
		}
	}
	lists := map[string][]string{}
	for i := range all {
		s := &all[i]
		once(&s.Digest)
		once(&s.Tag)
		once(&s.Role)
		key := strings.Join(s.Keys, ",")
		if held, ok := lists[key]; ok {
			s.Keys = held
		} else {
			lists[key] = s.Keys
		}
	}
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

func (p *packed) unpack() (files, error) {
	f := files{others: make(map[string][]byte, len(p.names))}
	r, err := gzip.NewReader(bytes.NewReader(p.data))
	if err != nil {
		return f, fmt.Errorf("unpacking metadata: %w", err)
	}
	roots := len(p.sizes) - len(p.names)
	for i, size := range p.sizes {
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
	return f, nil
}
