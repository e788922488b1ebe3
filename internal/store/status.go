package store

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// Status is the state of a trust root's repositories.
type Status struct {
	// Probed says that the signing server was probed.
	Probed bool
	// Server is the fault of the last probe of the signing server; nil where it succeeded, or was
	// not sent yet.
	Server *trust.Fault
	// Tracked counts the tracked repositories, and Failing those with a last fetch that failed.
	Tracked, Failing int
	// Faults are the last faults of the failing repositories, sorted by repository.
	Faults []RepositoryFault
	// Expires is the earliest expiry of metadata in use, and ExpiresFirst its repository and file.
	Expires      time.Time
	ExpiresFirst string
	// Signed is the earliest expiry of a file that people sign, expired delegations included, and
	// Unattended the earliest expiry of a file that the server signs by itself.
	Signed, Unattended Expiry
	// Expiries are the earliest expiries of metadata in use, by the kind of file.
	Expiries map[string]time.Time
	// Unanchored are the IDs of pinned keys that no verified repository has, sorted; empty while no
	// repository is verified.
	Unanchored []string
	// InGrace counts the expired repositories that are used on the grace of the trust root, and
	// GraceEnds is when the grace of the first of them ends.
	InGrace   int
	GraceEnds time.Time
	// Succeeded is when a refresh last succeeded: a fetch, or a reading of the change feed that
	// does not list the repository.
	Succeeded time.Time
	// Oldest is the earliest last successful refresh of any evidence in use.
	Oldest time.Time
	// Interval is how often a repository is refreshed.
	Interval time.Duration
}

// RepositoryFault is the last fault of one repository.
type RepositoryFault struct {
	Repository string
	Fault      *trust.Fault
}

// Expiry is when a file of a repository expires. Zero: none does.
type Expiry struct {
	NotAfter         time.Time
	Repository, File string
}

// abandoned is how long after its expiry a delegation is no longer reported.
const abandoned = 30 * 24 * time.Hour

// Status returns the state of a trust root's repositories.
func (t *Tracker) Status(root string) Status {
	s := Status{Expiries: map[string]time.Time{}}
	snapshot, now := t.store.Load(), t.clock.Now()
	if one := t.lookup(root); one != nil {
		s.schedules(snapshot, one, now)
	}
	for k, h := range snapshot.evidence.under(root) {
		if h.evidence != nil && h.fault == nil {
			s.expiries(k.Name(), h, now)
			s.grace(snapshot.grace(k, h), h, now)
		}
	}
	s.Unanchored = snapshot.unanchored(root)
	return s
}

// schedules adds the outcomes of fetches, by repository.
func (s *Status) schedules(snapshot *Snapshot, one *track, now time.Time) {
	// Of several failing subjects of a repository the first is reported.
	type failure struct {
		about trust.Key
		fault *trust.Fault
	}
	repositories := map[string]failure{}
	one.mu.Lock()
	s.Interval = one.interval
	s.Probed, s.Server = one.health()
	for about, e := range one.entries {
		k := one.key(about)
		refreshed := one.feed.refreshed(e)
		if refreshed.After(s.Succeeded) {
			s.Succeeded = refreshed
		}
		if snapshot.known(k, now) && !refreshed.IsZero() &&
			(s.Oldest.IsZero() || refreshed.Before(s.Oldest)) {
			s.Oldest = refreshed
		}
		f := repositories[k.Name()]
		if e.fault != nil && (f.fault == nil || k.Compare(f.about) < 0) {
			f = failure{about: k, fault: e.fault}
		}
		repositories[k.Name()] = f
	}
	one.mu.Unlock()
	s.Tracked = len(repositories)
	for repository, f := range repositories {
		if f.fault != nil {
			s.Faults = append(s.Faults, RepositoryFault{Repository: repository, Fault: f.fault})
		}
	}
	s.Failing = len(s.Faults)
	slices.SortFunc(s.Faults, func(a, b RepositoryFault) int { return cmp.Compare(a.Repository, b.Repository) })
}

// health reports whether any host was probed, and returns the fault of the first host, by name,
// whose probe failed; the lock is held.
func (t *track) health() (probed bool, fault *trust.Fault) {
	for _, name := range slices.Sorted(maps.Keys(t.hosts)) {
		h := t.hosts[name]
		probed = probed || h.probe.fault != nil || !h.probe.succeeded.IsZero()
		if fault == nil {
			fault = h.probe.fault
		}
	}
	return probed, fault
}

// unanchored returns the anchors of a trust root that none of its verified evidence has.
func (s *Snapshot) unanchored(root string) []string {
	r := s.roots[root]
	if r == nil || r.Verifier == nil {
		return nil
	}
	anchors, ok := r.Verifier.(trust.Anchors)
	if !ok {
		return nil
	}
	met, verified := map[string]bool{}, false
	for _, h := range s.evidence.under(root) {
		if h.fault != nil {
			continue
		}
		if anchored, ok := h.evidence.(trust.Anchored); ok {
			verified = true
			for _, id := range anchored.Anchors() {
				met[id] = true
			}
		}
	}
	if !verified {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(anchors.Anchors()), func(id string) bool { return met[id] })
}

// expiries adds the expiries of a repository's files.
func (s *Status) expiries(repository string, h *cached, now time.Time) {
	at, file := h.evidence.Expiry()
	files := []trust.File{{Name: file, NotAfter: at}}
	if dated, ok := h.evidence.(trust.Dated); ok {
		files = dated.Files()
	}
	for _, f := range files {
		if f.NotAfter.IsZero() || f.Part && now.Sub(f.NotAfter) > abandoned {
			continue
		}
		first := Expiry{NotAfter: f.NotAfter, Repository: repository, File: f.Name}
		if in := (Expiry{NotAfter: s.Expires}); first.before(in) || f.NotAfter.Equal(s.Expires) && repository+" "+
			f.Name < s.ExpiresFirst {
			if !f.Part || now.Before(f.NotAfter) { // else it is no longer in use
				s.Expires, s.ExpiresFirst = f.NotAfter, repository+" "+f.Name
			}
		}
		among := &s.Signed
		if f.Unattended {
			among = &s.Unattended
		}
		if first.before(*among) || first.NotAfter.Equal(among.NotAfter) && repository+" "+f.Name < among.Repository+" "+
			among.File {
			*among = first
		}
		if have := s.Expiries[f.Kind]; have.IsZero() || f.NotAfter.Before(have) {
			s.Expiries[f.Kind] = f.NotAfter
		}
	}
}

func (e Expiry) before(other Expiry) bool {
	return other.NotAfter.IsZero() || e.NotAfter.Before(other.NotAfter)
}

// grace counts a repository that is used past its expiry.
func (s *Status) grace(grace time.Duration, h *cached, now time.Time) {
	if grace <= 0 || !h.past(now) {
		return
	}
	at, _ := h.evidence.Expiry()
	if ends := at.Add(grace); now.Before(ends) {
		s.InGrace++
		if s.GraceEnds.IsZero() || ends.Before(s.GraceEnds) {
			s.GraceEnds = ends
		}
	}
}
