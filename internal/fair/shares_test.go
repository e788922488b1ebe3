package fair

import (
	"context"
	"errors"
	"testing"
)

// held returns a semaphore of three slots, of which share a has as many as it may have.
func held(t *testing.T) *Semaphore {
	t.Helper()
	s := NewSemaphore(3, 0)
	for range 2 {
		if err := s.Acquire(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// waiting calls AcquireAny, and returns once it waits.
func waiting(ctx context.Context, t *testing.T, s *Semaphore, of *Shares) (share chan string, failed chan error) {
	t.Helper()
	share, failed = make(chan string, 1), make(chan error, 1)
	go func() {
		name, err := s.AcquireAny(ctx, of)
		if err != nil {
			failed <- err
			return
		}
		share <- name
	}()
	for {
		s.mu.Lock()
		n := s.queue.Len()
		s.mu.Unlock()
		if n > 0 {
			return share, failed
		}
	}
}

// Work that waits in one share gets the slot of another share that joins.
func TestThreatJoinedWorkHasBothShares(t *testing.T) {
	s, of := held(t), NewShares("a")
	share, _ := waiting(t.Context(), t, s, of)
	of.Add("b")
	if got := <-share; got != "b" {
		t.Errorf("got a slot of the share %q, want that of the share that has joined", got)
	}
	if s.queue.Len() != 0 || s.slots.by["b"] != 1 {
		t.Errorf("got %d waiting and %v in use, want none waiting, and one slot of b", s.queue.Len(), s.slots.by)
	}
	s.Release("b")
	other := NewShares("a")
	share, _ = waiting(t.Context(), t, s, other)
	s.Release("a")
	if got := <-share; got != "a" {
		t.Errorf("got a slot of the share %q, want that of a", got)
	}
	other.Add("b") // too late, and of no effect
	if s.slots.by["b"] != 0 || s.slots.by["a"] != 2 || s.slots.used != 2 {
		t.Errorf("got %v in use, want two slots of a", s.slots.by)
	}
}

// A waiter that leaves gives up its position in each share.
func TestJoinedWorkLeaves(t *testing.T) {
	s, of := NewSemaphore(1, 0), NewShares("a", "b")
	if err := s.Acquire(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	_, failed := waiting(ctx, t, s, of)
	of.Add("d")
	leave()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that of the context", err)
	}
	if s.queue.Len() != 0 || len(of.calls) != 0 {
		t.Errorf("got %d waiting and %d calls, want none", s.queue.Len(), len(of.calls))
	}
	s.Release("c")
	if s.slots.used != 0 {
		t.Errorf("got %d slots in use, want none", s.slots.used)
	}
}

// A context for work in the background ends when somebody else wants the work.
func TestAlone(t *testing.T) {
	of := NewShares("background")
	alone, end := of.Alone(t.Context(), "background")
	if alone.Err() != nil {
		t.Error("it has ended though nobody else wants the work")
	}
	of.Add("background")
	if alone.Err() != nil {
		t.Error("it has ended though nobody else wants the work")
	}
	of.Add("a")
	if alone.Err() == nil {
		t.Error("it goes on though another share wants the work")
	}
	end()
	late, end := of.Alone(t.Context(), "background")
	defer end()
	if late.Err() == nil || len(of.calls) != 1 {
		t.Errorf("got %v with %d calls, want that it has ended", late.Err(), len(of.calls))
	}
}

// Work gets a free slot also if its context has ended: the caller then says why it ended.
func TestFreeSlotComesFirst(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := NewSemaphore(3, 0)
	for range 100 {
		share, err := s.AcquireAny(ctx, NewShares("a"))
		if err != nil {
			t.Fatalf("got %v, want a slot", err)
		}
		s.Release(share)
	}
}
