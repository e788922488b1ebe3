package gate

import (
	"testing"
	"time"
)

// TestContest wants the first restorations at once, each one after them twice as late, and all as
// at first once the configuration was left alone.
func TestContest(t *testing.T) {
	const must, newer = "what it must hold", "what it must hold since the CA was replaced"
	c := &contest{}
	start := time.Now()
	now := start
	if left := c.differs(must, "missing", now); left > 0 {
		t.Errorf("what this process has not seen yet waits for %s", left)
	}
	c.written(must, now)
	if c.restored != 0 || c.stands(must, now) != 0 {
		t.Errorf("a creation counts as %d restorations", c.restored)
	}
	var delays []time.Duration
	for range 14 {
		delay := max(0, c.differs(must, "narrower", now))
		delays = append(delays, delay)
		now = now.Add(delay)
		c.written(must, now)
	}
	for i, got := range delays {
		want := time.Duration(0)
		if i >= contestBurst {
			want = min(time.Second<<(i-contestBurst), 5*time.Minute)
		}
		if got != want {
			t.Errorf("restoration %d waits for %s, want %s", i+1, got, want)
		}
	}
	if !c.on() || c.defect != "narrower" {
		t.Errorf("contested: %t, by %q", c.on(), c.defect)
	}
	if left := c.differs(newer, "narrower", now); left > 0 {
		t.Errorf("what has to change by itself waits for %s", left)
	}
	quiet := c.quiet()
	if left := c.stands(must, now.Add(quiet-time.Second)); left != time.Second || !c.on() {
		t.Errorf("a second before the end of the row it ends in %s (on: %t)", left, c.on())
	}
	if left := c.stands(must, now.Add(quiet)); left != 0 || c.on() || c.restored != 0 || c.defect != "" {
		t.Errorf("after the row: %+v, look again in %s", c, left)
	}
}
