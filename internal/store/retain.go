package store

import (
	"maps"
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
	// maxTags bounds the tags of one trust root that mean a signed digest. Beyond it those with the
	// oldest use are dropped, of the namespaces that have the most. Anybody who may push to a
	// repository may tag such a digest at will.
	maxTags = 10_000
	// forgetTagAfter is how long after its last use a tag of a signed digest is dropped: some
	// pipelines make a tag for each build.
	forgetTagAfter = 7 * 24 * time.Hour
	// maxUnsigned bounds the subjects without signatures of one trust root. Beyond it, the tracker
	// drops those with the oldest requests, of the namespaces that have the most.
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

// pruneHosts drops and returns the hosts without subjects. It also notes which hosts serve a
// subject that counts.
func (t *track) pruneHosts() (dropped []*host) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.hosts) < 2 {
		return nil // the only host serves all subjects
	}
	snapshot, serving, counting := t.store.Load(), map[*host]bool{}, map[*host]bool{}
	for about := range t.entries {
		h := t.hostOf(about)
		serving[h] = true
		if !counting[h] && t.counts(snapshot, about) {
			counting[h] = true
		}
	}
	for name, h := range t.hosts {
		h.counts = counting[h]
		if !t.isServer(h) && h.flight == nil && !serving[h] {
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
	var keys []trust.Key
	drop := func(about trust.Subject) {
		delete(t.entries, about)
		keys = append(keys, t.key(about))
	}
	recent := map[string][]trust.Subject{} // by share
	tags := 0
	for about, e := range t.entries {
		k := t.key(about)
		switch {
		case t.retained[about]:
			continue
		case !snapshot.known(k, now):
		case e.flight != nil || about.Tag == "":
			continue
		case now.Sub(e.lastUse(snapshot.evidence.get(k), now)) > forgetTagAfter:
			drop(about)
			continue
		default:
			tags++
			continue
		}
		old := now.Sub(e.requested) > forgetAfter
		if f := e.flight; old && f != nil && f.began.IsZero() {
			f.leaveQueue()
			t.turnAway(f, now)
		}
		switch {
		case e.flight != nil:
		case old:
			drop(about)
		default:
			recent[e.share] = append(recent[e.share], about)
		}
	}
	t.dropBeyond(recent, maxUnsigned, func(e *entry) time.Time { return e.requested }, drop)
	if tags > maxTags {
		lastUse := func(e *entry) time.Time { return later(e.requested, e.used) }
		t.dropBeyond(t.signedTags(snapshot, now), maxTags, lastUse, drop)
	}
	return keys
}

// signedTags returns the tags of signed digests that may be dropped, by share; the lock is held.
func (t *track) signedTags(snapshot *Snapshot, now time.Time) map[string][]trust.Subject {
	tags := map[string][]trust.Subject{}
	for about, e := range t.entries {
		if about.Tag != "" && e.flight == nil && !t.retained[about] && snapshot.known(t.key(about), now) {
			tags[e.share] = append(tags[e.share], about)
		}
	}
	return tags
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

// dropBeyond drops subjects until most of them remain: of the shares that have the most, those
// whose last use is the oldest. The lock is held.
func (t *track) dropBeyond(by map[string][]trust.Subject, most int, last func(*entry) time.Time,
	drop func(trust.Subject)) {
	total := 0
	for _, of := range by {
		total += len(of)
	}
	if total <= most {
		return
	}
	shares := slices.SortedFunc(maps.Values(by), func(a, b []trust.Subject) int { return len(a) - len(b) })
	room := most
	for i, of := range shares {
		keep := min(len(of), room/(len(shares)-i)) // a smaller share leaves its rest to larger ones
		room -= keep
		t.newestFirst(of, last)
		for _, about := range of[keep:] {
			drop(about)
		}
	}
}

// counts reports whether a subject is known to be signed, or needed by a running image. Pods may
// name any other, so these say nothing about the health of the trust root. The lock is held.
func (t *track) counts(snapshot *Snapshot, about trust.Subject) bool {
	return t.retained[about] || snapshot.known(t.key(about), t.clock.Now())
}
