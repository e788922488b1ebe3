package store

import (
	"errors"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// ErrReplaced says that another trust root of the name has been published meanwhile.
var ErrReplaced = errors.New("the trust root has been published anew meanwhile")

// Restore takes in what another replica has written down of a repository, under the root that it is for. What is held is never
// undercut by it. The error is ErrReplaced, or a *trust.Fault where nothing, or only the versions seen, could be taken in.
func (t *Tracker) Restore(k Key, root *Root, packed []byte) error {
	for {
		snapshot := t.store.Load()
		if snapshot.roots[k.Root] != root || root.Root == nil {
			return ErrReplaced
		}
		old := snapshot.evidence[k]
		next, fault := t.store.unpack(k, root, old, packed)
		published, beyond := t.store.putEvidence(k, root.Root, old, next)
		if !published {
			continue
		}
		if beyond != nil {
			return beyond
		}
		if next != old {
			t.restored(k)
		}
		if fault != nil {
			return fault
		}
		return nil
	}
}

// restored has a repository tracked, and tells of it.
func (t *Tracker) restored(k Key) {
	now := t.clock.Now()
	t.mu.Lock()
	t.entry(k, now)
	t.mu.Unlock()
	t.changed(k.Root)
}

// Verified returns the evidence about a repository that is worth writing down: nil where it carries no signatures, could not be
// verified, or is about to be fetched anew.
func (s *Snapshot) Verified(k Key) trust.Evidence {
	h := s.evidence[k]
	if !signed(h) || h.fault != nil || h.anew {
		return nil
	}
	return h.evidence
}

// Unsigned reports whether a repository was found to carry no signatures.
func (s *Snapshot) Unsigned(k Key) bool {
	h := s.evidence[k]
	if h == nil || h.fault != nil || h.anew {
		return false
	}
	_, unsigned := h.evidence.(trust.Unsigned)
	return unsigned
}

// Keys returns every repository of which something is held, in no order.
func (s *Snapshot) Keys() []Key {
	keys := make([]Key, 0, len(s.evidence))
	for k := range s.evidence {
		keys = append(keys, k)
	}
	return keys
}

// LastUsed returns when a repository was last asked for, by admission or for what runs; zero: not since the start. It is of
// this replica alone, and as coarse as the calls of it are apart.
func (t *Tracker) LastUsed(k Key) time.Time {
	now := t.clock.Now()
	h := t.store.Load().evidence[k]
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.tracked[k]
	if e == nil {
		return time.Time{}
	}
	if t.retained[k] || h != nil && h.used.Swap(false) {
		e.used = now
	}
	return e.used
}

// Release forgets a repository, whatever is held of it. Who asks for it again has it fetched as at first sight.
func (t *Tracker) Release(k Key) {
	t.mu.Lock()
	delete(t.tracked, k)
	t.mu.Unlock()
	t.store.release(k)
	t.changed(k.Root)
}
