// Package budget bounds the memory that the process spends on decoding what comes from outside.
//
// A file that is small on the wire can be large once it is decoded. Whoever decodes therefore takes
// the cost of that, in bytes of memory, from one Budget of the process first, and waits until there
// is room. The package promises that the costs taken at any time add up to no more than the budget,
// and that whoever waits the longest comes first. It measures nothing: the cost is the caller's
// bound.
//
// A cost must be given back without waiting for anything but the processor: not for a network, a
// lock that is held across one, or the budget itself. So no server can hold up others by being
// slow, and waiting cannot deadlock.
package budget

import (
	"context"
	"fmt"

	"golang.org/x/sync/semaphore"
)

// Default is the size of a budget where no other is given: 136 MiB.
const Default = 136 << 20

// Budget is shared by all who decode. Make it with New; it is safe for concurrent use.
type Budget struct {
	size int64
	room *semaphore.Weighted
}

// New returns a budget of so many bytes.
func New(size int64) *Budget { return &Budget{size: size, room: semaphore.NewWeighted(size)} }

// TooLargeError is the error of a cost that exceeds the whole budget.
type TooLargeError struct{ Cost, Size int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("decoding it takes up to %d bytes of memory, more than the %d that may be taken at once", e.Cost,
		e.Size)
}

// Take waits until the budget has room for a cost in bytes, and takes it. The result gives it back,
// and must be called once. The error is a *TooLargeError, or wraps that of ctx.
func (b *Budget) Take(ctx context.Context, cost int64) (giveBack func(), err error) {
	if cost > b.size {
		return nil, &TooLargeError{Cost: cost, Size: b.size}
	}
	if err := b.room.Acquire(ctx, cost); err != nil {
		return nil, fmt.Errorf("waiting for memory to decode it in: %w", err)
	}
	return func() { b.room.Release(cost) }, nil
}
