package store

import (
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/fair"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// fetchesPerHost bounds the concurrent fetches from one host under one trust root: of subjects
	// that are known to be signed, and of the others, each. One namespace alone has at most two
	// thirds of them (fair.Slots), which is 8.
	fetchesPerHost = 12
	// fetchesPerRoot bounds them over all hosts: Pods may name any number of hosts that hang.
	fetchesPerRoot = 64
	// maxBackground bounds the background fetches from one host of each of the two. Requests have
	// the rest.
	maxBackground = 4
	// maxBackgroundOfRoot bounds them over all hosts.
	maxBackgroundOfRoot = fetchesPerRoot / 2
	// maxQueued bounds the queued subjects of one trust root that are not known to be signed: Pods
	// may name any. Subjects beyond are fetched in the background.
	maxQueued = 1000
)

// limit limits the concurrent fetches under one trust root: of subjects that are known to be
// signed, or of the others. Signed subjects have their own, so that a flood of made-up names delays
// neither a refresh nor a revocation. Fetches beyond it wait in a queue, in which the namespaces
// that want them have shares, and the hosts that serve them lanes. A fetch waits there whatever
// becomes of the requests that wanted it.
type limit struct {
	known bool
	slots *fair.Slots
	queue *fair.Queue[*host, *flight]
	// background counts the background fetches in flight, queued ones included.
	background int
}

func newLimit(known bool) *limit {
	most := maxQueued
	if known {
		most = 0 // the number of signed subjects bounds itself
	}
	return &limit{
		known: known, slots: fair.NewSlots(fetchesPerRoot), queue: fair.NewQueue[*host, *flight](most),
	}
}

// free reports whether a share may start a fetch from a host.
func (l *limit) free(share string, h *host) bool {
	return l.slots.Free(share) && h.capacity(l).slots.Free(share)
}

// capacity is a host's part of a limit.
type capacity struct {
	slots      *fair.Slots
	background int // background fetches in flight, queued ones included
}

func newCapacity() capacity { return capacity{slots: fair.NewSlots(fetchesPerHost)} }

// capacity returns the host's part of a limit.
func (h *host) capacity(l *limit) *capacity {
	if l.known {
		return &h.known
	}
	return &h.others
}

// freeBackground returns how many more background fetches may begin from a host.
func (l *limit) freeBackground(h *host) int {
	return min(maxBackground-h.capacity(l).background, maxBackgroundOfRoot-l.background)
}

// queue adds a flight to the queue, once for each share that waits for it: it is then started in
// the first turn of any of them. It reports whether the flight is in the queue. The lock is held.
func (t *track) queue(f *flight, share string, now time.Time) bool {
	if f.waitsFor(share) {
		return true
	}
	ticket, evicted := f.limit.queue.Push(share, f.host, f)
	if ticket != nil {
		f.tickets = append(f.tickets, queued{share, ticket})
	}
	if evicted != nil {
		evicted.Value.evicted(evicted)
		if len(evicted.Value.tickets) == 0 {
			t.turnAway(evicted.Value, now)
		}
	}
	return ticket != nil
}

// turnAway ends a flight that was not started. Its subject is due at once: it is fetched in the
// background, those first that are due the longest. The lock is held.
func (t *track) turnAway(f *flight, now time.Time) {
	e := f.entry
	e.flight, e.due = nil, earlier(e.due, now)
	t.count(f, -1)
	f.err = t.turnedAway(f.about)
	close(f.done)
}

// turnedAway returns the fault of a subject for which the queue has no capacity.
func (t *track) turnedAway(about trust.Subject) *trust.Fault {
	return trust.NewFault(v1alpha1.ReasonTimeout,
		"%s: too many other repositories of TrustRoot %q wait to be fetched; this one is fetched in the background, "+
			"so try again", about, t.root)
}

// dispatch starts queued fetches, as many as the limit allows; the lock is held.
func (t *track) dispatch(l *limit) {
	for !l.slots.Full() {
		next, share := l.queue.Next(func(share string, h *host) bool { return l.free(share, h) })
		if next == nil {
			return
		}
		t.start(next.Value, share)
	}
}

// count adds n to the counts of background fetches.
func (t *track) count(f *flight, n int) {
	if f.background {
		f.limit.background += n
		f.host.capacity(f.limit).background += n
	}
}
