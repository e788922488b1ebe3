package store

import (
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// entry is what is known of one subject beside its evidence.
type entry struct {
	schedule
	flight    *flight   // the fetch under way; nil: none
	requested time.Time // when somebody last asked for it
	used      time.Time // when it was last asked for, by admission or for what runs; zero: not since the start

	// What the list of what was published means to it.
	listed time.Time // when it was last named
	// when it is due without a list, by its last fetch; where that has changed since, somebody
	// wants it sooner
	polled   time.Time
	deadline time.Time // when it is refreshed whatever the list says
}

// flight is one fetch, or one probe, which any number of callers wait for.
type flight struct {
	began      time.Time
	background bool          // nobody waits for it
	trial      bool          // of a host that is down
	limit      *limit        // among which it counts; nil: a probe
	done       chan struct{} // closed when it has ended
	err        error         // read after done
}

// hint notes when a subject that was just fetched with success is due, without a list and whatever
// that says.
func (e *entry) planByFeed(now time.Time, interval time.Duration, evidence trust.Evidence) {
	e.polled, e.deadline = e.due, now.Add(jitter(min(maxFeedIntervals*interval, maxFeedTime)))
	if evidence == nil {
		return
	}
	if end, _ := evidence.Expiry(); !end.IsZero() && end.Add(-interval).Before(e.deadline) {
		e.deadline = end.Add(-interval)
	}
}
