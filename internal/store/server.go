package store

import (
	"math/rand/v2"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// probeGap is the shortest time between two probes of a signing server under one trust root, however many ask.
	probeGap = time.Second
	// lastProbe bounds the time between two probes of a signing server that is down, and is the least between two trials.
	lastProbe = 30 * time.Second
	// catchUp is the time over which what is due, or has failed, is refreshed when a signing server is back.
	catchUp = 5 * time.Second
	// freshen bounds the time over which what is held is refreshed under a trust root that was published anew.
	freshen = 2 * time.Minute
)

// server is what is known of the signing server of one trust root. A fetch that fails in a way that may be the server's own makes it a
// suspect, and the probe decides: what it answers about one repository, which anybody may have named, holds up no other. While the server is
// down only the probe goes out, and now and then the fetch of one repository: what answers the probe need not be what answers the others.
type server struct {
	// down is the fault of the last probe; nil: the server is asked.
	down *trust.Fault
	// suspect says that the last fetch to end failed in a way that may be the server's own.
	suspect bool
	// tried is when a repository was last fetched though the server was down.
	tried time.Time
	// answered is when the last fetch began that succeeded, and failing when the first probe did of those in a row that failed.
	answered, failing time.Time
}

// ofServer reports whether a fault may be the server's own, rather than one of a repository. A server that is slow cannot be
// told from one that hangs, so a timeout never is.
func ofServer(f *trust.Fault) bool {
	switch f.Reason {
	case v1alpha1.ReasonUnreachable, v1alpha1.ReasonTLSNotTrusted, v1alpha1.ReasonUnauthorized, v1alpha1.ReasonServerError,
		v1alpha1.ReasonUnexpectedAnswer, v1alpha1.ReasonAddressRefused:
		return true
	}
	return false
}

// heard notes what the outcome of a fetch that began at a time says of the server; the lock is held.
func (t *Tracker) heard(root string, began, now time.Time, fault *trust.Fault) {
	p := t.pace(root)
	switch {
	case fault == nil:
		p.suspect, p.answered = false, later(p.answered, began)
		if p.down != nil && p.answered.After(p.failing) {
			p.down = nil
			t.recovered(root, now)
		}
	case p.down == nil && ofServer(fault):
		e := t.entry(probe(root), now)
		p.suspect, e.due = true, now
		p.judge(e.fault)
		if e.probeable(now) { // otherwise a tick is soon enough
			t.wake()
		}
	}
}

// judge has the server down where its last probe failed too, which was under the same trust root; where fetches succeed though the probe fails, it is not.
func (s *server) judge(probe *trust.Fault) {
	if probe != nil && ofServer(probe) && s.suspect && !s.failing.IsZero() && !s.answered.After(s.failing) {
		s.down = probe
	}
}

// tryable reports whether a repository may be fetched to find out whether the server is as down as its probe.
func (s *server) tryable(now time.Time) bool {
	return s.down != nil && !s.down.RetryAt.After(now) && (s.tried.IsZero() || now.Sub(s.tried) >= lastProbe)
}

// probed notes what the outcome of a probe that began at a time says of the server; the lock is held.
func (t *Tracker) probed(root string, began, now time.Time, fault *trust.Fault) {
	p := t.pace(root)
	was := p.down
	switch {
	case fault == nil:
		p.server = server{answered: p.answered}
	case !ofServer(fault):
		p.down = nil
	default:
		if p.failing.IsZero() {
			p.failing = began
		}
		if p.judge(fault); was != nil {
			p.down = fault
		}
	}
	if was != nil && fault == nil {
		t.recovered(root, now)
	}
}

// recovered has everything refreshed that is due or has failed: at once for whoever asks, and otherwise over a few seconds. The
// lock is held.
func (t *Tracker) recovered(root string, now time.Time) {
	for k, e := range t.tracked {
		if k.Root == root && k != probe(root) && (e.fault != nil || !t.dueAt(k, e).After(now)) {
			e.due, e.retry = now.Add(spread(catchUp)), now
		}
	}
}

// ask returns the probe to wait for before anything else is asked of a server that is down, or its fault where the probe went out moments ago or the
// server wants to be left alone. Without either the server is not known to be down. The lock is held.
func (t *Tracker) ask(root string, now time.Time) (*flight, error) {
	p := t.pace(root)
	if p.down == nil {
		return nil, nil
	}
	e := t.entry(probe(root), now)
	switch {
	case p.down.RetryAt.After(now):
		return nil, p.down
	case e.flight != nil:
		return e.flight, nil
	case !e.probeable(now):
		return nil, p.down
	}
	return t.begin(probe(root), e, now, nil), nil
}

// probeable reports whether a probe may go out.
func (e *tracked) probeable(now time.Time) bool {
	return e.flight == nil && now.Sub(e.fetched) >= probeGap
}

// outage returns why nothing but the probe is asked of the server of a root; nil: it is asked.
func (t *Tracker) outage(root string) *trust.Fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pace(root).down
}

// schedule sets when a repository, or the server, is asked again after the outcome of a fetch that is noted already; the lock is held.
func (t *Tracker) schedule(k trust.Key, e *tracked, now time.Time) {
	p := t.pace(k.Root)
	if e.fault == nil {
		e.due = now.Add(jitter(p.interval))
		return
	}
	wait := firstRetry << min(e.failures-1, 20)
	e.retry = now.Add(jitter(firstRetry))
	late := catchUp
	if k == probe(k.Root) {
		wait, late = min(wait, lastProbe), probeGap
	}
	e.due = now.Add(jitter(min(wait, p.interval)))
	if at := e.fault.RetryAt; at.After(now) {
		e.retry = later(e.retry, at)
		e.due = later(e.due, at.Add(spread(late)))
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// jitter returns a duration from 80 % to the whole of d.
func jitter(d time.Duration) time.Duration { return d - spread(d/5) }

// spread returns a duration from nothing to d.
func spread(d time.Duration) time.Duration {
	return time.Duration(rand.Float64() * float64(d)) //nolint:gosec // spreads load, guards nothing
}
