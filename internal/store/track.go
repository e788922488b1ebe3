package store

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// fetchTimeout bounds one fetch of one subject: three round trips to a server that takes 30
	// seconds for each, and some more for a token. Nobody waits so long; it is there for the next
	// who asks.
	fetchTimeout = 150 * time.Second
	// placeTimeout bounds the wait for a place before it. Whoever finds none is fetched in the
	// background, in turn.
	queueTimeout = 30 * time.Second
	// defaultInterval is how often a subject is refreshed until Reset says it.
	defaultInterval = 5 * time.Minute
)

// track keeps the evidence under one trust root up to date. Its parts know nothing of each other:
// the entries and when each is due, the hosts and whether they can be asked, the list of what was
// published, the places to fetch in, and what is retained.
type track struct {
	root    string
	store   *Store
	clock   clock.PassiveClock
	changed func(root string)
	wake    func() // has Run look for what is due now

	mu       sync.Mutex
	interval time.Duration
	entries  map[trust.Subject]*entry
	hosts    map[string]*host // by name
	server   string           // the host that can be asked before any subject; empty: there is none
	feed     *feed
	known    *limit // for subjects that are known to be signed
	others   *limit
	retained map[trust.Subject]bool // what runs is checked against these
	gone     bool                   // it is forgotten: what is still under way speaks for nobody
}

func (t *Tracker) newTrack(root string) *track {
	return &track{
		root: root, store: t.store, clock: t.clock, changed: t.changed, wake: t.wake,
		interval: defaultInterval, entries: map[trust.Subject]*entry{}, hosts: map[string]*host{}, known: newLimit(),
		others: newLimit(),
	}
}

func (t *track) key(about trust.Subject) trust.Key { return trust.Key{Root: t.root, Subject: about} }

// signed reports whether a subject is known to be signed.
func (t *track) signed(about trust.Subject) bool {
	return signed(t.store.Load().evidence.get(t.key(about)))
}

// placesOf returns the places in which a subject is fetched; the lock is held.
func (t *track) limitFor(known bool) *limit {
	if known {
		return t.known
	}
	return t.others
}

// hostOf returns the host that is asked about a subject; the lock is held.
func (t *track) hostOf(about trust.Subject) *host {
	name := ""
	if r := t.store.Load().roots[t.root]; r != nil && r.Verifier != nil {
		name = r.Verifier.Host(about)
	}
	return t.host(name)
}

func (t *track) host(name string) *host {
	h := t.hosts[name]
	if h == nil {
		h = &host{name: name}
		h.probe.due = t.clock.Now().Add(jitter(t.interval))
		t.hosts[name] = h
	}
	return h
}

// entry returns the state of a subject; the lock is held.
func (t *track) entry(about trust.Subject, now time.Time) *entry {
	e := t.entries[about]
	if e == nil {
		e = &entry{requested: now}
		e.due = now.Add(jitter(t.interval))
		t.entries[about] = e
	}
	return e
}

// reset says that the trust root was published anew: how often its subjects are refreshed from now
// on, and that what failed under the earlier root is to be fetched at once. What is held is
// refreshed over a while, not all at once: mostly it was read from what was written down, or is as
// it was. It returns the hosts that are known.
func (t *track) reset(interval time.Duration) []*host {
	now, snapshot := t.clock.Now(), t.store.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.interval, t.feed = interval, &feed{due: now}
	for k := range snapshot.evidence.under(t.root) {
		t.entry(k.Subject, now)
	}
	for about, e := range t.entries {
		e.reset(now)
		if h := snapshot.evidence.get(t.key(about)); h.current(now) && e.fault == nil {
			e.due = now.Add(spread(min(interval/2, freshen)))
		}
	}
	if r := snapshot.roots[t.root]; r != nil && r.Verifier != nil {
		if t.server = r.Verifier.Host(trust.Subject{}); t.server != "" {
			t.host(t.server)
		}
	}
	for _, h := range t.hosts {
		h.reset(now)
	}
	t.wake()
	return slices.Collect(maps.Values(t.hosts))
}

