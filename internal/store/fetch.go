package store

import (
	"context"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/fair"
	"github.com/countersign-dev/countersign/internal/trust"
)

// fetchTimeout bounds one fetch of one subject. It allows for three round trips to a server that
// takes 30 seconds for each, and for a token. No request waits that long: the result serves later
// requests.
const fetchTimeout = 150 * time.Second

// begin starts a fetch for a share, or queues it. It returns nil where the queue is full; the lock
// is held.
func (t *track) begin(about trust.Subject, e *entry, l *limit, share string, now time.Time, background bool) *flight {
	h := t.hostOf(about)
	f := &flight{
		created: now, about: about, entry: e, host: h, limit: l, background: background, trial: h.down != nil,
		done: make(chan struct{}),
	}
	if !t.startOrQueue(f, share, now) {
		return nil
	}
	e.flight = f
	t.count(f, 1)
	return f
}

// startOrQueue starts a fetch for a share, or queues it. It reports false where the queue is full;
// the lock is held.
func (t *track) startOrQueue(f *flight, share string, now time.Time) bool {
	if f.limit.free(share, f.host) {
		t.start(f, share)
		return true
	}
	return t.queue(f, share, now)
}

// start starts a fetch for a share. The fetch has its own deadline, so that a caller may stop
// waiting without cancelling it. The lock is held.
func (t *track) start(f *flight, share string) {
	f.shares = fair.NewShares(share)
	for _, q := range f.tickets {
		f.shares.Add(q.share)
	}
	f.leaveQueue()
	f.share, f.began = share, t.clock.Now()
	f.limit.slots.Take(share)
	f.host.capacity(f.limit).slots.Take(share)
	go func() {
		f.err = t.fetch(context.Background(), f.about, f)
		t.finish(f)
		close(f.done)
	}()
}

// finish removes a fetch that has ended from its entry, and starts those that waited for it. It
// wakes Run once half of the background fetches have ended: Run then looks at all entries.
func (t *track) finish(f *flight) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.entry.flight, f.entry.fetched = nil, f.began
	of := f.host.capacity(f.limit)
	f.limit.slots.Release(f.share)
	of.slots.Release(f.share)
	t.count(f, -1)
	t.dispatch(f.limit)
	if f.background && of.background < maxBackground/2 {
		t.wake()
	}
}

// fetch brings one subject up to date, publishes the evidence and records the outcome.
func (t *track) fetch(ctx context.Context, about trust.Subject, f *flight) error {
	if fault := t.outage(about); fault != nil && !f.trial { // the host went down during the wait
		t.record(about, f, nil, nil, fault)
		return fault
	}
	purpose := trust.Purpose{
		Known: f.limit.known, Background: f.share == trust.BackgroundShare, Namespace: f.share, Wanted: f.shares,
	}
	if purpose.Background {
		purpose.Namespace = ""
	}
	ctx, cancel := context.WithTimeout(trust.WithPurpose(ctx, purpose), fetchTimeout)
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
		if snapshot.isBase(k) {
			t.rebase()
		}
		if fault != nil {
			return fault
		}
		return nil
	}
}

// fetchOne fetches evidence newer than old. A panic in the verification of hostile metadata is a
// fault like any other.
func fetchOne(ctx context.Context, root trust.Root, about trust.Subject,
	old *cached) (next *cached, fault *trust.Fault) {
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

// record records the outcome of a fetch, and schedules the next.
func (t *track) record(about trust.Subject, f *flight, old, next *cached, fault *trust.Fault) {
	now := t.clock.Now()
	t.mu.Lock()
	e := t.entry(about, now)
	changed := old != next && !next.sameAnswer(old) || e.succeeded.IsZero() || !sameReason(e.fault, fault)
	e.record(now, fault)
	e.next(now, e.backoff(), t.interval, catchUp)
	if fault == nil {
		e.planByFeed(now, t.interval, next.verified())
		if about == trust.BaseSubject {
			e.planByExpiry(now, next.verified())
		}
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

// sameReason reports whether a status shows two outcomes alike.
func sameReason(a, b *trust.Fault) bool {
	return (a == nil) == (b == nil) && (a == nil || a.Reason == b.Reason)
}
