package store

import (
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// entry is the tracking state of one subject.
type entry struct {
	schedule
	flight    *flight   // the fetch under way; nil: none
	requested time.Time // of the last request for it
	used      time.Time // of the last use by admission or by what runs; zero: none since the start

	// From the change feed.
	listed time.Time // when the feed last listed it
	// due, as the last fetch set it; where due differs, a request has moved it forward
	polled   time.Time
	deadline time.Time // when it is refreshed whatever the feed lists
}

// flight is one fetch or probe in flight. Any number of callers may wait for it.
type flight struct {
	began      time.Time
	background bool          // no request waits for it
	trial      bool          // the host is down
	limit      *limit        // that it counts against; nil: a probe
	done       chan struct{} // closed when it has ended
	err        error         // read after done
}

// planByFeed sets, after a fetch that succeeded, when the subject is due without a feed, and when
// it is due whatever the feed lists.
func (e *entry) planByFeed(now time.Time, interval time.Duration, evidence trust.Evidence) {
	e.polled, e.deadline = e.due, now.Add(jitter(min(maxFeedIntervals*interval, maxFeedTime)))
	if evidence == nil {
		return
	}
	if end, _ := evidence.Expiry(); !end.IsZero() && end.Add(-interval).Before(e.deadline) {
		e.deadline = end.Add(-interval)
	}
}
