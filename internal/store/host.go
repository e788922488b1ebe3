package store

import (
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// probeGap is the shortest time between two probes of a host under one trust root.
	probeGap = time.Second
	// lastProbe is the longest time between two probes of a down host, and the shortest between two
	// trial fetches.
	lastProbe = 30 * time.Second
)

// host is the health of one server under a trust root, and its circuit breaker. A fetch whose fault
// may be the server's makes it a suspect, and the probe decides: a fault of one subject, which
// anybody may have named, must not stop the fetches of others. While the host is down the tracker
// sends only the probe, and now and then one trial fetch: another server may answer the probe than
// answers fetches.
type host struct {
	name string
	// down is the fault of the last probe of a down host; nil: the circuit is closed.
	down *trust.Fault
	// suspect says that the last fetch to end failed with a fault that may be the server's.
	suspect bool
	// tried is when the last trial fetch began, and triedFor when the last one of each share did.
	tried    time.Time
	triedFor map[string]time.Time
	// answered is when the last successful fetch began, and failing when the first of the probes
	// began that have failed in a row.
	answered, failing time.Time
	// probe is the schedule of probes.
	probe schedule
	// flight is the probe in flight; nil: none.
	flight *flight
	// known and others are its parts of the two limits.
	known, others capacity
	// counts says that a subject of it was known to be signed, or retained, at the last tick.
	counts bool
}

func newHost(name string) *host {
	return &host{name: name, known: newCapacity(), others: newCapacity()}
}

// mayBeServers reports whether a fault may be the server's, rather than one subject's. A timeout
// never counts: it does not show whether the server is slow or hangs.
func mayBeServers(f *trust.Fault) bool {
	switch f.Reason {
	case v1alpha1.ReasonUnreachable, v1alpha1.ReasonTLSNotTrusted, v1alpha1.ReasonUnauthorized,
		v1alpha1.ReasonServerError, v1alpha1.ReasonUnexpectedAnswer, v1alpha1.ReasonAddressRefused:
		return true
	}
	return false
}

// reset closes the circuit, and makes the probe due now.
func (h *host) reset(now time.Time) {
	h.down, h.suspect, h.answered, h.failing = nil, false, time.Time{}, time.Time{}
	h.tried, h.triedFor = time.Time{}, nil
	h.probe.reset(now)
}

// fetchEnded updates the host after a fetch that began at a time. It reports whether the host has
// recovered, and whether a probe should be sent soon.
func (h *host) fetchEnded(began, now time.Time, fault *trust.Fault) (recovered, probe bool) {
	switch {
	case fault == nil:
		h.suspect, h.answered = false, later(h.answered, began)
		if h.down != nil && h.answered.After(h.failing) {
			h.down, h.triedFor = nil, nil
			return true, false
		}
	case h.down == nil && mayBeServers(fault):
		h.suspect, h.probe.due = true, now
		h.judge(h.probe.fault)
		return false, h.probeable(now) // otherwise a tick is soon enough
	}
	return false, false
}

// judge marks the host down when both a fetch and the latest probe failed and no later fetch
// succeeded.
func (h *host) judge(probe *trust.Fault) {
	if probe != nil && mayBeServers(probe) && h.suspect && !h.failing.IsZero() && !h.answered.After(h.failing) {
		h.down = probe
	}
}

// probeEnded updates the host after a probe that began at a time, and schedules the next. It
// reports whether the host has recovered.
func (h *host) probeEnded(began, now time.Time, interval time.Duration, fault *trust.Fault) (recovered bool) {
	h.probe.record(now, fault)
	h.probe.next(now, min(h.probe.backoff(), lastProbe), interval, probeGap)
	was := h.down
	switch {
	case fault == nil:
		h.down, h.suspect, h.tried, h.triedFor, h.failing = nil, false, time.Time{}, nil, time.Time{}
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

// probed reports whether the host is probed now, so that the outcome of the last probe counts. A
// host that is known only by its subjects is probed while it is a suspect or down: once a fetch has
// succeeded, the last probe says nothing more.
func (h *host) probed() bool { return h.suspect || h.down != nil }

// tryable reports whether a trial fetch may be sent to the down host.
func (h *host) tryable(now time.Time) bool {
	return h.down != nil && !h.down.RetryAt.After(now) && (h.tried.IsZero() || now.Sub(h.tried) >= lastProbe)
}

// recordTrial notes that a trial fetch begins for a share.
func (h *host) recordTrial(share string, now time.Time) {
	if h.triedFor == nil {
		h.triedFor = map[string]time.Time{}
	}
	h.tried, h.triedFor[share] = now, now
}

// probeable reports whether a probe may be sent.
func (h *host) probeable(now time.Time) bool {
	return h.flight == nil && now.Sub(h.probe.fetched) >= probeGap
}
