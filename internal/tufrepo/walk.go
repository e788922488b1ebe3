package tufrepo

import (
	"fmt"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxDepth bounds the delegations between targets and a role.
	maxDepth = 8
	// maxVisits bounds the roles that are visited for one path.
	maxVisits = 64
	// maxRejections bounds the rejections of one path.
	maxRejections = 64
)

// Answer is what is known about one path.
type Answer struct {
	// Signed are the roles that have signed a target under the path, in the order of trust.
	Signed []Signed
	// Rejected are the roles that were expected to, and do not count. It is bounded.
	Rejected []Rejection
	// Missing are the roles whose files Load has not loaded: the answer is incomplete. Faults says
	// of each of them why.
	Missing []string
	Faults  []*trust.Fault
	// Files are the delegated files that list the path, and those above them, each once.
	Files []trust.File
}

// Signed is a target that a role has signed.
type Signed struct {
	// Role is the name of the role: "targets", or that of a delegation. The bins of a role speak
	// for the role.
	Role string
	// By is the role that delegates to Role: "targets", or another delegation. Empty for "targets".
	By string
	// File is the name of the role whose file has the target: Role, or one of its bins.
	File string
	// Via are the files from targets to File, without it.
	Via []string
	Target
	// Keys are the keys that have signed File, sorted.
	Keys []Key
	// Owners are the keys that have signed the file of Role, sorted. That names the keys of its
	// bins.
	Owners []Key
	// NotAfter is when the first of File and Via expires.
	NotAfter time.Time
}

// Rejection is a role that does not count for a path, and why.
type Rejection struct {
	// Role is the role that the file would speak for, and File its name.
	Role, File string
	// Why is the rest of the sentence that begins with the file.
	Why string
}

// Signed returns who has signed a target under a path at a time, from what is loaded (section
// 5.6.7, but for every role and not only for the first). Delegations are followed in their order. A
// terminating one that covers the path ends the search, whether its role has signed or not: the
// roles after it are Rejected.
//
// Hash bins end only the search below the role that they split.
func (s *State) Signed(path string, at time.Time) Answer {
	w := s.walk(path, at)
	a := w.Answer
	for _, e := range w.missing {
		name, _ := e.child()
		a.Missing = append(a.Missing, name)
		a.Faults = append(a.Faults, s.faultOf(name))
	}
	return a
}

// Lacks reports whether Load of a path, or if that is empty, LoadFamilies of a family, has not
// loaded all.
func (s *State) Lacks(path string, family Family) bool {
	if path == "" {
		return len(s.unverifiedOf(family)) > 0
	}
	return len(s.Signed(path, s.targets.expires).Missing) > 0
}

// Unloaded returns the faults of the files that LoadFamilies of a family has not loaded.
func (s *State) Unloaded(family Family) []*trust.Fault {
	var faults []*trust.Fault
	for _, e := range s.unverifiedOf(family) {
		name, _ := e.child()
		faults = append(faults, s.faultOf(name))
	}
	return faults
}

// faultOf returns why a file is not loaded.
func (s *State) faultOf(name string) *trust.Fault {
	if fault := s.failed[name]; fault != nil {
		return fault
	}
	return trust.NewFault(v1alpha1.ReasonNotLoaded, "%s.json is not loaded", name)
}

func (s *State) walk(path string, at time.Time) *walk {
	w := &walk{state: s, path: path, hash: pathHash(path), at: at}
	if !s.expired && checkPath(path, maxPath) == nil {
		w.visit(s.targets, step{
			role: targetsRole, keys: s.targets.signers, owners: s.targets.signers, notAfter: s.targets.expires,
		})
	}
	return w
}

// walk is a search for one path.
type walk struct {
	Answer
	state      *State
	path, hash string
	at         time.Time
	missing    []edge
	visits     int
	ended      string // what ended the search; empty: nothing yet
}

// step is how the search came to a file.
type step struct {
	role     string // that the file speaks for
	by       string // that delegates to the role
	keys     []Key
	owners   []Key // that have signed the file of the role
	notAfter time.Time
	via      []string
}

func (w *walk) reject(role, file, format string, args ...any) {
	if len(w.Rejected) < maxRejections {
		w.Rejected = append(w.Rejected, Rejection{Role: role, File: file, Why: fmt.Sprintf(format, args...)})
	}
}

