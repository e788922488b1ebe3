package store

import (
	"context"
	"runtime"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// A trust root may verify signatures with a base that it fetches itself (trust.Based). The tracker
// keeps the base loaded, and refreshes it, whatever images run. When the base has changed, expires
// or counts again, rebase verifies all evidence of the trust root with it, and publishes both in
// one snapshot. Until then, decisions rest on the base before it.

// baseWait bounds how long a request waits for a base that is not loaded: what does not rest on it
// must still be fetched within the request's deadline.
const baseWait = 2 * time.Second

// based returns the verifier if that has a base.
func (r *Root) based() (verifier trust.Based, ok bool) {
	if r == nil {
		return nil, false
	}
	verifier, ok = r.Verifier.(trust.Based)
	return verifier, ok && verifier.HasBase()
}

// baseOf returns the key of the base of a trust root.
func baseOf(root string) trust.Key { return trust.Key{Root: root, Subject: trust.BaseSubject} }

// isBase reports whether a subject is the base of its trust root.
func (s *Snapshot) isBase(k trust.Key) bool {
	if k.Subject != trust.BaseSubject {
		return false
	}
	_, ok := s.roots[k.Root].based()
	return ok
}

// on returns the root that verifies with a state of its base: r itself where that changes nothing.
// An expired base does not count. h may be nil.
func (r *Root) on(h *cached, now time.Time) *Root {
	verifier, ok := r.based()
	if !ok {
		return r
	}
	base, fault := h.verified(), (*trust.Fault)(nil)
	switch {
	case h == nil:
	case h.fault != nil:
		base, fault = nil, h.fault
	case h.past(now):
		at, file := base.Expiry()
		base, fault = nil, trust.NewFault(v1alpha1.ReasonMetadataExpired,
			"%s: %s expired at %s; it must be signed anew", trust.BaseSubject, file, at.UTC().Format(time.RFC3339))
	}
	with := verifier.WithBase(base, fault)
	if with == r.Verifier {
		return r
	}
	next := *r
	next.Verifier = with
	if described, ok := with.(trust.Described); ok {
		next.Fingerprints, next.Notes = described.Fingerprints(), described.Notes()
	}
	return &next
}

// rebased returns the root that verifies with the base in the snapshot: the published one where
// that changes nothing.
func (s *Snapshot) rebased(name string, now time.Time) *Root {
	return s.roots[name].on(s.evidence.get(baseOf(name)), now)
}

// rebase verifies the evidence of a trust root with its present base, and publishes both, where the
// base has changed. It reports whether it has published anything. Meanwhile the earlier root stays
// in use, for rebaseTime: a rotation must not make known images unknown, and what the new base
// revokes must not count for long. If no base counts any more, that is recheckTime. What is not
// verified by then becomes a fault, and is verified afterwards.
//
// It uses half of the processors, so that edits of other trust roots are verified in their time,
// and ends early where an edit of this one is published.
func (s *Store) rebase(name string, now time.Time) bool {
	for {
		old := s.Load()
		next := old.rebased(name, now)
		if next == old.roots[name] {
			return false
		}
		nothing := func(func(trust.Subject, []byte)) error { return nil }
		p := publication{
			store: s, name: name, root: next, replaces: old.roots[name], saved: nothing,
			faults: map[trust.Subject]*trust.Fault{}, clock: func() time.Time { return now },
			within: s.rebaseTime, parallel: max(1, runtime.GOMAXPROCS(0)/2),
		}
		if base := old.evidence.get(baseOf(name)); !base.current(now) {
			p.within = min(p.within, recheckTime)
		}
		_ = p.recheckAll(old) // only saved can fail
		keys, published := p.publish()
		if !published {
			continue // an edit was published meanwhile
		}
		for _, k := range keys {
			s.moved(k)
		}
		p.recheckPending(p.replaced)
		return true
	}
}

// replaced reports whether another root is in use than the one that was published.
func (p *publication) replaced() bool { return p.store.Load().roots[p.name] != p.root }

// rebase is Store.rebase. It retries what failed without the new base.
func (t *track) rebase() {
	if !t.store.rebase(t.root, t.clock.Now()) {
		return
	}
	now, snapshot := t.clock.Now(), t.store.Load()
	t.mu.Lock()
	for about, e := range t.entries {
		if e.fault != nil && !snapshot.isBase(t.key(about)) {
			e.due, e.retry = earlier(e.due, now.Add(spread(catchUp))), now
		}
	}
	t.mu.Unlock()
	t.wake()
	t.changed(t.root)
}

// rebaseLater starts rebase where the base has changed, unless one that this started is under way.
// The base may have expired, or come from a record.
func (t *track) rebaseLater() {
	snapshot := t.store.Load()
	if snapshot.rebased(t.root, t.clock.Now()) == snapshot.roots[t.root] {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rebasing || t.gone {
		return
	}
	t.rebasing = true
	go func() {
		t.rebase()
		t.mu.Lock()
		t.rebasing = false
		t.mu.Unlock()
	}()
}

// trackBase tracks the base of a trust root, so that it is fetched, and no base where it has none.
// The lock is held.
func (t *track) trackBase(snapshot *Snapshot, now time.Time) {
	_, based := snapshot.roots[t.root].based()
	switch {
	case !based:
		delete(t.entries, trust.BaseSubject) // of an earlier version of the trust root
	case t.entries[trust.BaseSubject] == nil:
		t.entry(trust.BaseSubject, now).due = now
	}
}

// awaitBase waits until the base of a trust root is loaded or its fetch has failed, for baseWait at
// most. It does not wait while the server of the base is down. What its absence means is for the
// fetch of k.
func (t *Tracker) awaitBase(ctx context.Context, one *track, k trust.Key, share string) {
	base := baseOf(k.Root)
	loaded := func() bool { return t.store.Load().evidence.get(base).current(t.clock.Now()) }
	if _, ok := t.store.Load().roots[k.Root].based(); !ok || k == base || loaded() {
		return
	}
	f, _ := one.join(base.Subject, share, wait{enough: func(time.Time) bool { return loaded() }})
	if f != nil && f.entry != nil { // else it is a probe
		_ = t.await(ctx, base, f, f.created.Add(baseWait))
	}
}
