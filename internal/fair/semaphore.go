package fair

import (
	"context"
	"errors"
	"slices"
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

// waiter is one blocked call of Acquire or AcquireAny.
type waiter struct {
	tickets []*Ticket[struct{}, *waiter] // one for each share that wants it
	done    chan struct{}                // closed when it has a slot, or was evicted
	ended   bool                         // done is closed, or ctx has ended
	share   string                       // of the slot; read after done
	err     error                        // read after done
}

// NewSemaphore returns a semaphore of size slots, for which at most so many callers wait; 0: any
// number.
func NewSemaphore(size, waiting int) *Semaphore {
	return &Semaphore{slots: NewSlots(size), queue: NewQueue[struct{}, *waiter](waiting)}
}

// Acquire takes a slot for a share, and waits for it until ctx ends. The error is ctx's, or
// ErrTurnedAway. Without one, the caller must call Release with the same share.
func (s *Semaphore) Acquire(ctx context.Context, share string) error {
	_, err := s.AcquireAny(ctx, NewShares(share))
	return err
}

// AcquireAny is Acquire for work that several shares want: it waits in the queue of each, also of
// those that join meanwhile, and takes the first slot that any of them gets. The caller must call
// Release with the share that it returns.
func (s *Semaphore) AcquireAny(ctx context.Context, of *Shares) (share string, err error) {
	w := &waiter{done: make(chan struct{})}
	stop := of.each(func(name string) { s.offer(w, name) })
	defer stop()
	s.mu.Lock()
	if !w.ended && len(w.tickets) == 0 {
		s.end(w, ErrTurnedAway)
	}
	if w.ended { // also where ctx has ended: select would choose either
		s.mu.Unlock()
		return w.share, w.err
	}
	s.mu.Unlock()
	select {
	case <-w.done:
		return w.share, w.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.ended && w.err == nil { // it got a slot at the last moment
		s.release(w.share)
	}
	s.leave(w)
	w.ended = true
	return "", ctx.Err()
}

// offer takes a slot for one of the shares that want it, or queues it there.
func (s *Semaphore) offer(w *waiter, share string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case w.ended:
		return
	case s.slots.Free(share): // nobody waits who could have it: each release serves all who can
		s.grant(w, share)
		return
	}
	ticket, evicted := s.queue.Push(share, struct{}{}, w)
	if ticket != nil {
		w.tickets = append(w.tickets, ticket)
	}
	if evicted != nil {
		other := evicted.Value
		other.tickets = slices.DeleteFunc(other.tickets, func(t *Ticket[struct{}, *waiter]) bool {
			return t == evicted
		})
		if len(other.tickets) == 0 {
			s.end(other, ErrTurnedAway)
		}
	}
}

// grant takes a slot of a share for a waiter.
func (s *Semaphore) grant(w *waiter, share string) {
	s.slots.Take(share)
	w.share = share
	s.leave(w)
	s.end(w, nil)
}

// leave removes a waiter from the queue.
func (s *Semaphore) leave(w *waiter) {
	for _, t := range w.tickets {
		s.queue.Remove(t)
	}
	w.tickets = nil
}

// end wakes a waiter.
func (*Semaphore) end(w *waiter, err error) {
	w.ended, w.err = true, err
	close(w.done)
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
		s.grant(next.Value, of)
	}
}
