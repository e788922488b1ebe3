package store

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// cached is the state of one subject: its evidence, a fault, or both. Where it has a fault,
// decisions must not use the evidence.
type cached struct {
	evidence trust.Evidence
	fault    *trust.Fault
	// anew says that the versions seen no longer count: the next fetch starts as at first sight.
	anew bool
	// stale says, under a root with a grace, that no newer evidence could be fetched: the last
	// fetch failed, and not because all evidence has expired; or the evidence is from a record, and
	// no fetch has ended since.
	stale bool
	// ended says that the last fetch found only expired evidence: no grace extends that.
	ended bool
	// withdrawn is the fault of the fetch that ended the evidence (trust.Fault.Ends). Until a fetch
	// succeeds, the evidence counts under no root, whatever verifies it. Nil: none has ended it.
	// Else fault is set, too.
	withdrawn *trust.Fault
	// used says that a decision has used it since the tracker last looked.
	used atomic.Bool
}

// seen returns the evidence that a fetch must not undercut: nothing older is accepted.
func (h *cached) seen() trust.Evidence {
	if h == nil || h.anew {
		return nil
	}
	return h.evidence // with a fault, too
}

// size returns how much memory the evidence takes up, in bytes. h may be nil.
func (h *cached) size() int64 {
	if h == nil {
		return 0
	}
	if sized, ok := h.evidence.(trust.Sized); ok {
		return sized.Size()
	}
	return 0
}

// unsignedSize is size for evidence without signatures, and else 0. It is 0 for answers about tags:
// these are small and few (maxTags, maxUnsigned), and signed images need them. h may be nil.
func (h *cached) unsignedSize() int64 {
	if h == nil || h.evidence == nil || h.evidence.Signed() {
		return 0
	}
	if _, ok := h.evidence.(trust.Answer); ok {
		return 0
	}
	return h.size()
}

// fetched returns the state after a fetch that succeeded: h itself where nothing has changed. h may
// be nil.
func (h *cached) fetched(evidence trust.Evidence) *cached {
	if h != nil && h.fault == nil && !h.anew && !h.stale && !h.ended && evidence == h.evidence {
		return h
	}
	return &cached{evidence: evidence}
}

// failed returns the state after a fetch that failed: h itself where decisions can still use it,
// and else the fault, with the evidence for a later root that accepts it again. h may be nil.
func (h *cached) failed(fault *trust.Fault) *cached {
	switch {
	case h == nil:
		h = &cached{}
	case h.evidence != nil && h.fault == nil && !fault.Ends:
		return h
	}
	next := &cached{
		fault: fault, evidence: h.evidence, anew: h.anew, stale: h.stale, ended: h.ended, withdrawn: h.withdrawn,
	}
	if fault.Ends {
		next.withdrawn = fault
	}
	return next
}

// withdraw makes the fault that ended the evidence of a subject hold for its next state, which no
// fetch has brought. from may be nil.
func (h *cached) withdraw(from *cached) {
	if from == nil || from.withdrawn == nil {
		return
	}
	if h.withdrawn = from.withdrawn; h.fault == nil {
		h.fault = from.withdrawn
	}
}

// aged returns h, the state after a fetch under a root with a grace, marked for whether it may be
// used past its expiry. Without a fault it returns h itself. h and old, the state before the fetch,
// may be nil.
func (h *cached) aged(old *cached, fault *trust.Fault) *cached {
	if fault == nil || h == nil || h.evidence == nil {
		return h
	}
	ended := h.ended || fault.Reason == v1alpha1.ReasonMetadataExpired
	if h.ended == ended && h.stale == !ended {
		return h
	}
	noted := &cached{
		evidence: h.evidence, fault: h.fault, anew: h.anew, stale: !ended, ended: ended, withdrawn: h.withdrawn,
	}
	noted.used.Store(old != nil && old.used.Load())
	return noted
}

// verified returns the evidence. h may be nil.
func (h *cached) verified() trust.Evidence {
	if h == nil {
		return nil
	}
	return h.evidence
}

// current reports whether decisions may use the evidence. h may be nil.
func (h *cached) current(now time.Time) bool {
	return h != nil && h.fault == nil && !h.anew && !h.past(now)
}

// past reports whether the evidence as a whole has expired.
func (h *cached) past(now time.Time) bool {
	if h.evidence == nil {
		return false
	}
	at, _ := h.evidence.Expiry()
	return !at.IsZero() && !now.Before(at)
}

// sameAnswer reports whether h and old hold the same answer about a tag, given at different times.
// Both may be nil.
func (h *cached) sameAnswer(old *cached) bool {
	if h == nil || old == nil || h.fault != nil || old.fault != nil || h.anew != old.anew || h.stale != old.stale ||
		h.ended != old.ended {
		return false
	}
	_, is := h.evidence.(trust.Answer)
	_, was := old.evidence.(trust.Answer)
	return is && was && slices.Equal(h.evidence.Hints(""), old.evidence.Hints(""))
}

// known reports whether a subject is known to be signed: its evidence has a signature, or it is a
// tag whose digest has one, or the base of its trust root. An answer that has ended does not count.
func (s *Snapshot) known(k trust.Key, now time.Time) bool {
	h := s.evidence.get(k)
	if h == nil || h.evidence == nil {
		return s.isBase(k) // no Pod names it
	}
	answer, ok := h.evidence.(trust.Answer)
	if !ok {
		return h.evidence.Signed()
	}
	if !now.Before(answer.Ends()) {
		return false
	}
	for _, digest := range h.evidence.Hints(k.Tag) {
		named := k
		named.Tag, named.Digest = "", digest
		if signed(s.evidence.get(named)) {
			return true
		}
	}
	return false
}

// signed reports whether the evidence contains a signature, by anybody. h may be nil.
func signed(h *cached) bool {
	return h != nil && h.evidence != nil && h.evidence.Signed()
}
