package store

import (
	"context"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// A signing server may list what was published (trust.Feed). A reading of the list that does not name a repository then stands for a
// refresh of it, so that one request an interval does for all that nothing happened to.
//
// The list is a hint and not signed. A stale copy of it that a cache hands out, or a server that leaves something out, must not
// keep a revocation from being seen for as long as a timestamp lasts, which is two weeks. So each repository is refreshed all the
// same every twelfth interval, at the latest after an hour, and in the interval before its evidence expires; a denial has it
// refreshed first, as ever. A list that is not read within an interval and a quarter stands for nothing: all is polled.
const (
	// maxFeedIntervals and maxFeedTime are how long the list alone keeps a repository from being refreshed. Twelve costs an
	// eighth of what polling costs at most; past an hour polling is no burden.
	maxFeedIntervals = 12
	maxFeedTime      = time.Hour
	// feedFrom is with how many repositories the list is asked for. It saves nothing for a single one.
	feedFrom = 2
	// feedTimeout bounds one reading.
	feedTimeout = 30 * time.Second
)

// feed is how far the list of one trust root was read. Another takes its place when the root is published anew.
type feed struct {
	cursor trust.Cursor // nil: nowhere
	// taken is when the cursor was had without one before: what was fetched earlier may lack what lies before it.
	taken   time.Time
	read    time.Time // when the last reading that succeeded began
	due     time.Time // when the list is asked for next
	misses  int       // in a row
	reading bool
}

// hinted is what the list means to one repository.
type hinted struct {
	named  time.Time // when it was last named
	polled time.Time // when it is due without a list, by its last fetch; where that has changed since, somebody wants it sooner
	late   time.Time // when it is refreshed whatever the list says
}

// hint notes when a repository that was just fetched with success is due, without a list and whatever that says.
func (e *tracked) hint(now time.Time, interval time.Duration, h *held) {
	e.polled, e.late = e.due, now.Add(jitter(min(maxFeedIntervals*interval, maxFeedTime)))
	if h == nil || h.evidence == nil {
		return
	}
	if end, _ := h.evidence.Expiry(); !end.IsZero() && end.Add(-interval).Before(e.late) {
		e.late = end.Add(-interval)
	}
}

// vouched reports whether the list has named a repository since it was last fetched if anything was published of it; the lock is
// held. A fetch that began before the list was read may have missed what is named in it.
func (t *Tracker) vouched(k trust.Key, e *tracked) (f *feed, ok bool) {
	f = t.pace(k.Root).feed
	return f, f != nil && f.cursor != nil && e.fault == nil && !e.fetched.Before(f.taken) && !e.fetched.Before(e.named)
}

// refreshed returns when a repository was last known to be up to date: by a fetch that succeeded, or by a reading of the list. The lock
// is held.
func (t *Tracker) refreshed(k trust.Key, e *tracked) time.Time {
	if f, ok := t.vouched(k, e); ok && f.read.After(e.succeeded) {
		return f.read
	}
	return e.succeeded
}

// dueAt returns when a repository is to be refreshed; the lock is held.
func (t *Tracker) dueAt(k trust.Key, e *tracked) time.Time {
	if e.fault == nil && e.fetched.Before(e.named) && e.named.Before(e.due) {
		return e.named
	}
	f, ok := t.vouched(k, e)
	if !ok || !e.due.Equal(e.polled) {
		return e.due
	}
	interval := t.pace(k.Root).interval
	at := f.read.Add(interval + interval/4) // the next reading may take its time
	if at.After(e.late) {
		at = e.late
	}
	if at.Before(e.due) {
		return e.due
	}
	return at
}

// readings returns the trust roots whose list is to be asked for now, with what asks for it.
func (t *Tracker) readings() map[string]*feed {
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	var due map[string]*feed
	for root, p := range t.roots {
		f := p.feed
		if f == nil || f.reading || f.due.After(now) || p.interval >= maxFeedTime || !t.worthAFeed(root) {
			continue
		}
		if due == nil {
			due = map[string]*feed{}
		}
		f.reading = true
		due[root] = f
	}
	return due
}

// worthAFeed reports whether a root has enough repositories, and its server is known to answer; the lock is held.
func (t *Tracker) worthAFeed(root string) bool {
	if e := t.tracked[probe(root)]; e == nil || e.fault != nil || e.succeeded.IsZero() {
		return false
	}
	n := 0
	for k := range t.tracked {
		if k.Root == root && k != probe(root) {
			if n++; n == feedFrom {
				return true
			}
		}
	}
	return false
}

// readFeeds asks in the background for the lists that are due.
func (t *Tracker) readFeeds() {
	for root, f := range t.readings() {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), feedTimeout)
			defer cancel()
			t.readFeed(trust.WithPurpose(ctx, trust.Purpose{Known: true, Background: true}), root, f)
		}()
	}
}

// readFeed goes on with a list by one request.
func (t *Tracker) readFeed(ctx context.Context, root string, f *feed) {
	snapshot, now := t.store.Load(), t.clock.Now()
	t.mu.Lock()
	after := f.cursor
	t.mu.Unlock()
	var changes trust.Changes
	fault := trust.NewFault(v1alpha1.ReasonTrustRootNotReady, "TrustRoot %q lists no publications", root)
	if r := snapshot.roots[root]; r != nil {
		if list, ok := r.Root.(trust.Feed); ok {
			began := time.Now()
			changes, fault = changesOf(ctx, list, after)
			t.store.observe(root, r.Format, StageFeed, began, nil, fault)
		}
	}
	t.fed(root, f, now, changes, fault)
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

// fed notes what came of a reading that began at a time. A fault is none of the repositories, nor of the server: they are polled as if
// there were no list, and it is asked for less and less, since most servers that fail here have none, or not for this account.
func (t *Tracker) fed(root string, f *feed, began time.Time, changes trust.Changes, fault *trust.Fault) {
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.roots[root]
	if p == nil || p.feed != f {
		return // the root was published anew, or is gone
	}
	f.reading = false
	if fault != nil {
		f.due = later(now.Add(jitter(min(p.interval<<min(f.misses, 10), maxFeedTime))), fault.RetryAt)
		f.misses++
		return
	}
	if f.cursor == nil {
		f.taken, changes.Repositories = now, nil // all are polled once from here on
	}
	f.cursor, f.read, f.due, f.misses = changes.Cursor, began, now.Add(jitter(p.interval)), 0
	for k, e := range t.tracked {
		if _, named := slices.BinarySearch(changes.Repositories, k.Repository); named && k.Root == root {
			e.named = now
		}
	}
	t.wake()
}
