package fair

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

func all(string, string) bool { return true }

// drain serves the whole queue, and returns the items in order.
func drain(q *Queue[string, string]) (served []string) {
	for next, _ := q.Next(all); next != nil; next, _ = q.Next(all) {
		served = append(served, next.Value)
	}
	return served
}

// However many items one share has, another's next item waits for one item of each other share, and
// the items of a share keep their order.
func TestThreatSharesAreServedInRotation(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		q := NewQueue[string, string](0)
		pushed := map[string][]string{}
		for i := range 200 {
			name := fmt.Sprint("share-", min(random.IntN(10), random.IntN(10)))
			item := fmt.Sprint(name, "/", i)
			q.Push(name, "", item)
			pushed[name] = append(pushed[name], item)
		}
		got, since := map[string][]string{}, map[string]int{}
		for n := 0; q.Len() > 0; n++ {
			next, of := q.Next(all)
			if waited := n - since[of]; waited > len(pushed) {
				t.Fatalf("%s: got its turn after %d others, want at most %d", of, waited, len(pushed))
			}
			since[of] = n
			got[of] = append(got[of], next.Value)
		}
		for name, want := range pushed {
			if !slices.Equal(got[name], want) {
				t.Errorf("%s: got %v, want the order of arrival %v", name, got[name], want)
			}
		}
	}
}

