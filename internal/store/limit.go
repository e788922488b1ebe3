package store

import "golang.org/x/sync/semaphore"

const (
	// fetchesPerRoot bounds the concurrent fetches under one trust root: of subjects that are known
	// to be signed, and of the others, each.
	fetchesPerRoot = 8
	// maxBackground bounds the background fetches of each of the two. Requests have the other half.
	maxBackground = fetchesPerRoot / 2
	// maxOnDemand bounds the subjects of one trust root, not known to be signed, that are fetched
	// or queued for a request: Pods may name any. Subjects beyond are fetched in the background.
	maxOnDemand = 1000
)

// limit is the semaphore that limits the concurrent fetches under one trust root: of subjects that
// are known to be signed, or of the others. Signed subjects have their own, so that a flood of
// made-up names delays neither a refresh nor a revocation.
type limit struct {
	*semaphore.Weighted
	// background counts the background fetches in flight.
	background int
	// onDemand counts the fetches for requests, queued ones included.
	onDemand int
}

func newLimit() *limit { return &limit{Weighted: semaphore.NewWeighted(fetchesPerRoot)} }

// free returns how many more background fetches may begin.
func (p *limit) free() int { return maxBackground - p.background }

// full reports whether no further request may fetch or queue. The number of signed subjects bounds
// itself.
func (p *limit) full(known bool) bool { return !known && p.onDemand >= maxOnDemand }
