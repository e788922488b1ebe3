package store

import (
	"context"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// A signing server may have a change feed (trust.Feed). A reading of the feed that does not list a
// repository counts as a refresh of it, so that one request an interval serves all unchanged
// repositories.
//
// The feed is an unsigned hint. A stale copy from a cache, or a server that leaves entries out,
// could otherwise hide a revocation until the timestamp expires, for two weeks. So each subject is
// fetched all the same every twelfth interval, at the latest after an hour, and in the interval
// before its evidence expires. A denial refreshes its subjects first, with or without a feed. Where
// the feed was not read for an interval and a quarter, every subject is fetched each interval.
const (
	// maxFeedIntervals and maxFeedTime bound how long the feed alone stands in for a fetch. With
	// twelve, at most an eighth of the requests of polling remain; once an hour polling is cheap.
	maxFeedIntervals = 12
	maxFeedTime      = time.Hour
	// feedFrom is the least number of subjects for which the feed is read. For one it saves
	// nothing.
	feedFrom = 2
	// feedTimeout bounds one reading.
	feedTimeout = 30 * time.Second
)

// feed is the read position in the change feed of one trust root. Each publication of the root
// replaces it.
type feed struct {
	cursor trust.Cursor // nil: nowhere
	// since is when the first cursor was read. Evidence fetched earlier may lack changes from
	// before it.
	since   time.Time
	read    time.Time // when the last reading that succeeded began
	due     time.Time // when the list is asked for next
	misses  int       // in a row
	reading bool
}

// covers reports whether the feed would have listed a subject that has changed since its last
// fetch. A fetch that began before the feed was read may have missed a change that the feed lists.
func (f *feed) covers(e *entry) bool {
	return f != nil && f.cursor != nil && e.fault == nil && !e.fetched.Before(f.since) && !e.fetched.Before(e.listed)
}

// refreshed returns when a subject was last known to be up to date: by a successful fetch, or by a
// reading of the feed.
func (f *feed) refreshed(e *entry) time.Time {
	if f.covers(e) && f.read.After(e.succeeded) {
		return f.read
	}
	return e.succeeded
}

// dueAt returns when a subject is due for a fetch.
func (f *feed) dueAt(e *entry, interval time.Duration) time.Time {
	if e.fault == nil && e.fetched.Before(e.listed) && e.listed.Before(e.due) {
		return e.listed
	}
	if !f.covers(e) || !e.due.Equal(e.polled) {
		return e.due
	}
	at := f.read.Add(interval + interval/4) // the next reading may take its time
	if at.After(e.deadline) {
		at = e.deadline
	}
	return later(at, e.due)
}

// failed records a reading that failed, and backs off: most servers that fail here have no feed, or
// none for this account.
func (f *feed) failed(now time.Time, interval time.Duration, fault *trust.Fault) {
	f.reading = false
	f.due = later(now.Add(jitter(min(interval<<min(f.misses, 10), maxFeedTime))), fault.RetryAt)
	f.misses++
}

// advanced records a reading that began at a time, and returns the repositories that it lists. The
// first reading lists none: from there on every subject is fetched once.
func (f *feed) advanced(began, now time.Time, interval time.Duration, changes trust.Changes) []string {
	f.reading = false
	if f.cursor == nil {
		f.since, changes.Repositories = now, nil
	}
	f.cursor, f.read, f.due, f.misses = changes.Cursor, began, now.Add(jitter(interval)), 0
	return changes.Repositories
}

// startReading marks the feed as being read and returns it, where a reading is due; else nil.
func (t *track) startReading() *feed {
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.feed
	if f == nil || f.reading || f.due.After(now) || t.interval >= maxFeedTime || !t.feedUseful() {
		return nil
	}
	f.reading = true
	return f
}

// feedUseful reports whether the root has enough subjects, and a server that answers; the lock is
// held.
func (t *track) feedUseful() bool {
	h := t.hosts[t.server]
	return h != nil && h.probe.fault == nil && !h.probe.succeeded.IsZero() && len(t.entries) >= feedFrom
}

// readFeed reads the feed in the background, where that is due.
func (t *track) readFeed() {
	f := t.startReading()
	if f == nil {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), feedTimeout)
		defer cancel()
		t.read(trust.WithPurpose(ctx, trust.Purpose{Known: true, Background: true}), f)
	}()
}

// read reads the feed with one request.
func (t *track) read(ctx context.Context, f *feed) {
	snapshot, now := t.store.Load(), t.clock.Now()
	t.mu.Lock()
	after := f.cursor
	t.mu.Unlock()
	var changes trust.Changes
	fault := trust.NewFault(v1alpha1.ReasonTrustRootNotReady, "TrustRoot %q lists no publications", t.root)
	if r := snapshot.roots[t.root]; r != nil {
		if list, ok := r.Verifier.(trust.Feed); ok {
			began := time.Now()
			changes, fault = changesOf(ctx, list, after)
			t.store.observe(t.root, r.Format, StageFeed, began, nil, fault)
		}
	}
	t.recordFeed(f, now, changes, fault)
}

func changesOf(ctx context.Context, list trust.Feed, after trust.Cursor) (changes trust.Changes, fault *trust.Fault) {
	defer func() {
		if r := recover(); r != nil {
			fault = trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "reading what was published broke off: %v", r)
		}
	}()
	changes, err := list.Changes(ctx, after)
	if err != nil {
		return changes, trust.AsFault(err, v1alpha1.ReasonUnexpectedAnswer)
	}
	return changes, nil
}

// recordFeed records the outcome of a reading that began at a time. A fault concerns neither the
// subjects nor the host: the subjects are fetched as if there were no feed.
func (t *track) recordFeed(f *feed, began time.Time, changes trust.Changes, fault *trust.Fault) {
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.feed != f: // the root was published anew, or is gone
		return
	case fault != nil:
		f.failed(now, t.interval, fault)
		return
	}
	named := f.advanced(began, now, t.interval, changes)
	for about, e := range t.entries {
		if _, ok := slices.BinarySearch(named, about.Repository); ok {
			e.listed = now
		}
	}
	t.wake()
}
