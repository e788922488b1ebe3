package store

import (
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/fair"
	"github.com/countersign-dev/countersign/internal/trust"
)

// entry is the tracking state of one subject.
type entry struct {
	schedule
	flight    *flight   // the fetch under way; nil: none
	requested time.Time // of the last request for it
	share     string    // of the last request for it
	used      time.Time // of the last use by admission or by what runs; zero: none since the start

	// From the change feed.
	listed time.Time // when the feed last listed it
	// due, as the last fetch set it; where due differs, a request has moved it forward
	polled   time.Time
	deadline time.Time // when it is refreshed whatever the feed lists
}

// flight is one fetch or probe in flight. Any number of callers may wait for it.
type flight struct {
	created time.Time
	began   time.Time     // when it was started; zero: it is queued
	done    chan struct{} // closed when it has ended
	err     error         // read after done

	// Of a fetch.
	about      trust.Subject
	entry      *entry
	host       *host
	limit      *limit
	share      string       // that it was started for
	shares     *fair.Shares // of all requests that wait for it; nil: it is queued
	tickets    []queued     // its positions in the queue
	background bool         // no request had wanted it when it was queued
	trial      bool         // the host is down
}

// queued is the position of a fetch in the queue of a share.
type queued struct {
	share string
	*fair.Ticket[*host, *flight]
}

// waitsFor reports whether the fetch is in the queue of a share.
func (f *flight) waitsFor(share string) bool {
	return slices.ContainsFunc(f.tickets, func(q queued) bool { return q.share == share })
}

// evicted forgets a position that the queue has dropped.
func (f *flight) evicted(ticket *fair.Ticket[*host, *flight]) {
	f.tickets = slices.DeleteFunc(f.tickets, func(q queued) bool { return q.Ticket == ticket })
}

// leaveQueue gives up all positions.
func (f *flight) leaveQueue() {
	for _, q := range f.tickets {
		f.limit.queue.Remove(q.Ticket)
	}
	f.tickets = nil
}

// planByExpiry makes the base of a trust root due well before it expires, after a fetch that
// succeeded: then all that rests on it cannot be checked.
func (e *entry) planByExpiry(now time.Time, base trust.Evidence) {
	if end, _ := base.Expiry(); !end.IsZero() {
		e.due = earlier(e.due, now.Add(max(end.Sub(now)/2, time.Minute)))
	}
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
