package store

import (
	"math/rand/v2"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// firstRetry is the first backoff. It doubles with each failure in a row, up to the refresh
	// interval. A request always waits for the first backoff only: one fetch of a subject is in
	// flight at a time, and somebody may just have repaired the cause.
	firstRetry = time.Second
	// catchUp is the time over which due and failed subjects are refreshed once a host is back.
	catchUp = 5 * time.Second
	// freshen bounds the time over which cached evidence is refreshed after a trust root was
	// published again.
	freshen = 2 * time.Minute
)

// schedule is when a subject is fetched, or a host probed, again, and the outcomes so far.
type schedule struct {
	fetched   time.Time // when the last fetch that has ended began
	due       time.Time // of the next
	retry     time.Time // after a fault, before which no request starts a fetch: moments, or as the server asks
	succeeded time.Time
	failures  int          // in a row
	fault     *trust.Fault // of the last fetch
}

// reset makes it due now, as if it had never failed. The status still shows the last fault.
func (s *schedule) reset(now time.Time) { s.due, s.retry, s.failures = now, now, 0 }

// record records the outcome of a fetch.
func (s *schedule) record(now time.Time, fault *trust.Fault) {
	if s.fault = fault; fault == nil {
		s.failures, s.succeeded = 0, now
	} else {
		s.failures++
	}
}

// backoff returns how long to wait after the failures in a row.
func (s *schedule) backoff() time.Duration { return firstRetry << min(max(s.failures-1, 0), 20) }

// next sets when it is due: after the interval, or after a fault once the backoff is over. Where
// the server asks for a longer pause, it is due within late after that.
func (s *schedule) next(now time.Time, wait, interval, late time.Duration) {
	if s.fault == nil {
		s.due = now.Add(jitter(interval))
		return
	}
	s.retry = now.Add(jitter(firstRetry))
	s.due = now.Add(jitter(min(wait, interval)))
	if at := s.fault.RetryAt; at.After(now) {
		s.retry = at
		s.due = later(s.due, at.Add(spread(late)))
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

// jitter returns a random duration from 80 % of d to d.
func jitter(d time.Duration) time.Duration { return d - spread(d/5) }

// spread returns a random duration from 0 to d.
func spread(d time.Duration) time.Duration {
	return time.Duration(rand.Float64() * float64(d)) //nolint:gosec // spreads load, guards nothing
}
