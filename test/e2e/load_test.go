package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// load creates Pods at a steady rate, and checks that each one gets the right verdict.
type load struct {
	t       *testing.T
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	// excused reports whether a creation may fail now because no manager can decide.
	excused func() bool

	signed, unsigned, others, excusedFailures atomic.Int64
}

// load creates signed and unsigned Pods until stop. Signed Pods must be admitted, and unsigned Pods
// denied by a verdict. A failure is excused if excused returns true when the creation begins or
// ends. A nil excused excuses none.
func (b *bed) load(t *testing.T, gun string, excused func() bool) *load {
	t.Helper()
	if excused == nil {
		excused = func() bool { return false }
	}
	l := &load{t: t, excused: excused}
	l.ctx, l.cancel = context.WithCancel(t.Context())
	for range 2 {
		l.repeat(&l.signed, func(ctx context.Context) error { return b.Create(ctx, pod(production, gun+":v1")) })
	}
	l.repeat(&l.unsigned, func(ctx context.Context) error {
		err := b.Create(ctx, pod(production, gun+":unsigned"))
		switch {
		case err == nil:
			t.Error("an unsigned Pod was admitted, want a denial")
			return nil
		case apierrors.IsForbidden(err):
			return nil
		}
		return fmt.Errorf("an unsigned Pod: got %w, want status %d", err, http.StatusForbidden)
	})
	return l
}

// repeat calls do at most 40 times a second, and counts the successes.
func (l *load) repeat(done *atomic.Int64, do func(context.Context) error) {
	l.running.Go(func() {
		tick := time.NewTicker(25 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-l.ctx.Done():
				return
			case <-tick.C:
			}
			excused := l.excused() // the reason may end while do waits
			err := do(l.ctx)
			switch {
			case err == nil:
				done.Add(1)
			case l.ctx.Err() != nil:
			case excused || l.excused():
				l.excusedFailures.Add(1)
			default:
				l.t.Errorf("at %s, after %d successes: %v", time.Now().Format(time.StampMilli), done.Load(), err)
			}
		}
	})
}

// more waits until the load has created some more Pods.
func (l *load) more(t *testing.T) {
	t.Helper()
	signed, unsigned := l.signed.Load(), l.unsigned.Load()
	poll.Await(t, "more Pods", func() error {
		if a, b := l.signed.Load()-signed, l.unsigned.Load()-unsigned; a < 50 || b < 10 {
			return fmt.Errorf("got %d signed and %d unsigned ones, want 50 and 10", a, b)
		}
		return nil
	})
}

func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.running.Wait()
	t.Logf("%d signed Pods admitted, %d unsigned ones denied, %d excused, %d other checks", l.signed.Load(),
		l.unsigned.Load(), l.excusedFailures.Load(), l.others.Load())
	if signed, unsigned := l.signed.Load(), l.unsigned.Load(); signed < 100 || unsigned < 50 {
		t.Errorf("got a load of %d signed and %d unsigned Pods, want at least 100 and 50", signed, unsigned)
	}
}
