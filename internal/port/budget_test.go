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

// narrow is room for ten small units, and ten large ones, of which each client has six.
func narrow() port.Limits {
	return port.Limits{
		Small: port.Share{Size: 10, Each: 6, Waiting: 4}, Large: port.Share{Size: 10, Each: 6, Waiting: 4},
		SmallUpTo: 2, Patience: time.Minute, Grace: time.Hour,
	}
}

func begin(t *testing.T, b *port.Budget, client string, base int64) *port.Hold {
	t.Helper()
	h, err := b.Begin(t.Context(), client, base, httptest.NewRecorder())
	if err != nil {
		t.Fatalf("%s: %v", client, err)
	}
	return h
}

func body(t *testing.T, h *port.Hold, bytes int64) {
	t.Helper()
	if err := h.Body(t.Context(), bytes); err != nil {
		t.Fatal(err)
	}
}

func used(t *testing.T, b *port.Budget, wantSmall, wantLarge int64) {
	t.Helper()
	if small, large := b.Used(); small != wantSmall || large != wantLarge {
		t.Errorf("%d and %d are taken, want %d and %d", small, large, wantSmall, wantLarge)
	}
}

// over is a context that is over already: whoever has to wait with it does not.
func over(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestBudgetAddsUp(t *testing.T) {
	b := port.NewBudget(narrow())
	h := begin(t, b, "a", 1)
	body(t, h, 2)
	used(t, b, 3, 0)
	body(t, h, 5) // which is large: all of it
	used(t, b, 1, 5)
	body(t, h, 6)
	used(t, b, 1, 6)
	if err := h.Arrived(); err != nil {
		t.Error(err)
	}
	h.Free()
	used(t, b, 1, 0)
	h.End()
	used(t, b, 0, 0)
	if _, err := b.Begin(t.Context(), "a", 7, httptest.NewRecorder()); !errors.Is(err, port.ErrBusy) {
		t.Errorf("more than a client may ever take: %v", err)
	}
	used(t, b, 0, 0)
}

// Whatever one client takes, and however large its requests are, others have room.
func TestThreatOneClientLeavesRoom(t *testing.T) {
	b := port.NewBudget(narrow())
	for range 6 {
		begin(t, b, "stranger", 1)
	}
	if _, err := b.Begin(over(t), "stranger", 1, httptest.NewRecorder()); err == nil {
		t.Error("a client has more than its part")
	}
	h := begin(t, b, "server", 1)
	body(t, h, 2)
	body(t, h, 4)
	used(t, b, 7, 4)
	// Large ones have taken all that there is for them; small ones do not notice.
	g := begin(t, b, "other", 0)
	body(t, g, 6)
	if err := begin(t, b, "third", 0).Body(over(t), 3); err == nil {
		t.Error("there is no end to the large share")
	}
	body(t, begin(t, b, "third", 1), 2)
}

// A request that waits gets its room from those that have been arriving for longest, and from
// nobody whose body is there.
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
		for { // as a reader does whose reading is cut off
			if err := oldest.Body(t.Context(), 1); errors.Is(err, port.ErrTooSlow) {
				oldest.End()
				return
			}
		}
	})
	body(t, younger, 2) // seven, of six
	ended.Wait()
	if err := younger.Arrived(); err != nil {
		t.Errorf("the younger one: %v", err)
	}
	used(t, b, 5, 0)
	body(t, whole, 2)
}

// Nobody waits for longer than its patience, and no more wait than may.
func TestThreatWaitingIsBounded(t *testing.T) {
	limits := narrow()
	limits.Patience = time.Millisecond
	b := port.NewBudget(limits)
	begin(t, b, "a", 6)
	if _, err := b.Begin(t.Context(), "a", 1, httptest.NewRecorder()); !errors.Is(err, port.ErrBusy) {
		t.Errorf("the wait ended with %v", err)
	}

	b = port.NewBudget(narrow())
	h := begin(t, b, "a", 6)
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
	if err := <-waits; !errors.Is(err, port.ErrBusy) { // one of five
		t.Errorf("the fifth that waits: %v", err)
	}
	h.End()
	for range 4 {
		if err := <-waits; err != nil {
			t.Error(err)
		}
	}
	used(t, b, 0, 0)
}

// Who claims most does not keep those from waiting that claim less, and they have their room first.
func TestThreatClaimsDoNotCrowdOut(t *testing.T) {
	b := port.NewBudget(narrow())
	h := begin(t, b, "a", 0)
	body(t, h, 6)
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
		h := begin(t, b, "a", 0)
		go func() { answer <- h.Body(t.Context(), 3) }()
	}
	// Six want to wait where four may: whichever came first, two that claim most are refused.
	if err := <-refused; !errors.Is(err, port.ErrBusy) {
		t.Error(err)
	}
	if err := <-refused; !errors.Is(err, port.ErrBusy) {
		t.Error(err)
	}
	h.End()
	for _, c := range []chan error{modest, another} {
		if err := <-c; err != nil {
			t.Error(err)
		}
	}
}

// Whatever happens at once, nothing is lost and nothing is taken twice.
func TestBudgetUnderLoad(t *testing.T) {
	limits := narrow()
	limits.Grace, limits.Patience = time.Nanosecond, 5*time.Millisecond
	b := port.NewBudget(limits)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			client := string(rune('a' + i%3))
			for n := range 200 {
				h, err := b.Begin(t.Context(), client, 1, httptest.NewRecorder())
				if err != nil {
					continue
				}
				for _, bytes := range []int64{1, 2, int64(3 + n%4)} {
					if h.Body(t.Context(), bytes) != nil {
						break
					}
				}
				_ = h.Arrived()
				if small, large := b.Used(); small < 0 || small > 10 || large < 0 || large > 10 {
					t.Errorf("%d and %d are taken", small, large)
				}
				h.End()
			}
		})
	}
	all.Wait()
	used(t, b, 0, 0)
}
