package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"k8s.io/utils/clock"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// fetchTimeout bounds one fetch of one repository, the wait for a place included.
	fetchTimeout = 30 * time.Second
	// fetchesPerRoot is how many repositories of one trust root are fetched at once: of those that are known to be signed,
	// and of the others, each.
	fetchesPerRoot = 8
	// firstRetry doubles with each failure in a row, up to lastRetry on demand and to the refresh interval otherwise.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// Tracker fetches evidence into a Store, once for all who ask at the same time, and keeps it up to date. Make it with
// NewTracker; Run refreshes until its context ends.
type Tracker struct {
	store   *Store
	clock   clock.WithTicker
	changed func(root string)

	mu      sync.Mutex
	tracked map[Key]*tracked
	roots   map[string]*pace
	// taken counts the fetches under way in the background.
	taken map[turn]int
	// retained are the repositories that what runs is checked against.
	retained map[Key]bool

	// woken is signalled when something is due sooner than the next tick.
	woken chan struct{}
}

// tracked is what the tracker knows of one repository beside its evidence.
type tracked struct {
	flight    *flight   // the fetch under way; nil: none
	fetched   time.Time // when the last fetch that has ended began
	due       time.Time // of the next refresh
	retry     time.Time // before which no fetch on demand is made after a fault
	asked     time.Time
	used      time.Time // when it was last asked for, by admission or for what runs; zero: not since the start
	succeeded time.Time
	failures  int
	fault     *trust.Fault // of the last fetch
}

// flight is one fetch, which any number of callers wait for.
type flight struct {
	began time.Time
	turn  *turn         // that it takes; nil: none, somebody waits for it
	done  chan struct{} // closed when the fetch has ended
	err   error         // read after done
}

type pace struct {
	interval      time.Duration
	known, others *semaphore.Weighted
}

// NewTracker returns a tracker that fills store. changed is called, without a lock held, when the state of a trust
// root's repositories has changed; it must not block.
func NewTracker(store *Store, c clock.WithTicker, changed func(root string)) *Tracker {
	return &Tracker{store: store, clock: c, changed: changed, tracked: map[Key]*tracked{}, roots: map[string]*pace{}, taken: map[turn]int{}, woken: make(chan struct{}, 1)}
}

// Reset says that a trust root was published anew: how often its repositories are refreshed from now on, and that what
// is held of them, and what failed under the earlier root, is to be fetched at once.
func (t *Tracker) Reset(root string, interval time.Duration) {
	now := t.clock.Now()
	held := t.store.Load().evidence
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pace(root).interval = interval
	for k := range held {
		if k.Root == root {
			t.entry(k, now)
		}
	}
	for k, e := range t.tracked {
		if k.Root == root {
			e.due, e.retry, e.failures = now, now, 0
		}
	}
	t.entry(probe(root), now).due = now
	t.wake()
}

// probe is the key under which the signing server itself is asked for a sign of life.
func probe(root string) Key { return Key{Root: root} }

// pace returns the pace of a root; the lock is held.
func (t *Tracker) pace(root string) *pace {
	p := t.roots[root]
	if p == nil {
		p = &pace{interval: 5 * time.Minute, known: semaphore.NewWeighted(fetchesPerRoot), others: semaphore.NewWeighted(fetchesPerRoot)}
		t.roots[root] = p
	}
	return p
}

// Forget drops what is known of a trust root's repositories.
func (t *Tracker) Forget(root string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.roots, root)
	for k := range t.tracked {
		if k.Root == root {
			delete(t.tracked, k)
		}
	}
}

// Ensure fetches the repository of an image unless its evidence is held, and waits until that is done or ctx is over;
// the fetch then goes on for those who ask later. It is the caller that loads the snapshot anew. The error is ctx's, or the
// *trust.Fault of the fetch, or that of a fetch that failed moments ago.
func (t *Tracker) Ensure(ctx context.Context, root string, image imageref.Ref) error {
	return t.demand(ctx, root, image, func(k Key, _ time.Time) bool {
		h := t.store.Load().evidence[k]
		return h != nil && h.fault == nil
	})
}

// Renew sees to it that the evidence for an image is of a fetch that began no earlier than since, so that a signature
// made before then is seen. However many ask, one fetch of a repository is under way at a time. It waits and fails as
// Ensure does.
func (t *Tracker) Renew(ctx context.Context, root string, image imageref.Ref, since time.Time) error {
	return t.demand(ctx, root, image, func(_ Key, began time.Time) bool { return !began.Before(since) })
}

// demand starts or joins fetches until enough says that what began at a time and has ended will do; the lock is held
// when it is asked.
func (t *Tracker) demand(ctx context.Context, root string, image imageref.Ref, enough func(k Key, began time.Time) bool) error {
	snapshot := t.store.Load()
	if err := snapshot.Usable(root); err != nil {
		return err
	}
	k := snapshot.key(root, image)
	for {
		f, err := t.join(k, enough)
		if f == nil {
			return err
		}
		select {
		case <-f.done:
			if f.err != nil {
				return f.err
			}
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s under TrustRoot %q: %w", k.Repository, k.Root, ctx.Err())
		}
	}
}

