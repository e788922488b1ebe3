package store

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Status is the state of a trust root's repositories.
type Status struct {
	// Probed says that a server was probed: the signing server, or one that serves a repository
	// that counts.
	Probed bool
	// Server is the fault of the last probe of such a server; nil where it succeeded, or was not
	// sent yet.
	Server *trust.Fault
	// Hosts counts the servers that serve a repository that counts, and HostFaults are the last
	// faults of those that fail, sorted by name.
	Hosts      int
	HostFaults []HostFault
	// Tracked counts the tracked repositories that count: those that are known to be signed, and
	// those that running images need. Pods may name any other, so these say nothing about the
	// health of the trust root. While no repository counts, all do: on a new trust root the first
	// fault must show.
	Tracked int
	// Failing counts those of Tracked with a last fetch that failed.
	Failing int
	// Faults are the last faults of the failing repositories: those known to be signed first, and
	// then by repository.
	Faults []RepositoryFault
	// Unknown counts the tracked repositories that do not count, and UnknownFailing those of them
	// with a last fetch that failed.
	Unknown, UnknownFailing int
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
	// Base is the state of the base of the trust root; nil: it has none.
	Base *BaseStatus
	// Succeeded is when a refresh last succeeded: a fetch, or a reading of the change feed that
	// does not list the repository.
	Succeeded time.Time
	// Oldest is the earliest last successful refresh of any evidence in use.
	Oldest time.Time
	// Interval is how often a repository is refreshed.
	Interval time.Duration
}

// BaseStatus is the state of the base of a trust root (trust.Based). Base and repositories are
// counted apart.
type BaseStatus struct {
	// Loaded says that it is in use.
	Loaded bool
	// Expires is when it expires; zero: never, or it is not loaded.
	Expires time.Time
	// Fault is that of the last fetch; nil where it succeeded, or has not ended yet.
	Fault *trust.Fault
}

// RepositoryFault is the last fault of one repository.
type RepositoryFault struct {
	Repository string
	Fault      *trust.Fault

	signed bool // it is known to be signed
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
	s.base(snapshot, root, now)
	return s
}

// base adds the state of the base, of which the fault of the last fetch is set already.
func (s *Status) base(snapshot *Snapshot, root string, now time.Time) {
	if _, ok := snapshot.roots[root].based(); !ok {
		s.Base = nil
		return
	}
	if s.Base == nil {
		s.Base = &BaseStatus{}
	}
	if h := snapshot.evidence.get(baseOf(root)); h != nil && h.evidence != nil && h.fault == nil {
		s.Base.Expires, _ = h.evidence.Expiry()
		s.Base.Loaded = !h.past(now)
	}
}

// outcome is the outcome of the fetches of one repository.
type outcome struct {
	// Of several failing subjects the first is reported.
	about  trust.Key
	fault  *trust.Fault
	signed bool // it is known to be signed
	counts bool // or needed by a running image
}

// schedules adds the outcomes of fetches, by repository.
func (s *Status) schedules(snapshot *Snapshot, one *track, now time.Time) {
	one.mu.Lock()
	repositories, hosts := one.outcomes(snapshot, now)
	s.Interval = one.interval
	s.Probed, s.Server = one.health(hosts)
	s.Hosts, s.HostFaults = one.hostFaults(snapshot, func(about trust.Subject) bool {
		return len(hosts) == 0 || one.counts(snapshot, about)
	})
	for about, e := range one.entries {
		if about == trust.BaseSubject {
			s.Base = &BaseStatus{Fault: e.fault}
			continue
		}
		if len(hosts) > 0 && !one.counts(snapshot, about) {
			continue
		}
		refreshed := one.feed.refreshed(e)
		if refreshed.After(s.Succeeded) {
			s.Succeeded = refreshed
		}
		if snapshot.known(one.key(about), now) && !refreshed.IsZero() &&
			(s.Oldest.IsZero() || refreshed.Before(s.Oldest)) {
			s.Oldest = refreshed
		}
	}
	one.mu.Unlock()
	for name, r := range repositories {
		switch {
		case len(hosts) > 0 && !r.counts:
			s.Unknown++
			if r.fault != nil {
				s.UnknownFailing++
			}
		case r.fault != nil:
			s.Faults = append(s.Faults, RepositoryFault{Repository: name, Fault: r.fault, signed: r.signed})
		}
	}
	s.Tracked, s.Failing = len(repositories)-s.Unknown, len(s.Faults)
	slices.SortFunc(s.Faults, func(a, b RepositoryFault) int {
		if a.signed != b.signed {
			if a.signed {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Repository, b.Repository)
	})
}

// outcomes returns the outcomes by repository, and the hosts that serve a subject that counts. A
// subject that does not count says nothing about a repository that does. The lock is held.
func (t *track) outcomes(snapshot *Snapshot,
	now time.Time) (repositories map[string]outcome, hosts map[*host]bool) {
	repositories, hosts = map[string]outcome{}, map[*host]bool{}
	for about, e := range t.entries {
		if about == trust.BaseSubject {
			continue
		}
		k, counts := t.key(about), t.counts(snapshot, about)
		r := repositories[k.Name()]
		if counts {
			hosts[t.hostOf(about)] = true
			if !r.counts {
				r = outcome{counts: true}
			}
			r.signed = r.signed || snapshot.known(k, now)
		}
		if counts == r.counts && e.fault != nil && !snapshot.isOfTenant(k, e.fault) &&
			(r.fault == nil || k.Compare(r.about) < 0) {
			r.about, r.fault = k, e.fault
		}
		repositories[k.Name()] = r
	}
	return repositories, hosts
}

// isOfTenant reports whether a fault is the matter of one namespace: its pull secrets were refused,
// or they are what remains to read a subject of which no evidence is held.
func (s *Snapshot) isOfTenant(k trust.Key, f *trust.Fault) bool {
	if f.Reason != v1alpha1.ReasonUnauthorized {
		return false
	}
	if k.Tenant != "" {
		return true
	}
	_, ok := s.Tenant(k, "any")
	return ok && s.evidence.get(k).verified() == nil
}

// health reports whether a host was probed, and returns the fault of the first, by name, whose
// probe failed. It is about the server, and the hosts that serve a subject that counts; about all
// where there are none. The lock is held.
func (t *track) health(counting map[*host]bool) (probed bool, fault *trust.Fault) {
	for _, name := range slices.Sorted(maps.Keys(t.hosts)) {
		h := t.hosts[name]
		if len(counting) > 0 && !counting[h] && !t.isServer(h) {
			continue
		}
		probed = probed || h.probe.fault != nil || !h.probe.succeeded.IsZero()
		fault = cmp.Or(fault, t.probeFault(h))
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
