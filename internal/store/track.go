package store

import (
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/countersign-dev/countersign/internal/fair"
	"github.com/countersign-dev/countersign/internal/trust"
)

// defaultInterval is how often a subject is refreshed until Reset sets the interval.
const defaultInterval = 5 * time.Minute

// track keeps the evidence under one trust root up to date. Its parts do not know each other: the
// entries with their schedules, the hosts with their circuit breakers, the change feed, the limits
// of concurrent fetches, and the list of retained subjects.
type track struct {
	root    string
	store   *Store
	clock   clock.PassiveClock
	changed func(root string)
	wake    func() // makes Run look for due work now

	mu       sync.Mutex
	interval time.Duration
	entries  map[trust.Subject]*entry
	hosts    map[string]*host // by name
	server   string           // the host that is known before any subject; empty: there is none
	feed     *feed
	known    *limit // of subjects that are known to be signed
	others   *limit
	probes   *fair.Slots            // the probes of hosts that maxProbes limits
	retained map[trust.Subject]bool // the subjects of running images
	rebasing bool                   // rebaseLater has started a rebase
	gone     bool                   // the track was forgotten: fetches and probes in flight publish nothing
}

func (t *Tracker) newTrack(root string) *track {
	return &track{
		root: root, store: t.store, clock: t.clock, changed: t.changed, wake: t.wake,
		interval: defaultInterval, entries: map[trust.Subject]*entry{}, hosts: map[string]*host{},
		known:  newLimit(true),
		others: newLimit(false), probes: fair.NewSlots(maxProbes),
	}
}

func (t *track) key(about trust.Subject) trust.Key { return trust.Key{Root: t.root, Subject: about} }

// isKnown reports whether a subject is known to be signed.
func (t *track) isKnown(about trust.Subject) bool {
	return t.store.Load().known(t.key(about), t.clock.Now())
}

// limitFor returns the limit on fetches of signed subjects, or of the others; the lock is held.
func (t *track) limitFor(known bool) *limit {
	if known {
		return t.known
	}
	return t.others
}

// hostOf returns the host that serves a subject; the lock is held.
func (t *track) hostOf(about trust.Subject) *host {
	name := ""
	if r := t.store.Load().roots[t.root]; r != nil && r.Verifier != nil {
		name = r.Verifier.Host(about)
	}
	return t.host(name)
}

// isServer reports whether a host is the one that is known before any subject. The host without a
// name, to which subjects belong while the trust root is not Ready, is not. The lock is held.
func (t *track) isServer(h *host) bool { return t.server != "" && h.name == t.server }

func (t *track) host(name string) *host {
	h := t.hosts[name]
	if h == nil {
		h = newHost(name)
		h.probe.due = t.clock.Now().Add(jitter(t.interval))
		t.hosts[name] = h
	}
	return h
}

// entry returns the entry of a subject, and creates it and its host where needed; the lock is held.
func (t *track) entry(about trust.Subject, now time.Time) *entry {
	e := t.entries[about]
	if e == nil {
		e = &entry{requested: now}
		e.due = now.Add(jitter(t.interval))
		t.entries[about] = e
		t.hostOf(about) // dueNow looks at entries only where a host can be fetched from
	}
	return e
}

// reset starts anew after the trust root was published: it sets the refresh interval and retries at
// once what failed under the earlier root. It spreads the refresh of cached evidence over a while,
// since most of it was just read from records or has not changed. It returns the known hosts.
func (t *track) reset(interval time.Duration) []*host {
	now, snapshot := t.clock.Now(), t.store.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.interval, t.feed = interval, &feed{due: now}
	for k := range snapshot.evidence.under(t.root) {
		t.entry(k.Subject, now)
	}
	for about, e := range t.entries {
		t.hostOf(about) // the new root may use another host
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
	t.trackBase(snapshot, now)
	t.wake()
	return slices.Collect(maps.Values(t.hosts))
}

// join returns the fetch to wait for, or the probe where the host is down. It returns nil where the
// evidence is recent enough, or where a fault says why nothing is fetched now. A fetch that is
// queued for another share is queued for this one too, and one in flight waits in the shares of
// both.
func (t *track) join(about trust.Subject, share string, w wait) (*flight, error) {
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(about, now)
	e.requested, e.used = now, now
	switch {
	case !e.fetched.IsZero() && e.fault == nil && w.enough(e.fetched):
		return nil, nil // whatever another request fetches meanwhile
	case e.flight != nil:
		if e.flight.began.IsZero() {
			e.share = share
			t.startOrQueue(e.flight, share, now)
		} else {
			e.flight.shares.Add(share)
		}
		return e.flight, nil
	}
	if h := t.hostOf(about); h.down != nil {
		e.due = earlier(e.due, now) // when the host is back
		f, err := t.awaitHost(h, share, now)
		if f != nil && !w.until.IsZero() && h.down.Unavailable() {
			return nil, h.down // an older answer counts without the result of the probe
		}
		return f, err
	}
	if e.fault != nil && now.Before(e.retry) {
		return nil, e.fault
	}
	e.share = share
	if f := t.begin(about, e, t.limitFor(t.isKnown(about)), share, now, false); f != nil {
		return f, nil
	}
	e.due = earlier(e.due, now)
	return nil, t.turnedAway(about)
}
