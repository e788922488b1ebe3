// Package budget bounds the memory that the process uses to decode data from outside.
//
// A file that is small on the wire can be large once it is decoded. A decoder therefore first
// acquires that cost, in bytes of memory, from one Budget of the process, and waits while too
// little is left. The acquired costs never exceed the budget, and callers acquire in the order in
// which they came. The package measures nothing: the cost is the caller's bound.
//
// A holder must wait only for the processor until it releases the cost: not for a network, for a
// lock that is held during a network request, or for the budget itself. So a slow server cannot
// block others, and there is no deadlock.
package budget

import (
	"context"
	"fmt"

	"golang.org/x/sync/semaphore"
)

// Default is the default size of a budget: 136 MiB.
const Default = 136 << 20

// Budget is shared by all decoders. Create it with New. It is safe for concurrent use.
type Budget struct {
	size int64
	sem  *semaphore.Weighted
}

// New returns a budget of so many bytes.
func New(size int64) *Budget { return &Budget{size: size, sem: semaphore.NewWeighted(size)} }

// TooLargeError is the error of a cost that exceeds the whole budget.
type TooLargeError struct{ Cost, Size int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("decoding it takes up to %d bytes of memory, more than the limit of %d", e.Cost,
		e.Size)
}

// Acquire waits until a cost in bytes fits into the budget and acquires it. The caller must call
// release once. The error is a *TooLargeError, or wraps the error of ctx.
func (b *Budget) Acquire(ctx context.Context, cost int64) (release func(), err error) {
	if cost > b.size {
		return nil, &TooLargeError{Cost: cost, Size: b.size}
	}
	if err := b.sem.Acquire(ctx, cost); err != nil {
		return nil, fmt.Errorf("waiting for memory to decode it in: %w", err)
	}
	return func() { b.sem.Release(cost) }, nil
}