// A lane that cannot be served delays neither the other lanes of its share nor other shares, and
// loses no position.
func TestLanesOfAShare(t *testing.T) {
	q := NewQueue[string, string](0)
	for i := range 3 {
		q.Push("a", "hangs", fmt.Sprint("a/hangs/", i))
	}
	q.Push("a", "well", "a/well")
	q.Push("b", "hangs", "b/hangs")
	q.Push("b", "well", "b/well")
	well := func(_, lane string) bool { return lane == "well" }
	for _, want := range []string{"a/well", "b/well"} {
		if next, _ := q.Next(well); next == nil || next.Value != want {
			t.Fatalf("got %v, want %s", next, want)
		}
	}
	if next, _ := q.Next(well); next != nil {
		t.Errorf("got %s, want nothing", next.Value)
	}
	if got, want := drain(q), []string{"a/hangs/0", "b/hangs", "a/hangs/1", "a/hangs/2"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The lanes of a share are served in rotation too.
func TestLanesAreServedInRotation(t *testing.T) {
	q := NewQueue[string, string](0)
	for i := range 3 {
		q.Push("a", "one", fmt.Sprint("one/", i))
	}
	for i := range 3 {
		q.Push("a", "two", fmt.Sprint("two/", i))
	}
	want := []string{"one/0", "two/0", "one/1", "two/1", "one/2", "two/2"}
	if got := drain(q); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// In a full queue a new item replaces the newest of the largest share, or of the largest lane of
// its own share. An item that would take from a smaller one is refused.
func TestThreatFullQueue(t *testing.T) {
	q := NewQueue[string, string](4)
	push := func(share, lane, item, evicts string) {
		t.Helper()
		ticket, evicted := q.Push(share, lane, item)
		switch {
		case evicts == "refused":
			if ticket != nil || evicted != nil {
				t.Errorf("%s: got it queued, want it refused", item)
			}
		case ticket == nil, evicts == "" && evicted != nil, evicts != "" && (evicted == nil || evicted.Value != evicts):
			t.Errorf("%s: got ticket %v and %v evicted, want %q", item, ticket, evicted, evicts)
		}
	}
	for i := range 4 {
		push("a", "x", fmt.Sprint("a", i), "")
	}
	push("a", "x", "a4", "refused")
	push("a", "y", "ay", "a3")
	push("b", "x", "b0", "a2")
	push("b", "x", "b1", "a1")
	push("b", "x", "b2", "refused") // a and b have two each
	push("c", "x", "c0", "a0")
	push("d", "x", "d0", "b1")
	push("e", "x", "e0", "refused") // every share has one
	if q.Len() != 4 {
		t.Errorf("got %d items, want 4", q.Len())
	}
	if got, want := drain(q), []string{"ay", "b0", "c0", "d0"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(q.shares) > 0 || len(q.rotation) > 0 || q.Len() != 0 {
		t.Errorf("got %d shares left of an empty queue", len(q.shares))
	}
}

func TestRemove(t *testing.T) {
	q := NewQueue[string, string](0)
	a, _ := q.Push("a", "", "a")
	b, _ := q.Push("b", "", "b")
	if !q.Remove(a) || q.Remove(a) {
		t.Error("got a removed item removed again, or not at all")
	}
	if got := drain(q); !slices.Equal(got, []string{"b"}) {
		t.Errorf("got %v, want b", got)
	}
	if q.Remove(b) {
		t.Error("got a served item removed")
	}
}

// One share alone takes two thirds, and newcomers find a free slot.
func TestThreatSlotsLeaveRoom(t *testing.T) {
	s := NewSlots(12)
	take := func(share string) (n int) {
		for ; s.Free(share); n++ {
			s.Take(share)
		}
		return n
	}
	if got := take("evil"); got != 8 {
		t.Errorf("one share: got %d slots, want 8 of 12", got)
	}
	if got := take("evil too"); got == 0 || s.Full() {
		t.Errorf("the second share: got %d slots, want some, and some left", got)
	}
	if !s.Free("newcomer") {
		t.Error("a newcomer got no slot")
	}
	s.Release("evil")
	if !s.Free("newcomer") || len(s.by) != 2 {
		t.Errorf("after a release: got %v", s.by)
	}
}

// A waiter that leaves, or is turned away, takes no slot.
func TestSemaphore(t *testing.T) {
	s := NewSemaphore(1, 2)
	if err := s.Acquire(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	left, leave := context.WithCancel(t.Context())
	errs := map[string]chan error{}
	wait := func(ctx context.Context, share, name string, waiting int) {
		t.Helper()
		errs[name] = make(chan error, 1)
		go func() { errs[name] <- s.Acquire(ctx, share) }()
		await(t, func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.queue.Len() == waiting
		})
	}
	wait(left, "a", "leaves", 1)
	leave()
	if err := <-errs["leaves"]; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the error of the context", err)
	}
	wait(t.Context(), "a", "first", 1)
	wait(t.Context(), "a", "newest", 2)
	if err := s.Acquire(t.Context(), "a"); !errors.Is(err, ErrTurnedAway) {
		t.Errorf("got %v, want %v", err, ErrTurnedAway)
	}
	wait(t.Context(), "b", "other", 2)
	if err := <-errs["newest"]; !errors.Is(err, ErrTurnedAway) {
		t.Errorf("got %v, want %v", err, ErrTurnedAway)
	}
	for _, share := range []string{"a", "b"} {
		s.Release("a")
		name := map[string]string{"a": "first", "b": "other"}[share]
		if err := <-errs[name]; err != nil {
			t.Errorf("%s: got %v", name, err)
		}
		if share == "b" {
			s.Release("b")
		}
	}
	if s.queue.Len() != 0 || s.slots.used != 0 {
		t.Errorf("got %d waiting and %d slots in use at the end, want none", s.queue.Len(), s.slots.used)
	}
}

func await(t *testing.T, ok func() bool) {
	t.Helper()
	for !ok() {
		if t.Context().Err() != nil {
			t.Fatal("the test ended before the condition held")
		}
	}
}

// Callers that come and go never exceed the limit, and none waits for ever.
func TestSemaphoreUnderLoad(t *testing.T) {
	const size = 5
	s := NewSemaphore(size, 50)
	var inside, most, done atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for n := range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				if (i+n)%3 == 0 {
					go cancel()
				}
				share := fmt.Sprint(i % 7)
				if s.Acquire(ctx, share) == nil {
					if now := inside.Add(1); now > most.Load() {
						most.Store(now)
					}
					done.Add(1)
					inside.Add(-1)
					s.Release(share)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if most.Load() > size || done.Load() == 0 || s.slots.used != 0 || s.queue.Len() != 0 || len(s.slots.by) != 0 {
		t.Errorf("got %d inside at once, %d done, %d slots in use, %d waiting; want at most %d, some, none, none",
			most.Load(), done.Load(), s.slots.used, s.queue.Len(), size)
	}
}
