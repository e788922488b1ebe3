package store

import "golang.org/x/sync/semaphore"

const (
	// fetchesPerRoot is how many subjects of one trust root are fetched at once: of those that are
	// known to be signed, and of the others, each.
	fetchesPerRoot = 8
	// inBackground bounds the fetches of each of the two that Run has under way at once. What is
	// due beyond waits its turn where it costs nothing, and the other half of the places is free
	// for whoever asks on demand.
	maxBackground = fetchesPerRoot / 2
	// maxAsked is how many subjects of one trust root that are not known to be signed may be
	// fetched, or wait for that, because somebody asks: Pods may name any. Who asks beyond has one
	// fetched in the background, in turn.
	maxOnDemand = 1000
)

// places are how much is fetched under one trust root at a time, of one kind: of subjects that are
// known to be signed, or of the others. Those that are known to be signed have places of their own,
// so that a flood of made-up names holds up neither a refresh nor a revocation.
type limit struct {
	*semaphore.Weighted
	// background counts the fetches under way that nobody asked for.
	background int
	// asked counts those on demand, those that wait for a place among them.
	onDemand int
}

func newLimit() *limit { return &limit{Weighted: semaphore.NewWeighted(fetchesPerRoot)} }

// turns is how many more fetches may begin in the background.
func (p *limit) free() int { return maxBackground - p.background }

// full reports whether as many are asked for as may be. What is known to be signed is bounded by
// what is signed.
func (p *limit) full(known bool) bool { return !known && p.onDemand >= maxOnDemand }
