package store

import (
	"sync/atomic"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// held is what is known of one subject. With a fault, decisions must not use the evidence.
type cached struct {
	evidence trust.Evidence
	fault    *trust.Fault
	// anew says that the versions seen count no more: the next fetch is one at first sight.
	anew bool
	// stale says, under a root with a grace, that no newer evidence could be had: the last fetch
	// failed for another reason than that all there is has expired, or there was none since it was
	// read back.
	stale bool
	// ended says that the last fetch found nothing but what has expired: no grace extends that.
	ended bool
	// used says that it was asked for since the tracker last looked.
	used atomic.Bool
}

// seen is what a root is to go on from.
func (h *cached) seen() trust.Evidence {
	if h == nil || h.anew {
		return nil
	}
	return h.evidence // with a fault too: what was seen before must not be undercut
}

// size is how much memory the evidence takes up, in bytes. h may be nil.
func (h *cached) size() int64 {
	if h == nil {
		return 0
	}
	if sized, ok := h.evidence.(trust.Sized); ok {
		return sized.Size()
	}
	return 0
}

// fetched returns what is held once a fetch has succeeded: h itself where nothing has changed. h
// may be nil.
func (h *cached) fetched(evidence trust.Evidence) *cached {
	if h != nil && h.fault == nil && !h.anew && !h.stale && !h.ended && evidence == h.evidence {
		return h
	}
	return &cached{evidence: evidence}
}

// failed returns what is held once a fetch has failed: h itself where it can be used on, and else
// the fault, with the evidence kept for a later root that accepts it again. h may be nil.
func (h *cached) failed(fault *trust.Fault) *cached {
	switch {
	case h == nil:
		return &cached{fault: fault}
	case h.evidence != nil && h.fault == nil:
		return h
	}
	return &cached{fault: fault, evidence: h.evidence, anew: h.anew, stale: h.stale, ended: h.ended}
}

// aged returns what a fetch left under a root with a grace, with whether it may be used past its
// expiry. Without a fault nothing is noted. h and old, which was held before, may be nil.
func (h *cached) aged(old *cached, fault *trust.Fault) *cached {
	if fault == nil || h == nil || h.evidence == nil {
		return h
	}
	ended := h.ended || fault.Reason == v1alpha1.ReasonMetadataExpired
	if h.ended == ended && h.stale == !ended {
		return h
	}
	noted := &cached{evidence: h.evidence, fault: h.fault, anew: h.anew, stale: !ended, ended: ended}
	noted.used.Store(old != nil && old.used.Load())
	return noted
}

// proof is the evidence, nil where nothing is held.
func (h *cached) verified() trust.Evidence {
	if h == nil {
		return nil
	}
	return h.evidence
}

// current reports whether decisions go by what is held. h may be nil.
func (h *cached) current(now time.Time) bool {
	return h != nil && h.fault == nil && !h.anew && !h.past(now)
}

// past reports whether evidence as a whole has expired.
func (h *cached) past(now time.Time) bool {
	if h.evidence == nil {
		return false
	}
	at, _ := h.evidence.Expiry()
	return !at.IsZero() && !now.Before(at)
}

// signed reports whether what is held says that anybody has signed. h may be nil.
func signed(h *cached) bool {
	return h != nil && h.evidence != nil && h.evidence.Signed()
}
