// Package poll waits in a test until a condition holds.
package poll

import (
	"errors"
	"testing"
	"time"
)

// Interval is the shortest time between two checks of a condition.
const Interval = 50 * time.Millisecond

const longest = 250 * time.Millisecond

// After returns the time until the next check of a condition, some time after the first. It is a
// tenth of that time: many tests wait at the same time, and most of their checks are requests to a
// server that shares the processors with what they wait for.
func After(since time.Time) time.Duration {
	return min(max(time.Since(since)/10, Interval), longest)
}

// Await polls until ok returns nil. After a minute it fails the test with the last error of ok.
func Await(t testing.TB, what string, ok func() error) {
	t.Helper()
	for begun := time.Now(); ; <-time.After(After(begun)) {
		err := ok()
		if err == nil {
			return
		}
		if time.Since(begun) > time.Minute {
			t.Fatalf("timed out waiting for %s: %v", what, err)
		}
	}
}

// AwaitTrue polls until ok returns true. After a minute it fails the test.
func AwaitTrue(t testing.TB, what string, ok func() bool) {
	t.Helper()
	Await(t, what, func() error {
		if !ok() {
			return errors.New("not yet")
		}
		return nil
	})
}
