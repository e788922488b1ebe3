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
type evidence struct {
	root       *Root // whose pins and roles it was verified under
	repository string
	byTag      map[string][]trust.Statement
	byDigest   map[string][]trust.Statement
	notAfter   time.Time
	file       string
	raw        *packed
	timestamp  [sha256.Size]byte
	floors     map[string]floor
}

// Tag returns the statements about a tag, sorted by digest and role.
func (e *evidence) Tag(tag string) []trust.Statement { return e.byTag[tag] }

// Digest returns the statements about a digest under any tag, sorted by role and tag.
func (e *evidence) Digest(digest string) []trust.Statement { return e.byDigest[digest] }

// Expiry returns when the first of the top-level files expires, and which.
func (e *evidence) Expiry() (time.Time, string) { return e.notAfter, e.file }

// index takes statements sorted by tag, digest and role. Thousands of repositories are held, so what repeats is kept
// once: strings, lists of keys and, for a digest under a single tag, the statements themselves.
func (e *evidence) index(all []trust.Statement) {
	all = slices.Clip(all)
	intern(all)
	e.byTag = make(map[string][]trust.Statement)
	e.byDigest = make(map[string][]trust.Statement)
	for i := 0; i < len(all); {
		end := i + 1
		for end < len(all) && all[end].Tag == all[i].Tag {
			end++
		}
		e.byTag[all[i].Tag] = all[i:end:end]
		i = end
	}
	spread := map[string][]trust.Statement{}
	for i := 0; i < len(all); {
		end := i + 1
		for end < len(all) && all[end].Tag == all[i].Tag && all[end].Digest == all[i].Digest {
			end++
		}
		digest, run := all[i].Digest, all[i:end:end]
		if first, twice := e.byDigest[digest]; !twice {
			e.byDigest[digest] = run
		} else {
			if spread[digest] == nil {
				spread[digest] = slices.Clone(first)
			}
			spread[digest] = append(spread[digest], run...)
		}
		i = end
	}
	for digest, list := range spread {
		slices.SortFunc(list, func(a, b trust.Statement) int {
			return cmp.Or(strings.Compare(a.Role, b.Role), strings.Compare(a.Tag, b.Tag))
		})
		e.byDigest[digest] = slices.Clip(list)
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
