package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"k8s.io/utils/clock"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// fetchTimeout bounds one fetch of one repository: three round trips to a server that takes 30 seconds for each, and some more
	// for a token. Nobody waits so long; it is there for the next who asks.
	fetchTimeout = 150 * time.Second
	// placeTimeout bounds the wait for a place before it. Whoever finds none is fetched in the background, in turn.
	placeTimeout = 30 * time.Second
	// fetchesPerRoot is how many repositories of one trust root are fetched at once: of those that are known to be signed,
	// and of the others, each.
	fetchesPerRoot = 8
	// maxAsked is how many repositories of one trust root that are not known to be signed may be fetched, or wait for that, because
	// somebody asks: Pods may name any. Who asks beyond has one fetched in the background, in turn.
	maxAsked = 1000
	// firstRetry doubles with each failure in a row, up to the refresh interval. Who asks need not wait longer than the first time: one
	// fetch of a repository is under way at a time, and what is wrong with one is mended while somebody waits for it.
	firstRetry = time.Second
)

// Tracker fetches evidence into a Store, once for all who ask at the same time, and keeps it up to date. Make it with
// NewTracker; Run refreshes until its context ends.
type Tracker struct {
	store   *Store
	clock   clock.WithTicker
	changed func(root string)

	mu      sync.Mutex
	tracked map[trust.Key]*tracked
	roots   map[string]*pace
	// taken counts the fetches under way in the background.
	taken map[turn]int
	// retained are the subjects that what runs is checked against.
	retained map[trust.Key]bool

	// woken is signalled when something is due sooner than the next tick.
	woken chan struct{}
}

// tracked is what the tracker knows of one subject beside its evidence.
type tracked struct {
	flight    *flight   // the fetch under way; nil: none
	fetched   time.Time // when the last fetch that has ended began
	due       time.Time // of the next refresh
	retry     time.Time // before which no fetch on demand is made after a fault; moments, or until the server wants one
	asked     time.Time
	used      time.Time // when it was last asked for, by admission or for what runs; zero: not since the start
	succeeded time.Time
	failures  int
	fault     *trust.Fault // of the last fetch
	hinted
}

// flight is one fetch, which any number of callers wait for.
type flight struct {
	began time.Time
	turn  *turn         // that it takes; nil: none, somebody waits for it
	trial bool          // of a server that is down
	asked *pace         // among whose askers it counts; nil: none
	done  chan struct{} // closed when the fetch has ended
	err   error         // read after done
}

type pace struct {
	server
	interval      time.Duration
	known, others *semaphore.Weighted
	asked         int // fetches on demand of repositories not known to be signed, those that wait for a place among them
	feed          *feed
}

// NewTracker returns a tracker that fills store. changed is called, without a lock held, when the state of a trust
// root's repositories has changed; it must not block.
func NewTracker(store *Store, c clock.WithTicker, changed func(root string)) *Tracker {
	return &Tracker{store: store, clock: c, changed: changed, tracked: map[trust.Key]*tracked{}, roots: map[string]*pace{}, taken: map[turn]int{}, woken: make(chan struct{}, 1)}
}

// Reset says that a trust root was published anew: how often its repositories are refreshed from now on, and that what
// failed under the earlier root is to be fetched at once. What is held is refreshed over a while, not all at once: mostly it was read from
// what was written down, or is as it was.
func (t *Tracker) Reset(root string, interval time.Duration) {
	defer t.noteServer(root)
	now := t.clock.Now()
	evidence := t.store.Load().evidence
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.pace(root)
	p.interval, p.server, p.feed = interval, server{}, &feed{due: now}
	for k := range evidence.under(root) {
		t.entry(k, now)
	}
	for k, e := range t.tracked {
		if k.Root != root {
			continue
		}
		e.due, e.retry, e.failures = now, now, 0
		if h := evidence.get(k); h != nil && h.fault == nil && !h.anew && e.fault == nil && !h.past(now) {
			e.due = now.Add(spread(min(interval/2, freshen)))
		}
	}
	t.entry(probe(root), now).due = now
	t.wake()
}

// probe is the key under which the signing server itself is asked for a sign of life.
func probe(root string) trust.Key { return trust.Key{Root: root} }

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

