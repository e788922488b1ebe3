package store

import (
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxRetainedUnsigned bounds the subjects of one trust root that are retained and are not known
	// to be signed: Pods may name any.
	maxRetainedUnsigned = 2000
	// forgetAfter is when a subject without signatures is dropped that nobody asked for meanwhile.
	forgetAfter = 10 * time.Minute
	// maxUnsigned is how many subjects without signatures are kept of one trust root; past it those
	// are dropped that were asked for the longest ago.
	maxUnsigned = 1000
)

// Retain says what the images that run are checked against, in place of what it was told before. It
// is fetched in the background, kept up to date, and not forgotten. Trust roots that cannot be used
// are passed over. Of a root's subjects that are not known to be signed at most 2,000 are retained,
// those first that were before; it returns how many are not.
func (t *Tracker) Retain(subjects []trust.Key) (beyond int) {
	snapshot := t.store.Load()
	wanted := map[string][]trust.Subject{}
	for _, k := range subjects {
		if snapshot.Usable(k.Root) == nil {
			wanted[k.Root] = append(wanted[k.Root], k.Subject)
		}
	}
	for root := range wanted {
		t.track(root)
	}
	for _, one := range t.all() {
		beyond += one.retain(snapshot, wanted[one.root])
	}
	return beyond
}

// retain has a subject tracked that is wanted, and forgets which were before.
func (t *track) retain(snapshot *Snapshot, wanted []trust.Subject) (beyond int) {
	now, missing := t.clock.Now(), false
	t.mu.Lock()
	t.retained, beyond = t.choose(snapshot, wanted)
	for about := range t.retained {
		if t.entries[about] == nil {
			t.entry(about, now).due = now
			missing = true
		}
	}
	t.mu.Unlock()
	if missing {
		t.wake()
	}
	return beyond
}

// choose returns which of the wanted subjects are retained, and how many are not; the lock is held.
func (t *track) choose(snapshot *Snapshot, wanted []trust.Subject) (retained map[trust.Subject]bool, beyond int) {
	retained = map[trust.Subject]bool{}
	unsigned, further := 0, []trust.Subject(nil)
	for _, about := range wanted {
		switch {
		case retained[about]:
		case signed(snapshot.evidence.get(t.key(about))):
			retained[about] = true
		case t.retained[about] && unsigned < maxRetainedUnsigned: // some may have been signed once, and are no more
			retained[about] = true
			unsigned++
		default:
			further = append(further, about)
		}
	}
	for _, about := range further {
		switch {
		case retained[about]:
		case unsigned == maxRetainedUnsigned:
			beyond++
		default:
			retained[about] = true
			unsigned++
		}
	}
	return retained, beyond
}

// prune drops what is known of subjects without signatures, or that could never be verified, so
// that requests for made-up names do not fill the memory. Nothing is lost: who asks for one again
// has it fetched again. What was signed stays, and so does what runs.
func (t *Tracker) prune() {
	for _, one := range t.all() {
		if t.store.Load().roots[one.root] == nil {
			t.Forget(one.root)
			continue
		}
		if forgotten := one.dropUnsigned(); len(forgotten) > 0 {
			t.store.dropEvidence(forgotten)
			t.changed(one.root)
		}
		for _, h := range one.pruneHosts() {
			one.publishHost(h)
		}
	}
}

// pruneHosts drops, and returns, the hosts of which no subject is left.
func (t *track) pruneHosts() (dropped []*host) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.hosts) < 2 {
		return nil // that of all subjects
	}
	asked := map[*host]bool{}
	for about := range t.entries {
		asked[t.hostOf(about)] = true
	}
	for name, h := range t.hosts {
		if name != t.server && h.flight == nil && !asked[h] {
			delete(t.hosts, name)
			dropped = append(dropped, h)
		}
	}
	return dropped
}

// forgettable stops tracking, and returns, the subjects to drop.
func (t *track) dropUnsigned() []trust.Key {
	now, snapshot := t.clock.Now(), t.store.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	var unsigned []trust.Subject
	for about, e := range t.entries {
		if e.flight == nil && !t.retained[about] && !signed(snapshot.evidence.get(t.key(about))) {
			unsigned = append(unsigned, about)
		}
	}
	// newest first
	slices.SortFunc(unsigned, func(a, b trust.Subject) int { return t.entries[b].requested.Compare(t.entries[a].requested) })
	keep := slices.IndexFunc(unsigned, func(about trust.Subject) bool {
		return now.Sub(t.entries[about].requested) > forgetAfter
	})
	if keep < 0 {
		keep = len(unsigned)
	}
	var keys []trust.Key
	for _, about := range unsigned[min(keep, maxUnsigned):] {
		delete(t.entries, about)
		keys = append(keys, t.key(about))
	}
	return keys
}
