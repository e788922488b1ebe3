package store

import (
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxRetainedUnsigned bounds the retained subjects of one trust root that are not known to be
	// signed: Pods may name any.
	maxRetainedUnsigned = 2000
	// forgetAfter is how long after the last request a subject without signatures is dropped.
	forgetAfter = 10 * time.Minute
	// maxTags bounds the tags of one trust root that mean a signed digest; beyond it those with the
	// oldest use are dropped. Whoever may push to a repository may tag such a digest at will.
	maxTags = 10_000
	// forgetTagAfter is how long after its last use a tag of a signed digest is dropped: some
	// pipelines make a tag for each build.
	forgetTagAfter = 7 * 24 * time.Hour
	// maxUnsigned bounds the subjects without signatures of one trust root; beyond it those with
	// the oldest requests are dropped.
	maxUnsigned = 1000
)

// Retain replaces the list of subjects that the running images need. The tracker fetches them in
// the background, refreshes them and does not drop them. It skips unusable trust roots. Of a root's
// subjects that are not known to be signed it retains at most 2,000, those first that it retained
// before; it returns how many it does not retain.
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

// retain replaces the retained subjects, and tracks them.
func (t *track) retain(snapshot *Snapshot, wanted []trust.Subject) (beyond int) {
	now, missing := t.clock.Now(), false
	t.mu.Lock()
	t.retained, beyond = t.choose(snapshot, wanted, now)
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

// choose returns the wanted subjects to retain, and the number of the others; the lock is held.
func (t *track) choose(snapshot *Snapshot, wanted []trust.Subject, now time.Time) (retained map[trust.Subject]bool,
	beyond int) {
	retained = map[trust.Subject]bool{}
	unsigned, further := 0, []trust.Subject(nil)
	for _, about := range wanted {
		switch {
		case retained[about]:
		case snapshot.known(t.key(about), now):
			retained[about] = true
		case t.retained[about] && unsigned < maxRetainedUnsigned: // some may have been signed before
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

// prune drops subjects without signatures, and those that could never be verified, so that requests
// for made-up names do not fill the memory. The next request for one fetches it again. Signed
// subjects stay, but not the tags of signed digests beyond maxTags or unused for forgetTagAfter.
// Retained subjects stay.
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

// pruneHosts drops and returns the hosts without subjects.
func (t *track) pruneHosts() (dropped []*host) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.hosts) < 2 {
		return nil // the only host serves all subjects
	}
	serving := map[*host]bool{}
	for about := range t.entries {
		serving[t.hostOf(about)] = true
	}
	for name, h := range t.hosts {
		if name != t.server && h.flight == nil && !serving[h] {
			delete(t.hosts, name)
			dropped = append(dropped, h)
		}
	}
	return dropped
}

// dropUnsigned stops tracking the subjects to drop, and returns them: unsigned ones, and tags that
// nothing has used.
func (t *track) dropUnsigned() []trust.Key {
	now, snapshot := t.clock.Now(), t.store.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	var unsigned, drop []trust.Subject
	tags := 0
	for about, e := range t.entries {
		switch k := t.key(about); {
		case e.flight != nil || t.retained[about]:
		case !snapshot.known(k, now):
			unsigned = append(unsigned, about)
		case about.Tag == "":
		case now.Sub(e.lastUse(snapshot.evidence.get(k), now)) > forgetTagAfter:
			drop = append(drop, about)
		default:
			tags++
		}
	}
	t.newestFirst(unsigned, func(e *entry) time.Time { return e.requested })
	keep := slices.IndexFunc(unsigned, func(about trust.Subject) bool {
		return now.Sub(t.entries[about].requested) > forgetAfter
	})
	if keep < 0 {
		keep = len(unsigned)
	}
	drop = append(drop, unsigned[min(keep, maxUnsigned):]...)
	if tags > maxTags {
		drop = append(drop, t.oldestTags(snapshot, now)...)
	}
	var keys []trust.Key
	for _, about := range drop {
		delete(t.entries, about)
		keys = append(keys, t.key(about))
	}
	return keys
}

// oldestTags returns the tags of signed digests beyond maxTags; the lock is held.
func (t *track) oldestTags(snapshot *Snapshot, now time.Time) []trust.Subject {
	var tags []trust.Subject
	for about, e := range t.entries {
		if about.Tag != "" && e.flight == nil && !t.retained[about] && snapshot.known(t.key(about), now) {
			tags = append(tags, about)
		}
	}
	t.newestFirst(tags, func(e *entry) time.Time { return later(e.requested, e.used) })
	return tags[min(maxTags, len(tags)):]
}

// newestFirst sorts subjects by a time of their entries; the lock is held.
func (t *track) newestFirst(subjects []trust.Subject, last func(*entry) time.Time) {
	slices.SortFunc(subjects, func(a, b trust.Subject) int { return last(t.entries[b]).Compare(last(t.entries[a])) })
}

// lastUse returns when a decision or a request last used an entry, whose state is h.
func (e *entry) lastUse(h *cached, now time.Time) time.Time {
	if h.used.Swap(false) {
		e.used = now
	}
	return later(e.requested, e.used)
}
