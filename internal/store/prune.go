package store

import (
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// forgetAfter is when a repository without signatures is dropped that nobody asked for meanwhile.
	forgetAfter = 10 * time.Minute
	// maxUnsigned is how many repositories without signatures are kept; past it those are dropped that were asked for
	// the longest ago.
	maxUnsigned = 1000
)

// prune drops what is known of repositories without signatures, or that could never be verified, so that requests for
// made-up names do not fill the memory. Nothing is lost: who asks for one again has it fetched again. What was signed stays, and
// so does what runs.
func (t *Tracker) prune() {
	forgotten := t.forgettable()
	if len(forgotten) == 0 {
		return
	}
	t.store.dropEvidence(forgotten)
	roots := map[string]bool{}
	for _, k := range forgotten {
		roots[k.Root] = true
	}
	for root := range roots {
		t.changed(root)
	}
}

// forgettable stops tracking, and returns, the repositories to drop.
func (t *Tracker) forgettable() []trust.Key {
	now := t.clock.Now()
	snapshot := t.store.Load()
	var unsigned []trust.Key
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, e := range t.tracked {
		switch {
		case snapshot.roots[k.Root] == nil:
			delete(t.tracked, k)
		case k != probe(k.Root) && e.flight == nil && !t.retained[k] && !signed(snapshot.evidence.get(k)):
			unsigned = append(unsigned, k)
		}
	}
	slices.SortFunc(unsigned, func(a, b trust.Key) int { return t.tracked[b].asked.Compare(t.tracked[a].asked) }) // newest first
	old := slices.IndexFunc(unsigned, func(k trust.Key) bool { return now.Sub(t.tracked[k].asked) > forgetAfter })
	keep := len(unsigned)
	if old >= 0 {
		keep = old
	}
	unsigned = unsigned[min(keep, maxUnsigned):]
	for _, k := range unsigned {
		delete(t.tracked, k)
	}
	return unsigned
}

func signed(h *held) bool {
	if h == nil || h.evidence == nil {
		return false
	}
	_, unsigned := h.evidence.(trust.Unsigned)
	return !unsigned
}
