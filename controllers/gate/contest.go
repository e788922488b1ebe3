package gate

import (
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
)

const (
	// contestBurst is how many restorations in a row of one webhook configuration are not delayed.
	contestBurst = 3
	// contestFirst and contestMost bound the delay of the further restorations, which doubles with
	// each.
	contestFirst = time.Second
	contestMost  = 5 * time.Minute
	// contestQuiet is the least time that a configuration must stay unchanged before the row ends.
	// It is four times the last delay where that is longer.
	contestQuiet = 10 * time.Second
)

// contest limits how often a webhook configuration is restored while another client keeps changing
// it. The zero value is a configuration that this process has not seen yet. A row of restorations
// ends once the configuration has stayed unchanged long enough after the last one.
type contest struct {
	// wanted is the required content when the configuration was last seen in place, or written. A
	// difference to newer content is a change of our own, such as a new CA, and does not count.
	wanted any
	// restored counts the restorations of this row. last is the time of the last one.
	restored int
	last     time.Time
	// defect is the last finding in this row that narrowed the gate; "": only owners and the like
	// were changed.
	defect string
}

// delay returns the least time between the last restoration and the next one.
func (c *contest) delay() time.Duration {
	if c.restored < contestBurst {
		return 0
	}
	return min(contestFirst<<min(c.restored-contestBurst, 10), contestMost)
}

// quiet returns for how long after the last restoration the configuration must stay unchanged for
// the row to end.
func (c *contest) quiet() time.Duration { return max(contestQuiet, 4*c.delay()) }

// on reports whether restorations are delayed.
func (c *contest) on() bool { return c.restored >= contestBurst }

// stands notes that the configuration is in place, and returns when to check for the end of the
// row; 0: never.
func (c *contest) stands(wanted any, now time.Time) time.Duration {
	c.wanted = wanted
	if c.restored == 0 {
		return 0
	}
	if left := c.last.Add(c.quiet()).Sub(now); left > 0 {
		return left
	}
	c.restored, c.defect = 0, ""
	return 0
}

// differs notes that the configuration is missing or differs, and returns for how long it must not
// be written.
func (c *contest) differs(wanted any, defect string, now time.Time) time.Duration {
	if !c.others(wanted) {
		return 0
	}
	if defect != "" {
		c.defect = defect
	}
	return c.last.Add(c.delay()).Sub(now)
}

// others reports whether another client caused a difference to wanted.
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
