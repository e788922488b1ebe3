package store

import (
	"math/rand/v2"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// firstRetry doubles with each failure in a row, up to the refresh interval. Who asks need not
	// wait longer than the first time: one fetch of a subject is under way at a time, and what is
	// wrong with one is mended while somebody waits for it.
	firstRetry = time.Second
	// catchUp is the time over which what is due, or has failed, is refreshed when a host is back.
	catchUp = 5 * time.Second
	// freshen bounds the time over which what is held is refreshed under a trust root that was
	// published anew.
	freshen = 2 * time.Minute
)

// schedule is when something is asked again, by what came of it so far.
type schedule struct {
	fetched   time.Time // when the last fetch that has ended began
	due       time.Time // of the next
	retry     time.Time // before which no fetch on demand is made after a fault; moments, or until the server wants one
	succeeded time.Time
	failures  int          // in a row
	fault     *trust.Fault // of the last fetch
}

// again has it asked at once, as if it had never failed. What went wrong last is still told.
func (s *schedule) reset(now time.Time) { s.due, s.retry, s.failures = now, now, 0 }

// ended notes the outcome of a fetch.
func (s *schedule) record(now time.Time, fault *trust.Fault) {
	if s.fault = fault; fault == nil {
		s.failures, s.succeeded = 0, now
	} else {
		s.failures++
	}
}

// wait is how long to wait after the failures in a row.
func (s *schedule) backoff() time.Duration { return firstRetry << min(max(s.failures-1, 0), 20) }

// next sets when it is asked again: after an interval, or after a fault once it has waited, but not
// before the server wants it, and then within late.
func (s *schedule) next(now time.Time, wait, interval, late time.Duration) {
	if s.fault == nil {
		s.due = now.Add(jitter(interval))
		return
	}
	s.retry = now.Add(jitter(firstRetry))
	s.due = now.Add(jitter(min(wait, interval)))
	if at := s.fault.RetryAt; at.After(now) {
		s.retry = later(s.retry, at)
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

// jitter returns a duration from 80 % to the whole of d.
func jitter(d time.Duration) time.Duration { return d - spread(d/5) }

// spread returns a duration from nothing to d.
func spread(d time.Duration) time.Duration {
	return time.Duration(rand.Float64() * float64(d)) //nolint:gosec // spreads load, guards nothing
}
