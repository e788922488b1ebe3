package store

import (
	"cmp"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// Status is the state of a trust root's repositories.
type Status struct {
	// Probed says that the signing server was asked for a sign of life.
	Probed bool
	// Server is the fault of the last probe of the signing server; nil where it answered, or was not asked yet.
	Server *trust.Fault
	// Tracked counts the repositories that are kept up to date, Failing those whose last fetch failed.
	Tracked, Failing int
	// Faults are the last faults of the failing repositories, sorted by repository.
	Faults []RepositoryFault
	// Expires is the earliest expiry of evidence in use, and ExpiresFirst the repository and file that it is of.
	Expires      time.Time
	ExpiresFirst string
	// Expiries are the earliest expiries of evidence in use, by the file that ends it.
	Expiries map[string]time.Time
	// Succeeded is when a refresh last succeeded: a fetch, or a reading of what was published that names nothing of the repository.
	Succeeded time.Time
	// Oldest is when the evidence in use that is the longest without a refresh that succeeded had its last.
	Oldest time.Time
	// Interval is how often a repository is refreshed.
	Interval time.Duration
}

// RepositoryFault is the last fault of one repository.
type RepositoryFault struct {
	Repository string
	Fault      *trust.Fault
}

// Status returns the state of a trust root's repositories.
func (t *Tracker) Status(root string) Status {
	s := Status{Expiries: map[string]time.Time{}}
	evidence := t.store.Load().evidence
	t.mu.Lock()
	if p := t.roots[root]; p != nil {
		s.Interval = p.interval
	}
	for k, e := range t.tracked {
		if k.Root != root {
			continue
		}
		if k == probe(root) {
			s.Probed, s.Server = e.fault != nil || !e.succeeded.IsZero(), e.fault
			continue
		}
		s.Tracked++
		refreshed := t.refreshed(k, e)
		if refreshed.After(s.Succeeded) {
			s.Succeeded = refreshed
		}
		if signed(evidence[k]) && !refreshed.IsZero() && (s.Oldest.IsZero() || refreshed.Before(s.Oldest)) {
			s.Oldest = refreshed
		}
		if e.fault != nil {
			s.Failing++
			s.Faults = append(s.Faults, RepositoryFault{Repository: k.Repository, Fault: e.fault})
		}
	}
	t.mu.Unlock()
	slices.SortFunc(s.Faults, func(a, b RepositoryFault) int { return cmp.Compare(a.Repository, b.Repository) })
	for k, h := range evidence {
		if k.Root != root || h.evidence == nil || h.fault != nil {
			continue
		}
		at, file := h.evidence.Expiry()
		first := k.Repository + " " + file
		if !at.IsZero() && (s.Expires.IsZero() || at.Before(s.Expires) || at.Equal(s.Expires) && first < s.ExpiresFirst) {
			s.Expires, s.ExpiresFirst = at, first
		}
		if have := s.Expiries[file]; !at.IsZero() && (have.IsZero() || at.Before(have)) {
			s.Expiries[file] = at
		}
	}
	return s
}
