package store

import (
	"context"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// maxProbes bounds the concurrent probes of hosts that serve nothing known to be signed and no
// running image: Pods may name any number of hosts. Each namespace has its share of them, and the
// background has one (fair.Slots).
const maxProbes = 16

// mayProbe reports whether a share may start a probe of a host; the lock is held.
func (t *track) mayProbe(h *host, share string) bool { return !t.limited(h) || t.probes.Free(share) }

// limited reports whether the probes of a host are limited by maxProbes; the lock is held.
func (t *track) limited(h *host) bool { return !h.counts && !t.isServer(h) }

// awaitHost returns the probe that a request for a subject of a down host waits for. It returns the
// host's fault where the server asked for a pause, or the last probe was sent moments ago, unless a
// pause was the reason for that; the lock is held.
func (t *track) awaitHost(h *host, share string, now time.Time) (*flight, error) {
	switch {
	case h.down.RetryAt.After(now):
		return nil, h.down
	case h.flight != nil:
		return h.flight, nil
	case !h.probeable(now) && h.down.RetryAt.IsZero():
		return nil, h.down
	case !t.mayProbe(h, share):
		return nil, h.down
	}
	return t.beginProbe(h, share, now), nil
}

// beginProbe starts a probe of a host for a share that may do so; the lock is held.
func (t *track) beginProbe(h *host, share string, now time.Time) *flight {
	f := &flight{created: now, began: now, done: make(chan struct{})}
	h.flight = f
	limited := t.limited(h)
	if limited {
		t.probes.Take(share)
	}
	go func() {
		f.err = t.probe(context.Background(), h, f)
		t.mu.Lock()
		h.flight, h.probe.fetched = nil, f.began
		if limited {
			t.probes.Release(share)
		}
		t.mu.Unlock()
		close(f.done)
	}()
	return f
}

// probe probes a host, and records the outcome.
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
			continue // another root was published meanwhile: probe with that
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

// recordProbe records the outcome of a probe, and schedules the next.
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

// recovered schedules each subject of a host that is due or has failed: at once for requests, and
// over a few seconds in the background. The lock is held.
func (t *track) recovered(h *host, now time.Time) {
	for about, e := range t.entries {
		if t.hostOf(about) == h && (e.fault != nil || !t.feed.dueAt(e, t.interval).After(now)) {
			e.due, e.retry = now.Add(spread(catchUp)), now
		}
	}
}

// outage returns the fault of the host of a subject where that is down, and else nil.
func (t *track) outage(about trust.Subject) *trust.Fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hostOf(about).down
}

// publishHost publishes whether a host is down, under a root with a grace: nothing is fetched from
// a down host, so no failed fetch would start the grace.
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
