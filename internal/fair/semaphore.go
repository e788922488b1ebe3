package fair

import (
	"context"
	"errors"
	"sync"
)

// ErrTurnedAway says that too many wait for a semaphore.
var ErrTurnedAway = errors.New("too many others wait")

// Semaphore limits concurrent work. Waiters are served in rotation over their shares. It is safe
// for concurrent use. Create it with NewSemaphore.
type Semaphore struct {
	mu    sync.Mutex
	slots *Slots
	queue *Queue[struct{}, *waiter]
}

// waiter is one blocked call of Acquire.
type waiter struct {
	done chan struct{} // closed when it has a slot, or was evicted
	err  error         // read after done
}

// NewSemaphore returns a semaphore of size slots, for which at most so many callers wait; 0: any
// number.
func NewSemaphore(size, waiting int) *Semaphore {
	return &Semaphore{slots: NewSlots(size), queue: NewQueue[struct{}, *waiter](waiting)}
}

// Acquire takes a slot for a share, and waits for it until ctx ends. The error is ctx's, or
// ErrTurnedAway. Without one, the caller must call Release with the same share.
func (s *Semaphore) Acquire(ctx context.Context, share string) error {
	s.mu.Lock()
	if s.slots.Free(share) { // nobody waits who could have it: each release serves all who can
		s.slots.Take(share)
		s.mu.Unlock()
		return nil
	}
	w := &waiter{done: make(chan struct{})}
	ticket, evicted := s.queue.Push(share, struct{}{}, w)
	if evicted != nil {
		evicted.Value.err = ErrTurnedAway
		close(evicted.Value.done)
	}
	s.mu.Unlock()
	if ticket == nil {
		return ErrTurnedAway
	}
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.queue.Remove(ticket) && w.err == nil { // it got a slot at the last moment
		s.release(share)
	}
	return ctx.Err()
}

// Release releases a slot of a share.
func (s *Semaphore) Release(share string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(share)
}

// release is Release for a caller that holds the lock.
func (s *Semaphore) release(share string) {
	s.slots.Release(share)
	for !s.slots.Full() {
		next, of := s.queue.Next(func(share string, _ struct{}) bool { return s.slots.Free(share) })
		if next == nil {
			return
		}
		s.slots.Take(of)
		close(next.Value.done)
	}
}
