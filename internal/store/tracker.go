package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Tracker fetches evidence into a Store, once for all concurrent requests, and keeps it up to date.
// Make it with NewTracker; Run refreshes until its context ends.
type Tracker struct {
	store   *Store
	clock   clock.WithTicker
	changed func(root string)

	mu     sync.Mutex
	tracks map[string]*track // by trust root

	// woken is signalled when something is due sooner than the next tick.
	woken chan struct{}
}

// NewTracker returns a tracker that fills store. changed is called, without a lock held, when the
// state of a trust root's repositories has changed; it must not block.
func NewTracker(store *Store, c clock.WithTicker, changed func(root string)) *Tracker {
	return &Tracker{
		store: store, clock: c, changed: changed, tracks: map[string]*track{}, woken: make(chan struct{}, 1),
	}
}

// track returns the track of a trust root, and creates it where needed.
func (t *Tracker) track(root string) *track {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.tracks[root]
	if one == nil {
		one = t.newTrack(root)
		t.tracks[root] = one
	}
	return one
}

// lookup returns the track of a trust root; nil: there is none.
func (t *Tracker) lookup(root string) *track {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tracks[root]
}

// all returns the tracks of all trust roots.
func (t *Tracker) all() []*track {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*track, 0, len(t.tracks))
	for _, one := range t.tracks {
		all = append(all, one)
	}
	return all
}

// Reset starts anew after a trust root was published: it sets the refresh interval, and fetches at
// once what failed under the earlier root.
func (t *Tracker) Reset(root string, interval time.Duration) {
	one := t.track(root)
	for _, h := range one.reset(interval) {
		one.publishHost(h)
	}
	one.rebaseLater()
}

// Forget drops the tracking state of a trust root.
func (t *Tracker) Forget(root string) {
	t.mu.Lock()
	one := t.tracks[root]
	delete(t.tracks, root)
	t.mu.Unlock()
	if one != nil {
		one.mu.Lock()
		one.gone = true
		one.mu.Unlock()
	}
}

// answerWait bounds how long a request waits for a new answer about a tag where an older one counts
// in its place.
const answerWait = 2 * time.Second

// Ensure fetches a subject unless the store has its evidence, and waits until the fetch or ctx
// ends. The fetch outlives ctx, even while it is queued, and serves later requests. It counts
// against the namespace that the purpose of ctx names. Where the server asks for a short pause,
// Ensure waits for its end if ctx allows that, and fetches again. The caller must load the snapshot
// again. The error is ctx's, or the *trust.Fault of this fetch, or of one that failed moments ago.
func (t *Tracker) Ensure(ctx context.Context, k trust.Key) error {
	if t.derive(k) {
		return nil
	}
	return t.demand(ctx, k, wait{enough: func(time.Time) bool {
		h := t.store.Load().evidence.get(k)
		return h != nil && h.fault == nil
	}})
}

// EnsureFor is Ensure for a request that arrived at a time: an answer about a tag must count for it
// (trust.Timely). If an older answer is usable, EnsureFor waits until 2 s after the arrival at the
// longest, or after the fetch began that it joins. Then it returns a fault with ReasonTimeout, and
// the fetch continues. For a host that is down it then returns the fault at once.
func (t *Tracker) EnsureFor(ctx context.Context, k trust.Key, arrived time.Time) error {
	if t.derive(k) {
		return nil
	}
	w := wait{enough: func(time.Time) bool {
		h := t.store.Load().evidence.get(k)
		if h == nil || h.fault != nil {
			return false
		}
		answer, ok := h.evidence.(trust.Answer)
		return !ok || trust.Timely(answer, arrived)
	}}
	if h := t.store.Load().evidence.get(k); h != nil && h.fault == nil {
		if answer, ok := h.evidence.(trust.Answer); ok && t.clock.Now().Before(answer.Usable()) {
			w.until = arrived.Add(answerWait)
		}
	}
	return t.demand(ctx, k, w)
}

