package gate

import (
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
)

const (
	// contestBurst is how many restorations in a row of one webhook configuration are not delayed.
	contestBurst = 3
	// contestFirst and contestMost bound the delay of the restorations that follow: it doubles with
	// each.
	contestFirst = time.Second
	contestMost  = 5 * time.Minute
	// contestQuiet is for how long at least a configuration must stand before the next change
	// begins a new row. It is four times the last delay where that is longer.
	contestQuiet = 10 * time.Second
)

// contest tells how a webhook configuration fares against somebody who keeps changing it. The zero
// value is one that this process has not seen yet. A row of restorations ends when the
// configuration has stood long enough after the last.
type contest struct {
	// wanted is what the configuration had to hold when it was last seen in place, or written. A
	// difference to something newer is our own change, a new CA for example, and counts for
	// nothing.
	wanted any
	// restored counts the restorations of this row, and last is when the last of them was.
	restored int
	last     time.Time
	// amiss is by what the gate was last narrower in this row; "" where only owners and the like
	// were changed.
	amiss string
}

// delay is how long after the last restoration the next one may be.
func (c *contest) delay() time.Duration {
	if c.restored < contestBurst {
		return 0
	}
	return min(contestFirst<<min(c.restored-contestBurst, 10), contestMost)
}

// quiet is for how long after the last restoration the configuration must stand for the row to end.
func (c *contest) quiet() time.Duration { return max(contestQuiet, 4*c.delay()) }

// on reports whether restorations are delayed.
func (c *contest) on() bool { return c.restored >= contestBurst }

// stands notes that the configuration is in place, and returns when to look again for the end of
// the row; 0 for never.
func (c *contest) stands(wanted any, now time.Time) time.Duration {
	c.wanted = wanted
	if c.restored == 0 {
		return 0
	}
	if left := c.last.Add(c.quiet()).Sub(now); left > 0 {
		return left
	}
	c.restored, c.amiss = 0, ""
	return 0
}

// differs notes that the configuration is missing or differs, and returns for how long it must not
// be written.
func (c *contest) differs(wanted any, amiss string, now time.Time) time.Duration {
	if !c.others(wanted) {
		return 0
	}
	if amiss != "" {
		c.amiss = amiss
	}
	return c.last.Add(c.delay()).Sub(now)
}

// others reports whether a difference to what is wanted is the doing of somebody else.
func (c *contest) others(wanted any) bool {
	return c.wanted != nil && equality.Semantic.DeepEqual(c.wanted, wanted)
}

// written notes a write of ours.
func (c *contest) written(wanted any, now time.Time) {
	if c.others(wanted) {
		c.restored, c.last = c.restored+1, now
	}
	c.wanted = wanted
}
