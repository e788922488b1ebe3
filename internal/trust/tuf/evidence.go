package tuf

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

const (
	// maxFaults bounds the faults of one subject.
	maxFaults = 8
	// maxFiles bounds the files whose expiry the evidence of one subject reports.
	maxFiles = 256
)

// evidence is what the metadata of a TUF repository says about one subject. It implements
// trust.Evidence.
type evidence struct {
	root       *Root // it was made for the roles of this
	repository *repository
	about      trust.Subject
	metadata   *metadata
	statements []trust.Statement // sorted by digest, role and tag
	notAfter   time.Time
	file       string
	files      []trust.File
	faults     []*trust.Fault
	// lapsed are delegated files that had expired when they were fetched, sorted: no grace makes
	// them count.
	lapsed []string
	known  bool // something is signed, or was once
	size   int64
}

var (
	_ trust.Evidence = (*evidence)(nil)
	_ trust.Sized    = (*evidence)(nil)
	_ trust.Dated    = (*evidence)(nil)
)

// Hints implements trust.Evidence. There are none: the digest of a tag is signed.
func (*evidence) Hints(string) []string { return nil }

// Statements implements trust.Evidence. Each is about a tag.
func (e *evidence) Statements(tag, digest string) []trust.Statement {
	all := e.statements
	if digest != "" {
		from, _ := slices.BinarySearchFunc(all, digest, func(s trust.Statement, digest string) int {
			return strings.Compare(s.Digest, digest)
		})
		to := from
		for to < len(all) && all[to].Digest == digest {
			to++
		}
		all = all[from:to]
	}
	if tag == "" || tag == e.about.Tag {
		return all
	}
	var some []trust.Statement
	for i := range all {
		if all[i].Tag == tag {
			some = append(some, all[i])
		}
	}
	return some
}

// Signed implements trust.Evidence.
func (e *evidence) Signed() bool { return e.known }

// Faults implements trust.Evidence: the files that could not be loaded.
func (e *evidence) Faults() []*trust.Fault { return e.faults }

// Expiry implements trust.Evidence.
func (e *evidence) Expiry() (notAfter time.Time, file string) { return e.notAfter, e.file }

// Files implements trust.Dated.
func (e *evidence) Files() []trust.File { return e.files }

// Size implements trust.Sized. The metadata counts with the first evidence that is made of it, and
// not with each of possibly thousands.
func (e *evidence) Size() int64 { return e.size }

// notObtained reports whether the server has not delivered the files with faults, as in the middle
// of a publication. A file that was delivered and is not signed as it must be is another matter: a
// key may have been replaced, and what it has signed must not stay.
func (e *evidence) notObtained() bool {
	return !slices.ContainsFunc(e.faults, func(f *trust.Fault) bool {
		return !f.Unavailable() && f.Reason != v1alpha1.ReasonMetadataMissing && f.Reason != v1alpha1.ReasonUnauthorized
	})
}

// view says when and for whom metadata is read.
type view struct {
	// at is the time by which delegated files must not have expired.
	at time.Time
	// now is the present: what expired before it has lapsed, unless at is earlier.
	now    time.Time
	lapsed []string
	known  bool
}