// join returns the fetch to wait for, or nil if there is enough already, or if the last one failed moments ago.
func (t *Tracker) join(k Key, enough func(k Key, began time.Time) bool) (*flight, error) {
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(k, now)
	e.asked, e.used = now, now
	switch {
	case e.flight != nil:
		return e.flight, nil
	case e.fault != nil && now.Before(e.retry):
		return nil, e.fault
	case !e.fetched.IsZero() && e.fault == nil && enough(k, e.fetched):
		return nil, nil
	}
	return t.begin(k, e, now, nil), nil
}

// begin starts a fetch; the lock is held. The fetch has a deadline of its own: whoever waits for it may leave without
// ending it.
func (t *Tracker) begin(k Key, e *tracked, now time.Time, turn *turn) *flight {
	f := &flight{began: now, turn: turn, done: make(chan struct{})}
	e.flight = f
	if turn != nil {
		t.taken[*turn]++
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		f.err = t.fetch(ctx, k)
		t.land(e, f)
		close(f.done)
	}()
	return f
}

// entry returns the state of a repository; the lock is held.
func (t *Tracker) entry(k Key, now time.Time) *tracked {
	e := t.tracked[k]
	if e == nil {
		e = &tracked{due: now.Add(jitter(t.pace(k.Root).interval)), asked: now}
		t.tracked[k] = e
	}
	return e
}

// fetch brings one repository up to date and publishes the outcome.
func (t *Tracker) fetch(ctx context.Context, k Key) error {
	if k == probe(k.Root) {
		return t.probe(ctx, k)
	}
	places := t.places(k)
	if err := places.Acquire(ctx, 1); err != nil {
		fault := trust.NewFault(v1alpha1.ReasonTimeout, "%s: too many other repositories of TrustRoot %q are being fetched: %w", k.Repository, k.Root, err)
		t.record(k, nil, nil, fault)
		return fault
	}
	defer places.Release(1)
	for {
		snapshot := t.store.Load()
		if err := snapshot.Usable(k.Root); err != nil {
			return err
		}
		root, old := snapshot.roots[k.Root].Root, snapshot.evidence[k]
		began, stage := time.Now(), StageFirst
		if old != nil && old.evidence != nil {
			stage = StageRefresh
		}
		next, err := fetchOne(ctx, root, k.Repository, old)
		t.store.observe(k.Root, snapshot.roots[k.Root].Format, stage, began, next, err)
		if t.store.putEvidence(k, root, old, next) {
			t.record(k, old, next, err)
			if err != nil {
				return err
			}
			return nil
		}
	}
}

// places returns the places that a repository is fetched in. Those that are known to be signed have some of their own,
// so that a flood of made-up names holds up neither a refresh nor a revocation.
func (t *Tracker) places(k Key) *semaphore.Weighted {
	known := signed(t.store.Load().evidence[k])
	t.mu.Lock()
	defer t.mu.Unlock()
	if known {
		return t.pace(k.Root).known
	}
	return t.pace(k.Root).others
}

// probe asks the signing server for a sign of life, and records the outcome.
func (t *Tracker) probe(ctx context.Context, k Key) error {
	snapshot := t.store.Load()
	if err := snapshot.Usable(k.Root); err != nil {
		return err
	}
	began := time.Now()
	err := probeOne(ctx, snapshot.roots[k.Root].Root)
	var fault *trust.Fault
	if err != nil {
		fault = trust.AsFault(err, v1alpha1.ReasonUnreachable)
	}
	t.store.observe(k.Root, snapshot.roots[k.Root].Format, StageProbe, began, nil, fault)
	t.record(k, nil, nil, fault)
	return err
}

func probeOne(ctx context.Context, root trust.Root) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "the probe broke off: %v", r)
		}
	}()
	return root.Probe(ctx)
}

// fetchOne asks the root for evidence newer than old. A panic in the verification of hostile metadata is a fault like
// any other.
func fetchOne(ctx context.Context, root trust.Root, repository string, old *held) (next *held, fault *trust.Fault) {
	next = old
	defer func() {
		if r := recover(); r != nil {
			fault = trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: verification broke off: %v", repository, r)
		}
		if fault != nil && (next == nil || next.evidence == nil || next.fault != nil) {
			next = &held{fault: fault}
			if old != nil {
				next.evidence, next.anew = old.evidence, old.anew // for a later root that accepts it again
			}
		}
	}()
	evidence, err := root.Fetch(ctx, repository, old.seen())
	switch {
	case err != nil:
		return next, trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)
	case evidence == nil:
		return next, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: verification gave no evidence", repository)
	case old != nil && old.fault == nil && !old.anew && evidence == old.evidence:
		return old, nil
	}
	return &held{evidence: evidence}, nil
}

// record notes the outcome of a fetch, and when the next is due.
func (t *Tracker) record(k Key, old, next *held, fault *trust.Fault) {
	now := t.clock.Now()
	t.mu.Lock()
	e, p := t.entry(k, now), t.pace(k.Root)
	changed := old != next || (fault == nil) != (e.fault == nil) || e.succeeded.IsZero()
	if fault == nil {
		e.failures, e.succeeded = 0, now
		e.due = now.Add(jitter(p.interval))
	} else {
		changed = changed || fault.Reason != e.fault.Reason
		wait := jitter(firstRetry << min(e.failures, 20))
		e.failures++
		e.due, e.retry = now.Add(min(wait, p.interval)), now.Add(min(wait, lastRetry))
	}
	e.fault = fault
	t.mu.Unlock()
	if changed {
		t.changed(k.Root)
	}
}
