package store

import (
	"context"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// A signing server may list what was published (trust.Feed). A reading of the list that does not
// name a repository then stands for a refresh of it, so that one request an interval does for all
// that nothing happened to.
//
// The list is a hint and not signed. A stale copy of it that a cache hands out, or a server that
// leaves something out, must not keep a revocation from being seen for as long as a timestamp
// lasts, which is two weeks. So each subject is refreshed all the same every twelfth interval, at
// the latest after an hour, and in the interval before its evidence expires; a denial has it
// refreshed first, as ever. A list that is not read within an interval and a quarter stands for
// nothing: all is polled.
const (
	// maxFeedIntervals and maxFeedTime are how long the list alone keeps a subject from being
	// refreshed. Twelve costs an eighth of what polling costs at most; past an hour polling is no
	// burden.
	maxFeedIntervals = 12
	maxFeedTime      = time.Hour
	// feedFrom is with how many subjects the list is asked for. It saves nothing for a single one.
	feedFrom = 2
	// feedTimeout bounds one reading.
	feedTimeout = 30 * time.Second
)

// feed is how far the list of one trust root was read. Another takes its place when the root is
// published anew.
type feed struct {
	cursor trust.Cursor // nil: nowhere
	// taken is when the cursor was had without one before: what was fetched earlier may lack what
	// lies before it.
	since   time.Time
	read    time.Time // when the last reading that succeeded began
	due     time.Time // when the list is asked for next
	misses  int       // in a row
	reading bool
}

// vouches reports whether the list has named a subject since it was last fetched if anything was
// published of it. A fetch that began before the list was read may have missed what is named in it.
func (f *feed) covers(e *entry) bool {
	return f != nil && f.cursor != nil && e.fault == nil && !e.fetched.Before(f.since) && !e.fetched.Before(e.listed)
}

// refreshed returns when a subject was last known to be up to date: by a fetch that succeeded, or
// by a reading of the list.
func (f *feed) refreshed(e *entry) time.Time {
	if f.covers(e) && f.read.After(e.succeeded) {
		return f.read
	}
	return e.succeeded
}

// dueAt returns when a subject is to be refreshed.
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

// missed notes a reading that failed. The list is asked for less and less, since most servers that
// fail here have none, or not for this account.
func (f *feed) failed(now time.Time, interval time.Duration, fault *trust.Fault) {
	f.reading = false
	f.due = later(now.Add(jitter(min(interval<<min(f.misses, 10), maxFeedTime))), fault.RetryAt)
	f.misses++
}

// took notes a reading that began at a time, and returns the repositories that it names: none where
// it is the first, since all are polled once from there on.
func (f *feed) advanced(began, now time.Time, interval time.Duration, changes trust.Changes) []string {
	f.reading = false
	if f.cursor == nil {
		f.since, changes.Repositories = now, nil
	}
	f.cursor, f.read, f.due, f.misses = changes.Cursor, began, now.Add(jitter(interval)), 0
	return changes.Repositories
}

// reading returns the list where it is to be asked for now; it is then taken to be under way. Nil:
// it is not.
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

// worthAFeed reports whether the root has enough subjects, and its server is known to answer; the
// lock is held.
func (t *track) feedUseful() bool {
	h := t.hosts[t.server]
	return h != nil && h.probe.fault == nil && !h.probe.succeeded.IsZero() && len(t.entries) >= feedFrom
}

// readFeed asks in the background for the list, where it is due.
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

// read goes on with the list by one request.
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

// fed notes what came of a reading that began at a time. A fault is none of the subjects, nor of
// the server: they are polled as if there were no list.
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