// Ensure fetches a subject unless its evidence is held, and waits until that is done or ctx is over;
// the fetch then goes on for those who ask later. It is the caller that loads the snapshot anew. The error is ctx's, or the
// *trust.Fault of the fetch, or that of a fetch that failed moments ago.
func (t *Tracker) Ensure(ctx context.Context, k trust.Key) error {
	return t.demand(ctx, k, func(time.Time) bool {
		h := t.store.Load().evidence.get(k)
		return h != nil && h.fault == nil
	})
}

// Renew sees to it that the evidence about a subject is of a fetch that began no earlier than since, so that a signature
// made before then is seen. However many ask, one fetch of a subject is under way at a time. It waits and fails as
// Ensure does.
func (t *Tracker) Renew(ctx context.Context, k trust.Key, since time.Time) error {
	return t.demand(ctx, k, func(began time.Time) bool { return !began.Before(since) })
}

// demand starts or joins fetches until enough says that what began at a time and has ended will do; the lock is held
// when it is asked.
func (t *Tracker) demand(ctx context.Context, k trust.Key, enough func(began time.Time) bool) error {
	if err := t.store.Load().Usable(k.Root); err != nil {
		return err
	}
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
			return fmt.Errorf("waiting for %s under TrustRoot %q: %w", k.Subject, k.Root, ctx.Err())
		}
	}
}

// join returns the fetch to wait for, or nil if there is enough already, or if the last one failed moments ago. Where the server is down
// it is the probe.
func (t *Tracker) join(k trust.Key, enough func(began time.Time) bool) (*flight, error) {
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(k, now)
	e.asked, e.used = now, now
	switch {
	case e.flight != nil:
		return e.flight, nil
	case !e.fetched.IsZero() && e.fault == nil && enough(e.fetched):
		return nil, nil
	}
	if f, err := t.ask(k.Root, now); f != nil || err != nil {
		e.due = earlier(e.due, now) // when the server is back
		return f, err
	}
	if e.fault != nil && now.Before(e.retry) {
		return nil, e.fault
	}
	p, known := t.pace(k.Root), signed(t.store.Load().evidence.get(k))
	if !known && p.asked >= maxAsked {
		e.due = earlier(e.due, now)
		return nil, trust.NewFault(v1alpha1.ReasonTimeout, "%s: too many other repositories of TrustRoot %q are asked for at once", k.Subject, k.Root)
	}
	f := t.begin(k, e, now, nil)
	if !known {
		f.asked = p
		p.asked++
	}
	return f, nil
}

// begin starts a fetch; the lock is held. The fetch has a deadline of its own: whoever waits for it may leave without
// ending it.
func (t *Tracker) begin(k trust.Key, e *tracked, now time.Time, turn *turn) *flight {
	f := &flight{began: now, turn: turn, trial: t.pace(k.Root).down != nil, done: make(chan struct{})}
	e.flight = f
	if turn != nil {
		t.taken[*turn]++
	}
	go func() {
		f.err = t.fetch(context.Background(), k, f)
		t.land(e, f)
		close(f.done)
	}()
	return f
}

// entry returns the state of a subject; the lock is held.
func (t *Tracker) entry(k trust.Key, now time.Time) *tracked {
	e := t.tracked[k]
	if e == nil {
		e = &tracked{due: now.Add(jitter(t.pace(k.Root).interval)), asked: now}
		t.tracked[k] = e
	}
	return e
}