// derive publishes the evidence of a subject of which nothing is held, if the root has verified it
// for others already. So a signed image needs no server that was never requested before.
func (t *Tracker) derive(k trust.Key) bool {
	snapshot := t.store.Load()
	r := snapshot.roots[k.Root]
	if r == nil || r.Verifier == nil || snapshot.evidence.get(k) != nil {
		return false
	}
	deriver, ok := r.Verifier.(trust.Deriver)
	if !ok {
		return false
	}
	evidence := deriver.Derive(k.Subject)
	if evidence == nil {
		return false
	}
	published, beyond := t.store.putEvidence(k, r.Verifier, nil, &cached{evidence: evidence, stale: r.ExpiredGrace > 0})
	if !published || beyond != nil {
		return false
	}
	t.restored(k)
	return true
}

// Renew fetches a subject unless a fetch of it began at since or later, so that a signature made
// before since is found. One fetch of a subject is in flight at a time. It waits and fails as
// Ensure does.
func (t *Tracker) Renew(ctx context.Context, k trust.Key, since time.Time) error {
	return t.demand(ctx, k, wait{enough: func(began time.Time) bool { return !began.Before(since) }})
}

// wait says what a request waits for.
type wait struct {
	// enough accepts a fetch, by the time at which it began. It is called with the lock held.
	enough func(began time.Time) bool
	// until is when the request stops waiting, because an older answer counts in place of a new
	// one. Zero: there is none.
	until time.Time
}

// end returns when to stop waiting for a flight; zero: never.
func (w wait) end(f *flight) time.Time {
	if w.until.IsZero() {
		return time.Time{}
	}
	return earlier(w.until, f.created.Add(answerWait))
}

// demand starts or joins fetches until one is enough.
func (t *Tracker) demand(ctx context.Context, k trust.Key, w wait) error {
	if err := t.store.Load().Usable(k.Root); err != nil {
		return err
	}
	share := trust.PurposeOf(ctx).Share()
	one := t.track(k.Root)
	t.awaitBase(ctx, one, k, share)
	for pauses := 0; ; {
		f, err := one.join(k.Subject, share, w)
		if f == nil {
			if err == nil || !t.awaitPause(ctx, w, err, &pauses) {
				return err
			}
			continue
		}
		if err := t.await(ctx, k, f, w.end(f)); err != nil && !t.awaitPause(ctx, w, err, &pauses) {
			return err
		}
	}
}

// await waits for a flight until end, and returns its error.
func (t *Tracker) await(ctx context.Context, k trust.Key, f *flight, end time.Time) error {
	late := trust.NewFault(v1alpha1.ReasonTimeout, "%s: no answer within %s", k.Subject, answerWait)
	var timeout <-chan time.Time
	if !end.IsZero() {
		left := end.Sub(t.clock.Now())
		if left <= 0 {
			return late
		}
		timer := t.clock.NewTimer(left)
		defer timer.Stop()
		timeout = timer.C()
	}
	select {
	case <-f.done:
		return f.err
	case <-timeout:
		return late
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s under TrustRoot %q: %w", k.Subject, k.Root, ctx.Err())
	}
}

const (
	// longestPause is the longest pause that a request waits for.
	longestPause = 5 * time.Second
	// maxPauses is how many pauses one request waits for.
	maxPauses = 8
)

// awaitPause waits until the server that gave a fault accepts requests again. It reports false, at
// once, if the fault names no such time, or one that is too far off for ctx or for the request.
func (t *Tracker) awaitPause(ctx context.Context, w wait, err error, pauses *int) bool {
	at := trust.AsFault(err, "").RetryAt
	if *pauses++; at.IsZero() || *pauses > maxPauses || !w.until.IsZero() && !at.Before(w.until) {
		return false
	}
	pause := at.Sub(t.clock.Now())
	if deadline, ok := ctx.Deadline(); pause > longestPause || ok && pause >= time.Until(deadline) {
		return false
	}
	timer := t.clock.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-ctx.Done():
		return false
	}
}

// wake makes Run look for due work now.
func (t *Tracker) wake() {
	select {
	case t.woken <- struct{}{}:
	default: // it is signalled already
	}
}

// Run refreshes due subjects until ctx ends. It does not wait for fetches in flight; each has a
// timeout.
func (t *Tracker) Run(ctx context.Context) error {
	ticker := t.clock.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
			t.prune()
		case <-t.woken:
		}
		for _, one := range t.all() {
			one.rebaseLater()
			one.readFeed()
			for _, task := range one.dueNow() {
				task.start()
			}
		}
	}
}
