// Package poll waits in a test until a condition holds.
package poll

import (
	"errors"
	"testing"
	"time"
)

// Interval is the time between two checks of a condition.
const Interval = 50 * time.Millisecond

// Await polls until ok returns nil. After a minute it fails the test with the last error of ok.
func Await(t testing.TB, what string, ok func() error) {
	t.Helper()
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
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
