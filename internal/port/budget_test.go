package port_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/port"
)

// narrow returns limits of ten bytes for each share, six of them per client.
func narrow() port.Limits {
	return port.Limits{
		Small: port.Share{Size: 10, Each: 6, Waiting: 4}, Large: port.Share{Size: 10, Each: 6, Waiting: 4},
		SmallUpTo: 2, Patience: time.Minute, Grace: time.Hour,
	}
}

func begin(t *testing.T, b *port.Budget, client string, base int64) *port.Reservation {
	t.Helper()
	r, err := b.Begin(t.Context(), client, base, httptest.NewRecorder())
	if err != nil {
		t.Fatalf("%s: got %v, want a reservation", client, err)
	}
	return r
}

func body(t *testing.T, r *port.Reservation, bytes int64) {
	t.Helper()
	if err := r.Body(t.Context(), bytes); err != nil {
		t.Fatalf("reserving %d bytes for the body: got %v, want nil", bytes, err)
	}
}

func wantUsed(t *testing.T, b *port.Budget, wantSmall, wantLarge int64) {
	t.Helper()
	if small, large := b.Used(); small != wantSmall || large != wantLarge {
		t.Errorf("got %d small and %d large bytes in use, want %d and %d", small, large, wantSmall, wantLarge)
	}
}

// cancelled returns a cancelled context: a request with it fails instead of waiting.
func cancelled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestBudgetAddsUp(t *testing.T) {
	b := port.NewBudget(narrow())
	r := begin(t, b, "a", 1)
	body(t, r, 2)
	wantUsed(t, b, 3, 0)
	body(t, r, 5) // moves the whole body to the large share
	wantUsed(t, b, 1, 5)
	body(t, r, 6)
	wantUsed(t, b, 1, 6)
	if err := r.Arrived(); err != nil {
		t.Errorf("Arrived: got %v, want nil", err)
	}
	r.FreeBody()
	wantUsed(t, b, 1, 0)
	r.End()
	wantUsed(t, b, 0, 0)
	if _, err := b.Begin(t.Context(), "a", 7, httptest.NewRecorder()); !errors.Is(err, port.ErrBusy) {
		t.Errorf("a request above the limit of a client: got %v, want ErrBusy", err)
	}
	wantUsed(t, b, 0, 0)
}

// One client cannot use the memory of the others, however large its requests are.
func TestThreatOneClientLeavesRoom(t *testing.T) {
	b := port.NewBudget(narrow())
	for range 6 {
		begin(t, b, "stranger", 1)
	}
	if _, err := b.Begin(cancelled(t), "stranger", 1, httptest.NewRecorder()); err == nil {
		t.Error("a client at its limit: got a reservation, want an error")
	}
	server := begin(t, b, "server", 1)
	body(t, server, 2)
	body(t, server, 4)
	wantUsed(t, b, 7, 4)
	// The large share is full now. Small requests still find memory.
	other := begin(t, b, "other", 0)
	body(t, other, 6)
	if err := begin(t, b, "third", 0).Body(cancelled(t), 3); err == nil {
		t.Error("a large body while the large share is full: got nil, want an error")
	}
	body(t, begin(t, b, "third", 1), 2)
}

// A waiting request evicts the one whose body has been arriving for longest, and never one whose
// body is complete.
func TestThreatStalledBodiesGiveWay(t *testing.T) {
	limits := narrow()
	limits.Grace = time.Nanosecond
	b := port.NewBudget(limits)
	whole := begin(t, b, "a", 1)
	body(t, whole, 1)
	if err := whole.Arrived(); err != nil {
		t.Fatal(err)
	}
	oldest, younger := begin(t, b, "a", 1), begin(t, b, "a", 1)
	body(t, oldest, 1)
	var ended sync.WaitGroup
	ended.Go(func() {
		for { // as a handler does when its read fails
			if err := oldest.Body(t.Context(), 1); errors.Is(err, port.ErrTooSlow) {
				oldest.End()
				return
			}
		}
	})
	body(t, younger, 2) // seven bytes in all, where the client may use six
	ended.Wait()
	if err := younger.Arrived(); err != nil {
		t.Errorf("the younger request: got %v, want nil", err)
	}
	wantUsed(t, b, 5, 0)
	body(t, whole, 2)
}

// A request waits no longer than Patience, and no more requests of a client wait than Waiting.
func TestThreatWaitingIsBounded(t *testing.T) {
	limits := narrow()
	limits.Patience = time.Millisecond
	b := port.NewBudget(limits)
	begin(t, b, "a", 6)
	if _, err := b.Begin(t.Context(), "a", 1, httptest.NewRecorder()); !errors.Is(err, port.ErrBusy) {
		t.Errorf("a wait longer than Patience: got %v, want ErrBusy", err)
	}

	b = port.NewBudget(narrow())
	r := begin(t, b, "a", 6)
	waits := make(chan error)
	for range 5 {
		go func() {
			w, err := b.Begin(t.Context(), "a", 1, httptest.NewRecorder())
			if err == nil {
				w.End()
			}
			waits <- err
		}()
	}
	if err := <-waits; !errors.Is(err, port.ErrBusy) { // one of the five, whichever came last
		t.Errorf("the fifth waiting request: got %v, want ErrBusy", err)
	}
	r.End()
	for range 4 {
		if err := <-waits; err != nil {
			t.Errorf("a waiting request after the release: got %v, want nil", err)
		}
	}
	wantUsed(t, b, 0, 0)
}

// Requests with large claims do not keep smaller ones of their client out of the queue, and the
// smaller ones are served first.
func TestThreatClaimsDoNotCrowdOut(t *testing.T) {
	b := port.NewBudget(narrow())
	r := begin(t, b, "a", 0)
	body(t, r, 6)
	refused := make(chan error)
	for range 4 {
		greedy := begin(t, b, "a", 0)
		go func() {
			if err := greedy.Body(t.Context(), 6); err != nil {
				refused <- err
			}
		}()
	}
	modest, another := make(chan error), make(chan error)
	for _, answer := range []chan error{modest, another} {
		small := begin(t, b, "a", 0)
		go func() { answer <- small.Body(t.Context(), 3) }()
	}
	// Six requests want to wait and four may. In any order, two of the largest are refused.
	for range 2 {
		if err := <-refused; !errors.Is(err, port.ErrBusy) {
			t.Errorf("a large request: got %v, want ErrBusy", err)
		}
	}
	r.End()
	for _, c := range []chan error{modest, another} {
		if err := <-c; err != nil {
			t.Errorf("a small request: got %v, want nil", err)
		}
	}
}

// Under concurrent load the counts stay within the limits and end at zero.
func TestBudgetUnderLoad(t *testing.T) {
	limits := narrow()
	limits.Grace, limits.Patience = time.Nanosecond, 5*time.Millisecond
	b := port.NewBudget(limits)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			client := string(rune('a' + i%3))
			for n := range 200 {
				r, err := b.Begin(t.Context(), client, 1, httptest.NewRecorder())
				if err != nil {
					continue
				}
				for _, bytes := range []int64{1, 2, int64(3 + n%4)} {
					if r.Body(t.Context(), bytes) != nil {
						break
					}
				}
				_ = r.Arrived()
				if small, large := b.Used(); small < 0 || small > 10 || large < 0 || large > 10 {
					t.Errorf("got %d small and %d large bytes in use, want 0 to 10 of each", small, large)
				}
				r.End()
			}
		})
	}
	all.Wait()
	wantUsed(t, b, 0, 0)
}
