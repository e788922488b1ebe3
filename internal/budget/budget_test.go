package budget_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/countersign-dev/countersign/internal/budget"
)

func TestThreatDecodersWaitForTheBudget(t *testing.T) {
	const size, each, decoders = 100, 30, 50
	b := budget.New(size)
	var taken, most atomic.Int64
	var wg sync.WaitGroup
	for range decoders {
		wg.Go(func() {
			giveBack, err := b.Take(t.Context(), each)
			if err != nil {
				t.Error(err)
				return
			}
			now := taken.Add(each)
			for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
			}
			taken.Add(-each)
			giveBack()
		})
	}
	wg.Wait()
	if got := most.Load(); got > size {
		t.Errorf("%d of %d bytes were taken at once", got, size)
	}
}

func TestTakeEndsWithItsContext(t *testing.T) {
	b := budget.New(1)
	giveBack, err := b.Take(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Take(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v with nothing left and the context over", err)
	}
	giveBack()
	if _, err := b.Take(t.Context(), 1); err != nil {
		t.Errorf("what was given back cannot be taken: %v", err)
	}
}

func TestThreatWhatExceedsTheBudgetIsRefused(t *testing.T) {
	b := budget.New(10)
	var tooLarge *budget.TooLargeError
	if _, err := b.Take(t.Context(), 11); !errors.As(err, &tooLarge) || tooLarge.Cost != 11 || tooLarge.Size != 10 {
		t.Errorf("got %v for more than there is", err)
	}
	if _, err := b.Take(t.Context(), 10); err != nil {
		t.Errorf("got %v for all that there is", err)
	}
}
