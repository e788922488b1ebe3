package store

import (
	"errors"
	"maps"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// ErrReplaced says that another trust root of the same name was published meanwhile.
var ErrReplaced = errors.New("the trust root has been published anew meanwhile")

// Restore verifies a record of a repository that another replica wrote, under the root that it is
// for, and publishes its evidence. It never replaces evidence by older. The error is ErrReplaced,
// or a *trust.Fault where no evidence, or only the versions seen, could be restored.
func (t *Tracker) Restore(repository trust.Key, root *Root, packed []byte) error {
	for {
		snapshot := t.store.Load()
		if snapshot.roots[repository.Root] != root || root.Verifier == nil {
			return ErrReplaced
		}
		before := maps.Collect(snapshot.evidence.of(repository))
		after, fault := t.store.unpack(repository, root, before, packed)
		whole := true
		for k, next := range after {
			published, beyond := t.store.putEvidence(k, root.Verifier, before[k], next)
			if beyond != nil {
				fault = beyond
			}
			if published && beyond == nil && next != before[k] {
				t.restored(k)
			}
			whole = whole && published
		}
		if whole && snapshot.isBase(repository) {
			t.track(repository.Root).rebase()
		}
		switch {
		case !whole:
		case fault != nil:
			return fault
		default:
			return nil
		}
	}
}

// restored tracks a subject, and reports the change.
func (t *Tracker) restored(k trust.Key) {
	one := t.track(k.Root)
	one.mu.Lock()
	one.entry(k.Subject, t.clock.Now())
	one.mu.Unlock()
	t.changed(k.Root)
}

// Verified returns the evidence of a repository that its record should hold, by subject. It returns
// none where the repository has no signatures, could not be verified, or is about to be fetched
// anew. Beside verified evidence it returns evidence with a fault: that was verified once, and is
// verified again when the record is read. It leaves out the tags whose digest is not known to be
// signed, and evidence that a fault has ended. If nothing else is left, the result is empty and not
// nil.
func (s *Snapshot) Verified(repository trust.Key) map[trust.Subject]trust.Evidence {
	all, verified := map[trust.Subject]trust.Evidence{}, false
	for k, h := range s.evidence.of(repository) {
		if _, ok := h.evidence.(trust.Answer); ok && !s.known(k, time.Time{}) {
			continue
		}
		switch {
		case h.evidence == nil || h.anew:
		case h.withdrawn != nil:
			verified = verified || signed(h)
		default:
			all[k.Subject] = h.evidence
			verified = verified || signed(h) && h.fault == nil
		}
	}
	if !verified {
		return nil
	}
	return all
}

// Unsigned reports whether a repository was found to have no signatures.
func (s *Snapshot) Unsigned(repository trust.Key) bool {
	found := false
	for _, h := range s.evidence.of(repository) {
		if h.fault != nil || h.anew || signed(h) {
			return false
		}
		if _, ok := h.evidence.(trust.Answer); !ok { // which says nothing about signatures
			found = true
		}
	}
	return found
}

// Repositories returns every repository with evidence or a fault, in order.
func (s *Snapshot) Repositories() []trust.Key {
	var all []trust.Key
	for k := range s.evidence.all() {
		if repository := k.InRepository(); len(all) == 0 || all[len(all)-1] != repository {
			all = append(all, repository)
		}
	}
	return all
}

// LastUsed returns when admission or a running image last used a repository; zero: not since the
// start. It knows this replica alone, and is as coarse as the time between its calls.
func (t *Tracker) LastUsed(repository trust.Key) time.Time {
	now := t.clock.Now()
	snapshot, one := t.store.Load(), t.lookup(repository.Root)
	if one == nil {
		return time.Time{}
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	var last time.Time
	for k, h := range snapshot.evidence.of(repository) {
		e := one.entries[k.Subject]
		if e == nil {
			continue
		}
		if one.retained[k.Subject] || h.used.Swap(false) || snapshot.isBase(k) {
			e.used = now
		}
		last = later(last, e.used)
	}
	return last
}

// Release drops a repository with all its evidence. The next request fetches it as at first sight.
func (t *Tracker) Release(repository trust.Key) {
	if one := t.lookup(repository.Root); one != nil {
		one.mu.Lock()
		for k := range t.store.Load().evidence.of(repository) {
			delete(one.entries, k.Subject)
		}
		one.mu.Unlock()
	}
	t.store.release(repository)
	t.changed(repository.Root)
}
