package budget_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/budget"
)

func TestThreatDecodersWaitForTheBudget(t *testing.T) {
	const size, each = 100, 30
	b := budget.New(size)
	var first func()
	for i := range size / each {
		giveBack, err := b.Acquire(t.Context(), each)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = giveBack
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.Acquire(ctx, each); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v with %d of %d bytes acquired", err, size/each*each, size)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := b.Acquire(t.Context(), each)
		waiting <- err
	}()
	first()
	if err := <-waiting; err != nil {
		t.Errorf("got %v after a release, want no error", err)
	}
}

func TestTakeEndsWithItsContext(t *testing.T) {
	b := budget.New(1)
	giveBack, err := b.Acquire(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Acquire(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v with an exhausted budget and an ended context", err)
	}
	giveBack()
	if _, err := b.Acquire(t.Context(), 1); err != nil {
		t.Errorf("got %v for released bytes, want no error", err)
	}
}

func TestThreatWhatExceedsTheBudgetIsRefused(t *testing.T) {
	b := budget.New(10)
	var tooLarge *budget.TooLargeError
	if _, err := b.Acquire(t.Context(), 11); !errors.As(err, &tooLarge) || tooLarge.Cost != 11 || tooLarge.Size != 10 {
		t.Errorf("got %v for more than the budget", err)
	}
	if _, err := b.Acquire(t.Context(), 10); err != nil {
		t.Errorf("got %v for the whole budget, want no error", err)
	}
}
