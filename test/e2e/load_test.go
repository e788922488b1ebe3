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

// load is a steady rate of creations, each of which has to be answered, and rightly.
type load struct {
	t       *testing.T
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	// excused says that there is a reason for which nothing can be decided now.
	excused func() bool

	signed, unsigned, others, unanswered atomic.Int64
}

// load creates signed Pods and unsigned ones until stop. Nothing may be refused but the unsigned
// Pods, which must be, unless that is excused when the creation begins or ends; nil excuses none.
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
			t.Error("an unsigned Pod was admitted")
			return nil
		case apierrors.IsForbidden(err):
			return nil
		}
		return fmt.Errorf("an unsigned Pod, not %d: %w", http.StatusForbidden, err)
	})
	return l
}

// repeat does something 40 times a second at most, and counts what went well.
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
			excused := l.excused() // it may be over while this one still waits
			err := do(l.ctx)
			switch {
			case err == nil:
				done.Add(1)
			case l.ctx.Err() != nil:
			case excused || l.excused():
				l.unanswered.Add(1)
			default:
				l.t.Errorf("%s, after %d: %v", time.Now().Format(time.StampMilli), done.Load(), err)
			}
		}
	})
}

// more waits until the load has gone on for a while.
func (l *load) more(t *testing.T) {
	t.Helper()
	signed, unsigned := l.signed.Load(), l.unsigned.Load()
	poll.Await(t, "more Pods", func() error {
		if a, b := l.signed.Load()-signed, l.unsigned.Load()-unsigned; a < 50 || b < 10 {
			return fmt.Errorf("%d signed ones and %d unsigned ones so far", a, b)
		}
		return nil
	})
}

func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.running.Wait()
	t.Logf("%d signed Pods admitted, %d unsigned ones denied, %d not decided, %d others", l.signed.Load(),
		l.unsigned.Load(), l.unanswered.Load(), l.others.Load())
	if l.signed.Load() < 100 || l.unsigned.Load() < 50 {
		t.Error("that is no load")
	}
}
