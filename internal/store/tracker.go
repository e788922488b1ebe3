package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/countersign-dev/countersign/internal/trust"
)

// Tracker fetches evidence into a Store, once for all who ask at the same time, and keeps it up to
// date. Make it with NewTracker; Run refreshes until its context ends.
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

// track returns what keeps the evidence under a trust root up to date.
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

// lookup returns what keeps the evidence under a trust root up to date, nil where nothing does.
func (t *Tracker) lookup(root string) *track {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tracks[root]
}

// all returns that of every trust root.
func (t *Tracker) all() []*track {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*track, 0, len(t.tracks))
	for _, one := range t.tracks {
		all = append(all, one)
	}
	return all
}

// Reset says that a trust root was published anew: how often its subjects are refreshed from now
// on, and that what failed under the earlier root is to be fetched at once.
func (t *Tracker) Reset(root string, interval time.Duration) {
	one := t.track(root)
	for _, h := range one.reset(interval) {
		one.publishHost(h)
	}
}

// Forget drops what is known of a trust root's subjects.
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

// Ensure fetches a subject unless its evidence is held, and waits until that is done or ctx is
// over; the fetch then goes on for those who ask later. It is the caller that loads the snapshot
// anew. The error is ctx's, or the *trust.Fault of the fetch, or that of a fetch that failed
// moments ago.
func (t *Tracker) Ensure(ctx context.Context, k trust.Key) error {
	return t.demand(ctx, k, func(time.Time) bool {
		h := t.store.Load().evidence.get(k)
		return h != nil && h.fault == nil
	})
}

// Renew sees to it that the evidence about a subject is of a fetch that began no earlier than
// since, so that a signature made before then is seen. However many ask, one fetch of a subject is
// under way at a time. It waits and fails as Ensure does.
func (t *Tracker) Renew(ctx context.Context, k trust.Key, since time.Time) error {
	return t.demand(ctx, k, func(began time.Time) bool { return !began.Before(since) })
}

// demand starts or joins fetches until enough says that what began at a time and has ended will do;
// the lock is held when it is asked.
func (t *Tracker) demand(ctx context.Context, k trust.Key, enough func(began time.Time) bool) error {
	if err := t.store.Load().Usable(k.Root); err != nil {
		return err
	}
	for one := t.track(k.Root); ; {
		f, err := one.join(k.Subject, enough)
		if f == nil {
			return err
		}
		select {
		case <-f.done:
			if f.err != nil {
				return f.err
			}
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s under TrustRoot %q: %w", k.Subject, k.Root, ctx.Err())
		}
	}
}

// wake has Run look for what is due now.
func (t *Tracker) wake() {
	select {
	case t.woken <- struct{}{}:
	default: // it is told already
	}
}

// Run refreshes what is due until ctx ends. It does not wait for fetches under way; they are
// bounded.
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
			one.readFeed()
			for _, task := range one.dueNow() {
				task.start()
			}
		}
	}
}
