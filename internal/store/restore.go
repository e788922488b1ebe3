package store

import (
	"errors"
	"maps"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// ErrReplaced says that another trust root of the name has been published meanwhile.
var ErrReplaced = errors.New("the trust root has been published anew meanwhile")

// Restore takes in what another replica has written down of a repository, under the root that it is
// for. What is held is never undercut by it. The error is ErrReplaced, or a *trust.Fault where
// nothing, or only the versions seen, could be taken in.
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
		switch {
		case !whole:
		case fault != nil:
			return fault
		default:
			return nil
		}
	}
}

// restored has a subject tracked, and tells of it.
func (t *Tracker) restored(k trust.Key) {
	one := t.track(k.Root)
	one.mu.Lock()
	one.entry(k.Subject, t.clock.Now())
	one.mu.Unlock()
	t.changed(k.Root)
}

// Verified returns the evidence about a repository that is worth writing down, by subject: none
// where it carries no signatures, could not be verified, or is about to be fetched anew. Where some
// of it is verified, what could not be goes with it: it was once, and is verified again when it is
// read.
func (s *Snapshot) Verified(repository trust.Key) map[trust.Subject]trust.Evidence {
	all, verified := map[trust.Subject]trust.Evidence{}, false
	for k, h := range s.evidence.of(repository) {
		if h.evidence != nil && !h.anew {
			all[k.Subject] = h.evidence
			verified = verified || signed(h) && h.fault == nil
		}
	}
	if !verified {
		return nil
	}
	return all
}

// Unsigned reports whether a repository was found to carry no signatures.
func (s *Snapshot) Unsigned(repository trust.Key) bool {
	found := false
	for _, h := range s.evidence.of(repository) {
		if h.fault != nil || h.anew || signed(h) {
			return false
		}
		found = true
	}
	return found
}

// Repositories returns every repository of which something is held, in order.
func (s *Snapshot) Repositories() []trust.Key {
	var all []trust.Key
	for k := range s.evidence.all() {
		if repository := k.InRepository(); len(all) == 0 || all[len(all)-1] != repository {
			all = append(all, repository)
		}
	}
	return all
}

// LastUsed returns when a repository was last asked for, by admission or for what runs; zero: not
// since the start. It is of this replica alone, and as coarse as the calls of it are apart.
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
		if one.retained[k.Subject] || h.used.Swap(false) {
			e.used = now
		}
		last = later(last, e.used)
	}
	return last
}

// Release forgets a repository, whatever is held of it. Who asks for it again has it fetched as at
// first sight.
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