// join returns the flight to wait for, or nil if there is enough already, or if the last fetch
// failed moments ago. Where the host is down it is the probe.
func (t *track) join(about trust.Subject, enough func(began time.Time) bool) (*flight, error) {
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(about, now)
	e.requested, e.used = now, now
	switch {
	case e.flight != nil:
		return e.flight, nil
	case !e.fetched.IsZero() && e.fault == nil && enough(e.fetched):
		return nil, nil
	}
	if h := t.hostOf(about); h.down != nil {
		e.due = earlier(e.due, now) // when the host is back
		return t.awaitHost(h, now)
	}
	if e.fault != nil && now.Before(e.retry) {
		return nil, e.fault
	}
	known := t.signed(about)
	p := t.limitFor(known)
	if p.full(known) {
		e.due = earlier(e.due, now)
		return nil, trust.NewFault(v1alpha1.ReasonTimeout,
			"%s: too many other repositories of TrustRoot %q are asked for at once", about, t.root)
	}
	return t.begin(about, e, p, now, false), nil
}

// ask returns the probe to wait for before anything else is asked of a host that is down, or its
// fault where the probe went out moments ago or the server wants to be left alone; the lock is
// held.
func (t *track) awaitHost(h *host, now time.Time) (*flight, error) {
	switch {
	case h.down.RetryAt.After(now):
		return nil, h.down
	case h.flight != nil:
		return h.flight, nil
	case !h.probeable(now):
		return nil, h.down
	}
	return t.beginProbe(h, now), nil
}

// begin starts a fetch; the lock is held. The fetch has a deadline of its own: whoever waits for it
// may leave without ending it.
func (t *track) begin(about trust.Subject, e *entry, p *limit, now time.Time, background bool) *flight {
	f := &flight{
		began: now, background: background, trial: t.hostOf(about).down != nil, limit: p, done: make(chan struct{}),
	}
	e.flight = f
	if background {
		p.background++
	} else {
		p.onDemand++
	}
	go func() {
		f.err = t.fetch(context.Background(), about, f)
		t.finish(e, f)
		close(f.done)
	}()
	return f
}

// land notes the end of a fetch. Run is woken when so many turns are free that a look at everything
// is worth it.
func (t *track) finish(e *entry, f *flight) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.flight, e.fetched = nil, f.began
	if !f.background {
		f.limit.onDemand--
		return
	}
	f.limit.background--
	if f.limit.background < maxBackground/2 {
		t.wake()
	}
}

// beginProbe asks a host for a sign of life; the lock is held.
func (t *track) beginProbe(h *host, now time.Time) *flight {
	f := &flight{began: now, done: make(chan struct{})}
	h.flight = f
	go func() {
		f.err = t.probe(context.Background(), h, f)
		t.mu.Lock()
		h.flight, h.probe.fetched = nil, f.began
		t.mu.Unlock()
		close(f.done)
	}()
	return f
}

// probe asks a host for a sign of life, and records the outcome.
func (t *track) probe(ctx context.Context, h *host, f *flight) error {
	ctx, cancel := context.WithTimeout(trust.WithPurpose(ctx, trust.Purpose{Known: true}), fetchTimeout)
	defer cancel()
	for {
		snapshot := t.store.Load()
		if err := snapshot.Usable(t.root); err != nil {
			return err
		}
		root := snapshot.roots[t.root]
		began := time.Now()
		fault := probeOne(ctx, root.Verifier, h.name)
		t.store.observe(t.root, root.Format, StageProbe, began, nil, fault)
		if t.store.Load().roots[t.root] != root {
			continue // it says nothing of what was published meanwhile
		}
		t.recordProbe(h, f, fault)
		if fault != nil {
			return fault
		}
		return nil
	}
}

func probeOne(ctx context.Context, root trust.Root, host string) (fault *trust.Fault) {
	defer func() {
		if r := recover(); r != nil {
			fault = trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "the probe broke off: %v", r)
		}
	}()
	if err := root.Probe(ctx, host); err != nil {
		return trust.AsFault(err, v1alpha1.ReasonUnreachable)
	}
	return nil
}

// recordProbe notes the outcome of a probe, and when the next is due.
func (t *track) recordProbe(h *host, f *flight, fault *trust.Fault) {
	now := t.clock.Now()
	t.mu.Lock()
	before := h.probe
	if h.probeEnded(f.began, now, t.interval, fault) {
		t.recovered(h, now)
	}
	changed := before.succeeded.IsZero() || !sameReason(before.fault, fault)
	t.mu.Unlock()
	t.publishHost(h)
	if changed {
		t.changed(t.root)
	}
}

