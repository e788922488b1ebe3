package store

import (
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// probeGap is the shortest time between two probes of a host under one trust root, however many
	// ask.
	probeGap = time.Second
	// lastProbe bounds the time between two probes of a host that is down, and is the least between
	// two trials.
	lastProbe = 30 * time.Second
)

// host is the health of one server that a trust root asks, and the circuit breaker before it. A
// fetch that fails in a way that may be the server's own makes it a suspect, and the probe decides:
// what it answers about one subject, which anybody may have named, holds up no other. While it is
// down only the probe goes out, and now and then one fetch: what answers the probe need not be what
// answers the rest.
type host struct {
	name string
	// down is the fault of the last probe; nil: the host is asked.
	down *trust.Fault
	// suspect says that the last fetch to end failed in a way that may be the server's own.
	suspect bool
	// tried is when something was last fetched though the host was down.
	tried time.Time
	// answered is when the last fetch began that succeeded, and failing when the first probe did of
	// those in a row that failed.
	answered, failing time.Time
	// probe is when the host is asked for a sign of life.
	probe schedule
	// flight is the probe under way; nil: none.
	flight *flight
}

// ofServer reports whether a fault may be the server's own, rather than one of a subject. A server
// that is slow cannot be told from one that hangs, so a timeout never is.
func mayBeServers(f *trust.Fault) bool {
	switch f.Reason {
	case v1alpha1.ReasonUnreachable, v1alpha1.ReasonTLSNotTrusted, v1alpha1.ReasonUnauthorized,
		v1alpha1.ReasonServerError, v1alpha1.ReasonUnexpectedAnswer, v1alpha1.ReasonAddressRefused:
		return true
	}
	return false
}

// reset forgets what is known, and has the host probed at once.
func (h *host) reset(now time.Time) {
	h.down, h.suspect, h.tried, h.answered, h.failing = nil, false, time.Time{}, time.Time{}, time.Time{}
	h.probe.reset(now)
}

// heard notes what the outcome of a fetch that began at a time says of the host. It reports whether
// the host is back, and whether the probe should go out soon.
func (h *host) fetchEnded(began, now time.Time, fault *trust.Fault) (recovered, probe bool) {
	switch {
	case fault == nil:
		h.suspect, h.answered = false, later(h.answered, began)
		if h.down != nil && h.answered.After(h.failing) {
			h.down = nil
			return true, false
		}
	case h.down == nil && mayBeServers(fault):
		h.suspect, h.probe.due = true, now
		h.judge(h.probe.fault)
		return false, h.probeable(now) // otherwise a tick is soon enough
	}
	return false, false
}

// judge has the host down where its last probe failed too, which was under the same trust root;
// where fetches succeed though the probe fails, it is not.
func (h *host) judge(probe *trust.Fault) {
	if probe != nil && mayBeServers(probe) && h.suspect && !h.failing.IsZero() && !h.answered.After(h.failing) {
		h.down = probe
	}
}

// probed notes the outcome of a probe that began at a time, and when the next is due. It reports
// whether the host is back.
func (h *host) probeEnded(began, now time.Time, interval time.Duration, fault *trust.Fault) (recovered bool) {
	h.probe.record(now, fault)
	h.probe.next(now, min(h.probe.backoff(), lastProbe), interval, probeGap)
	was := h.down
	switch {
	case fault == nil:
		h.down, h.suspect, h.tried, h.failing = nil, false, time.Time{}, time.Time{}
	case !mayBeServers(fault):
		h.down = nil
	default:
		if h.failing.IsZero() {
			h.failing = began
		}
		if h.judge(fault); was != nil {
			h.down = fault
		}
	}
	return was != nil && fault == nil
}

// tryable reports whether something may be fetched to find out whether the host is as down as its
// probe.
func (h *host) tryable(now time.Time) bool {
	return h.down != nil && !h.down.RetryAt.After(now) && (h.tried.IsZero() || now.Sub(h.tried) >= lastProbe)
}

// probeable reports whether a probe may go out.
func (h *host) probeable(now time.Time) bool {
	return h.flight == nil && now.Sub(h.probe.fetched) >= probeGap
}
