package store

import (
	"maps"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// noteStale returns what a fetch left, with whether it may be used past its expiry. Without a grace nothing is noted.
func (r *Root) noteStale(old, next *held, fault *trust.Fault) *held {
	if r.ExpiredGrace <= 0 || fault == nil || next == nil || next.evidence == nil {
		return next
	}
	ended := next.ended || fault.Reason == v1alpha1.ReasonMetadataExpired
	if next.ended == ended && next.stale == !ended {
		return next
	}
	noted := &held{evidence: next.evidence, fault: next.fault, anew: next.anew, stale: !ended, ended: ended}
	if old != nil {
		noted.used.Store(old.used.Load())
	}
	return noted
}

// past reports whether evidence as a whole has expired.
func (h *held) past(now time.Time) bool {
	if h.evidence == nil {
		return false
	}
	at, _ := h.evidence.Expiry()
	return !at.IsZero() && !now.Before(at)
}

// noteServer has the snapshot know whether the signing server of a root is down, where that makes a difference: then nothing is
// fetched, and no fetch fails.
func (t *Tracker) noteServer(root string) {
	t.store.update(func(old *Snapshot) *Snapshot {
		r := old.roots[root]
		down := r != nil && r.ExpiredGrace > 0 && t.outage(root) != nil
		if down == old.down[root] {
			return nil
		}
		next := *old
		next.down = maps.Clone(old.down)
		if next.down == nil {
			next.down = map[string]bool{}
		}
		next.down[root] = true
		if !down {
			delete(next.down, root)
		}
		return &next
	})
}