// sameReason reports whether two outcomes are alike in the eyes of a status.
func sameReason(a, b *trust.Fault) bool {
	return (a == nil) == (b == nil) && (a == nil || a.Reason == b.Reason)
}

// recovered has everything of a host refreshed that is due or has failed: at once for whoever asks,
// and otherwise over a few seconds. The lock is held.
func (t *track) recovered(h *host, now time.Time) {
	for about, e := range t.entries {
		if t.hostOf(about) == h && (e.fault != nil || !t.feed.dueAt(e, t.interval).After(now)) {
			e.due, e.retry = now.Add(spread(catchUp)), now
		}
	}
}

// outage returns why nothing but the probe is asked of the host of a subject; nil: it is asked.
func (t *track) outage(about trust.Subject) *trust.Fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hostOf(about).down
}

// fetch brings one subject up to date and publishes the outcome.
func (t *track) fetch(ctx context.Context, about trust.Subject, f *flight) error {
	waiting, cancel := context.WithTimeout(ctx, queueTimeout)
	defer cancel()
	if err := f.limit.Acquire(waiting, 1); err != nil {
		fault := trust.NewFault(v1alpha1.ReasonTimeout,
			"%s: too many other repositories of TrustRoot %q are being fetched: %w", about, t.root, err)
		t.record(about, f, nil, nil, fault)
		return fault
	}
	defer f.limit.Release(1)
	if fault := t.outage(about); fault != nil && !f.trial { // since it waits for a place
		t.record(about, f, nil, nil, fault)
		return fault
	}
	purpose := trust.Purpose{Known: f.limit == t.known, Background: f.background}
	ctx, cancel = context.WithTimeout(trust.WithPurpose(ctx, purpose), fetchTimeout)
	defer cancel()
	for k := t.key(about); ; {
		snapshot := t.store.Load()
		if err := snapshot.Usable(t.root); err != nil {
			return err
		}
		root, old := snapshot.roots[t.root], snapshot.evidence.get(k)
		began, stage := time.Now(), StageFirst
		if old != nil && old.evidence != nil {
			stage = StageRefresh
		}
		next, fault := fetchOne(ctx, root.Verifier, about, old)
		if root.ExpiredGrace > 0 {
			next = next.aged(old, fault)
		}
		t.store.observe(t.root, root.Format, stage, began, next, fault)
		published, beyond := t.store.putEvidence(k, root.Verifier, old, next)
		if !published {
			continue
		}
		if beyond != nil {
			next, fault = old.failed(beyond), beyond
		}
		t.record(about, f, old, next, fault)
		if fault != nil {
			return fault
		}
		return nil
	}
}

// fetchOne asks the root for evidence newer than old. A panic in the verification of hostile
// metadata is a fault like any other.
func fetchOne(ctx context.Context, root trust.Root, about trust.Subject, old *cached) (next *cached, fault *trust.Fault) {
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
	}
	return old.fetched(evidence), nil
}

// record notes the outcome of a fetch, and when the next is due.
func (t *track) record(about trust.Subject, f *flight, old, next *cached, fault *trust.Fault) {
	now := t.clock.Now()
	t.mu.Lock()
	e := t.entry(about, now)
	changed := old != next || e.succeeded.IsZero() || !sameReason(e.fault, fault)
	e.record(now, fault)
	e.next(now, e.backoff(), t.interval, catchUp)
	if fault == nil {
		e.planByFeed(now, t.interval, next.verified())
	}
	h := t.hostOf(about)
	recovered, probe := h.fetchEnded(f.began, now, fault)
	if recovered {
		t.recovered(h, now)
	}
	t.mu.Unlock()
	if probe {
		t.wake()
	}
	t.publishHost(h)
	if changed {
		t.changed(t.root)
	}
}

// noteHost has the snapshot know whether a host is down, where that makes a difference: then
// nothing is fetched, and no fetch fails.
func (t *track) publishHost(h *host) {
	at := server{t.root, h.name}
	t.store.update(func(old *Snapshot) *Snapshot {
		t.mu.Lock()
		r := old.roots[t.root]
		down, gone := r != nil && r.ExpiredGrace > 0 && h.down != nil && t.hosts[h.name] == h, t.gone
		t.mu.Unlock()
		if gone {
			return nil
		}
		return old.withDown(at, down)
	})
}
