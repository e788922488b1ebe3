// Package poll waits for what a test expects to come.
package poll

import (
	"errors"
	"testing"
	"time"
)

// Interval is how often a condition is asked about.
const Interval = 50 * time.Millisecond

// Await polls until ok returns nil, and fails the test with its last error after a minute.
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

// AwaitTrue is Await for what is true or not.
func AwaitTrue(t testing.TB, what string, ok func() bool) {
	t.Helper()
	Await(t, what, func() error {
		if !ok() {
			return errors.New("not yet")
		}
		return nil
	})
}