// evidenceOf returns what metadata says about a subject.
func (r *Root) evidenceOf(p *repository, m *metadata, about trust.Subject, v view) *evidence {
	e := &evidence{root: r, repository: p, about: about, metadata: m, known: v.known}
	e.notAfter, e.file = m.state.Expiry()
	e.files = m.state.TopLevel()
	for i := range e.files {
		// The timestamp is signed by a process, and often for less than the warning is ahead.
		e.files[i].Unattended = e.files[i].Kind == "timestamp"
	}
	top := len(e.files)
	tags, paths := r.pathsOf(m, about)
	for i, path := range paths {
		a := m.state.Signed(path, v.at)
		signed := withoutLapsed(a.Signed, v.lapsed)
		e.known = e.known || len(a.Signed) > 0
		e.statements = append(e.statements, r.roles.statements(signed, tags[i])...)
		e.addFiles(a.Files, top)
		e.addFaults(a.Faults)
	}
	if about.Tag == "" {
		e.addFaults(m.state.Unloaded(r.layout.family(about.Repository)))
	}
	slices.SortFunc(e.statements, compareStatements)
	e.statements = shareTexts(e.statements)
	slices.SortFunc(e.files[top:], func(a, b trust.File) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range e.files[top:] {
		name := strings.TrimSuffix(f.Name, ".json")
		if !f.NotAfter.After(v.now) && (!f.NotAfter.After(v.at) || slices.Contains(v.lapsed, name)) {
			e.lapsed = append(e.lapsed, name)
		}
	}
	e.size = e.ownSize()
	return e
}

// charged returns the evidence, with the size of its metadata if that counts with none yet. It must
// be called before e is shared.
func (e *evidence) charged() *evidence {
	if e.metadata.charged.CompareAndSwap(false, true) {
		e.size += e.metadata.state.Size()
	}
	return e
}

// current reports whether none of the files has expired since the evidence was made.
func (e *evidence) current(now time.Time) bool {
	return !slices.ContainsFunc(e.files, func(f trust.File) bool {
		return !f.NotAfter.After(now) && !slices.Contains(e.lapsed, strings.TrimSuffix(f.Name, ".json"))
	})
}

// pathsOf returns the target paths of a subject with their tags.
func (r *Root) pathsOf(m *metadata, about trust.Subject) (tags, paths []string) {
	if about.Tag != "" {
		return []string{about.Tag}, []string{r.layout.path(about.Repository, about.Tag)}
	}
	return m.in(r.layout.family(about.Repository))
}

// withoutLapsed drops what was signed in, or below, a file that had expired when it was fetched.
func withoutLapsed(signed []tufrepo.Signed, lapsed []string) []tufrepo.Signed {
	if len(lapsed) == 0 {
		return signed
	}
	return slices.DeleteFunc(slices.Clone(signed), func(s tufrepo.Signed) bool {
		return slices.Contains(lapsed, s.File) ||
			slices.ContainsFunc(s.Via, func(name string) bool { return slices.Contains(lapsed, name) })
	})
}

func (e *evidence) addFiles(files []trust.File, top int) {
	for _, f := range files {
		if len(e.files) < maxFiles && !slices.Contains(e.files[top:], f) {
			e.files = append(e.files, f)
		}
	}
}

func (e *evidence) addFaults(faults []*trust.Fault) {
	for _, f := range faults {
		if len(e.faults) < maxFaults && !slices.ContainsFunc(e.faults, func(have *trust.Fault) bool {
			return have.Reason == f.Reason && have.Error() == f.Error()
		}) {
			e.faults = append(e.faults, f)
		}
	}
}

// shareTexts makes equal digests and lists of keys the same text: a repository with many tags has
// few of either. all is sorted by digest.
func shareTexts(all []trust.Statement) []trust.Statement {
	lists := map[string][]string{}
	for i := range all {
		if i > 0 && all[i].Digest == all[i-1].Digest {
			all[i].Digest = all[i-1].Digest
		}
		list := strings.Join(all[i].Keys, " ")
		if lists[list] == nil {
			lists[list] = all[i].Keys
		}
		all[i].Keys = lists[list]
	}
	return slices.Clip(all)
}

// ownSize returns an upper bound of the memory without the metadata, in bytes.
func (e *evidence) ownSize() int64 {
	const fixed, perStatement, perFile, perFault, perKey, perDigest = 512, 128, 128, 512, 96, 80
	size := int64(fixed + perStatement*len(e.statements) + perFile*len(e.files) + perFault*len(e.faults))
	var before *trust.Statement
	for i := range e.statements {
		s := &e.statements[i]
		if before == nil || before.Digest != s.Digest {
			size += perDigest
		}
		if before == nil || !slices.Equal(before.Keys, s.Keys) {
			size += int64(perKey * len(s.Keys))
		}
		before = s
	}
	return size
}

// same reports whether e says what held says, of the same publication. Then held stays: nothing
// that depends on it need be computed again.
func (e *evidence) same(held *evidence) bool {
	return held != nil && held.root == e.root && held.repository == e.repository && held.known == e.known &&
		held.metadata.state.Versions() == e.metadata.state.Versions() && held.notAfter.Equal(e.notAfter) &&
		slices.Equal(held.lapsed, e.lapsed) && slices.EqualFunc(held.files, e.files, sameFile) &&
		slices.EqualFunc(held.statements, e.statements, sameStatement) &&
		slices.EqualFunc(held.faults, e.faults, func(a, b *trust.Fault) bool {
			return a.Reason == b.Reason && a.Error() == b.Error()
		})
}

func sameFile(a, b trust.File) bool {
	return a.Name == b.Name && a.NotAfter.Equal(b.NotAfter)
}

func sameStatement(a, b trust.Statement) bool {
	return cmp.Or(compareStatements(a, b), a.NotAfter.Compare(b.NotAfter), slices.Compare(a.Keys, b.Keys)) == 0
}