// fetch brings one subject up to date and publishes the outcome.
func (t *Tracker) fetch(ctx context.Context, k trust.Key, f *flight) error {
	if k == probe(k.Root) {
		return t.probe(ctx, k)
	}
	places, known := t.places(k)
	waiting, cancel := context.WithTimeout(ctx, placeTimeout)
	defer cancel()
	if err := places.Acquire(waiting, 1); err != nil {
		fault := trust.NewFault(v1alpha1.ReasonTimeout, "%s: too many other repositories of TrustRoot %q are being fetched: %w", k.Subject, k.Root, err)
		t.record(k, nil, nil, fault)
		return fault
	}
	defer places.Release(1)
	if fault := t.outage(k.Root); fault != nil && !f.trial { // since it waits for a place
		t.record(k, nil, nil, fault)
		return fault
	}
	ctx, cancel = context.WithTimeout(trust.WithPurpose(ctx, trust.Purpose{Known: known, Background: f.turn != nil}), fetchTimeout)
	defer cancel()
	for {
		snapshot := t.store.Load()
		if err := snapshot.Usable(k.Root); err != nil {
			return err
		}
		root, old := snapshot.roots[k.Root].Root, snapshot.evidence.get(k)
		began, stage := time.Now(), StageFirst
		if old != nil && old.evidence != nil {
			stage = StageRefresh
		}
		next, err := fetchOne(ctx, root, k.Subject, old)
		next = snapshot.roots[k.Root].noteStale(old, next, err)
		t.store.observe(k.Root, snapshot.roots[k.Root].Format, stage, began, next, err)
		published, beyond := t.store.putEvidence(k, root, old, next)
		if beyond != nil {
			next, err = old.failed(beyond), beyond
		}
		if published {
			t.record(k, old, next, err)
			if err != nil {
				return err
			}
			return nil
		}
	}
}

// places returns the places that a repository is fetched in, and whether it is known to be signed. Those that are known to be signed have some of their own,
// so that a flood of made-up names holds up neither a refresh nor a revocation.
func (t *Tracker) places(k trust.Key) (places *semaphore.Weighted, known bool) {
	known = signed(t.store.Load().evidence.get(k))
	t.mu.Lock()
	defer t.mu.Unlock()
	if known {
		return t.pace(k.Root).known, true
	}
	return t.pace(k.Root).others, false
}

// probe asks the signing server for a sign of life, and records the outcome.
func (t *Tracker) probe(ctx context.Context, k trust.Key) error {
	ctx, cancel := context.WithTimeout(trust.WithPurpose(ctx, trust.Purpose{Known: true}), fetchTimeout)
	defer cancel()
	for {
		snapshot := t.store.Load()
		if err := snapshot.Usable(k.Root); err != nil {
			return err
		}
		root := snapshot.roots[k.Root]
		began := time.Now()
		var fault *trust.Fault
		if err := probeOne(ctx, root.Root); err != nil {
			fault = trust.AsFault(err, v1alpha1.ReasonUnreachable)
		}
		t.store.observe(k.Root, root.Format, StageProbe, began, nil, fault)
		if t.store.Load().roots[k.Root] != root {
			continue // it says nothing of what was published meanwhile
		}
		t.record(k, nil, nil, fault)
		if fault != nil {
			return fault
		}
		return nil
	}
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
func fetchOne(ctx context.Context, root trust.Root, about trust.Subject, old *held) (next *held, fault *trust.Fault) {
	next = old
	defer func() {
		if r := recover(); r != nil {
			fault = trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: verification broke off: %v", about, r)
		}
		if fault != nil {
			next = old.failed(fault)
		}
	}()
	evidence, err := root.Fetch(ctx, about, old.seen())
	switch {
	case err != nil:
		return next, trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)
	case evidence == nil:
		return next, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: verification gave no evidence", about)
	case old != nil && old.fault == nil && !old.anew && !old.stale && !old.ended && evidence == old.evidence:
		return old, nil
	}
	return &held{evidence: evidence}, nil
}

// record notes the outcome of a fetch, and when the next is due.
func (t *Tracker) record(k trust.Key, old, next *held, fault *trust.Fault) {
	now := t.clock.Now()
	t.mu.Lock()
	e := t.entry(k, now)
	changed := old != next || (fault == nil) != (e.fault == nil) || e.succeeded.IsZero()
	if fault == nil {
		e.failures, e.succeeded = 0, now
	} else {
		changed = changed || fault.Reason != e.fault.Reason
		e.failures++
	}
	e.fault = fault
	began := now
	if e.flight != nil {
		began = e.flight.began
	}
	t.schedule(k, e, now)
	if fault == nil {
		e.hint(now, t.pace(k.Root).interval, next)
	}
	if k == probe(k.Root) {
		t.probed(k.Root, began, now, fault)
	} else {
		t.heard(k.Root, began, now, fault)
	}
	t.mu.Unlock()
	t.noteServer(k.Root)
	if changed {
		t.changed(k.Root)
	}
}