// visit reads a verified file and follows its delegations.
func (w *walk) visit(f *targetsFile, s step) {
	if w.visits++; w.visits > maxVisits {
		w.ended = fmt.Sprintf("more than %d roles may sign this path", maxVisits)
		w.reject(s.role, f.name, "is not read: %s", w.ended)
		return
	}
	if t, ok := f.target(w.path); ok {
		w.addFiles(append(slices.Clip(s.via), f.name))
		switch {
		case !t.bound():
			w.reject(s.role, f.name, "lists it without a sha256 or sha512 hash, which binds no content")
		case s.notAfter.After(w.at):
			w.Signed = append(w.Signed, Signed{
				Role: s.role, By: s.by, File: f.name, Via: s.via, Target: t, Keys: s.keys, Owners: s.owners,
				NotAfter: s.notAfter,
			})
		default:
			w.reject(s.role, f.name, "or a file above it expired at %s; it must be signed anew",
				s.notAfter.UTC().Format(time.RFC3339))
		}
	}
	s.via = append(slices.Clip(s.via), f.name)
	if f.bins != nil {
		w.follow(edge{from: f, index: f.bins.number(w.path)}, s.role, s)
		return
	}
	for i := range f.delegations {
		d := &f.delegations[i]
		switch {
		case !d.allows(w.path, w.hash):
			continue
		case w.ended != "":
			w.reject(d.name, d.name, "does not count for this path: %s", w.ended)
			continue
		case d.invalid != nil:
			w.reject(d.name, d.name, "does not count: %v", d.invalid)
		case f != w.state.targets && w.state.targets.own[d.name]:
			w.reject(d.name, d.name, "does not count as delegated by %s: the name belongs to a delegation of targets",
				f.name)
		default:
			w.follow(edge{from: f, index: uint32(i)}, d.name, s)
		}
		if d.terminating && w.ended == "" {
			w.ended = fmt.Sprintf("%s delegates the path to %s with a terminating delegation before it", f.name, d.name)
		}
	}
}

// addFiles adds delegated files that are not among the Files yet.
func (w *walk) addFiles(names []string) {
	for _, name := range names {
		f := w.state.files[name]
		if f == nil || slices.ContainsFunc(w.Files, func(have trust.File) bool { return have.Name == name+".json" }) {
			continue
		}
		w.Files = append(w.Files, f.delegated())
	}
}

// follow visits the file of a delegation, which speaks for a role.
func (w *walk) follow(e edge, role string, s step) {
	name, _ := e.child()
	switch {
	case slices.Contains(s.via, name):
		w.reject(role, name, "delegates in a circle")
		return
	case len(s.via) > maxDepth:
		w.reject(role, name, "is more than %d delegations below targets", maxDepth)
		return
	}
	v, known := w.state.edges[e]
	switch {
	case !known:
		w.missing = append(w.missing, e)
	case v.to == nil:
		w.reject(role, name, "%s", v.why)
	default:
		if role != s.role {
			s.by, s.owners = s.role, v.keys
		}
		s.role, s.keys = role, v.keys
		if v.to.expires.Before(s.notAfter) {
			s.notAfter = v.to.expires
		}
		w.visit(v.to, s)
	}
}

// Paths calls yield for every target path of every loaded file, until it returns false. A path may
// come more than once. Whether a role counts for it, Signed says.
func (s *State) Paths(yield func(path string) bool) {
	for _, t := range s.targets.targets {
		if !yield(t.path) {
			return
		}
	}
	for _, f := range s.files {
		for _, t := range f.targets {
			if !yield(t.path) {
				return
			}
		}
	}
}

// unverified returns every delegation between loaded files that is not verified yet, whatever the
// path. With unloaded, it also returns those to listed files that are not loaded.
func (s *State) unverified(unloaded bool) []edge {
	var edges []edge
	seen := map[*targetsFile]bool{s.targets: true}
	for queue := []*targetsFile{s.targets}; len(queue) > 0; queue = queue[1:] {
		for _, e := range s.delegationsOf(queue[0]) {
			v, known := s.edges[e]
			name, _ := e.child()
			_, listed := s.snapshot.listed[name]
			switch {
			case known && v.to != nil && !seen[v.to]:
				seen[v.to] = true
				queue = append(queue, v.to)
			case !known && (s.files[name] != nil || unloaded && listed):
				edges = append(edges, e)
			}
		}
	}
	return edges
}

// unverifiedOf is unverified, with those that are not loaded, for delegations that may have a path
// of a family.
func (s *State) unverifiedOf(family Family) []edge {
	var edges []edge
	seen := map[*targetsFile]bool{s.targets: true}
	for queue := []*targetsFile{s.targets}; len(queue) > 0; queue = queue[1:] {
		for _, e := range s.delegationsOf(queue[0]) {
			if e.from.bins == nil && !e.from.delegations[e.index].mayAllow(family) {
				continue
			}
			switch v, known := s.edges[e]; {
			case !known:
				edges = append(edges, e)
			case v.to != nil && !seen[v.to]:
				seen[v.to] = true
				queue = append(queue, v.to)
			}
		}
	}
	return edges
}

// delegationsOf returns the delegations of a file: of hash bins, those that the snapshot lists.
func (s *State) delegationsOf(f *targetsFile) []edge {
	var edges []edge
	if f.bins != nil {
		for name := range s.snapshot.listed {
			if number, ok := f.bins.parse(name); ok {
				edges = append(edges, edge{from: f, index: number})
			}
		}
		return edges
	}
	for i := range f.delegations {
		if f.delegations[i].invalid == nil {
			edges = append(edges, edge{from: f, index: uint32(i)})
		}
	}
	return edges
}
