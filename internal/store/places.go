package store

import "golang.org/x/sync/semaphore"

const (
	// fetchesPerRoot is how many subjects of one trust root are fetched at once: of those that are
	// known to be signed, and of the others, each.
	fetchesPerRoot = 8
	// inBackground bounds the fetches of each of the two that Run has under way at once. What is
	// due beyond waits its turn where it costs nothing, and the other half of the places is free
	// for whoever asks on demand.
	inBackground = fetchesPerRoot / 2
	// maxAsked is how many subjects of one trust root that are not known to be signed may be
	// fetched, or wait for that, because somebody asks: Pods may name any. Who asks beyond has one
	// fetched in the background, in turn.
	maxAsked = 1000
)

// places are how much is fetched under one trust root at a time, of one kind: of subjects that are
// known to be signed, or of the others. Those that are known to be signed have places of their own,
// so that a flood of made-up names holds up neither a refresh nor a revocation.
type places struct {
	*semaphore.Weighted
	// background counts the fetches under way that nobody asked for.
	background int
	// asked counts those on demand, those that wait for a place among them.
	asked int
}

func newPlaces() *places { return &places{Weighted: semaphore.NewWeighted(fetchesPerRoot)} }

// turns is how many more fetches may begin in the background.
func (p *places) turns() int { return inBackground - p.background }

// full reports whether as many are asked for as may be. What is known to be signed is bounded by
// what is signed.
func (p *places) full(known bool) bool { return !known && p.asked >= maxAsked }
