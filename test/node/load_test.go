//go:build node && linux

package node

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A load creates Pods all the time: the signed image must never be refused, and the unsigned one
// never admitted.
type load struct {
	bed   *bed
	end   context.CancelFunc
	ended sync.WaitGroup

	mu      sync.Mutex
	asked   map[string]int // by tag
	wrong   []string
	created []*corev1.Pod
}

// The pace of the load. What goes through admission and is not kept comes often, what a kubelet has
// to run now and then.
const (
	dryRunEvery = 50 * time.Millisecond
	createEvery = 2 * time.Second
)

const (
	signedTag   = "v1"
	unsignedTag = "v2"
)

// startLoad runs until finish.
func (b *bed) startLoad(t *testing.T) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{bed: b, end: cancel, asked: make(map[string]int)}
	t.Cleanup(func() { cancel(); l.ended.Wait() })
	for _, tag := range []string{signedTag, unsignedTag} {
		l.every(ctx, dryRunEvery, func() { l.ask(ctx, tag, client.DryRunAll) })
	}
	l.every(ctx, createEvery, func() { l.ask(ctx, signedTag) })
	return l
}

func (l *load) every(ctx context.Context, period time.Duration, do func()) {
	l.ended.Go(func() {
		tick := time.NewTicker(period)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				do()
			}
		}
	})
}

func (l *load) ask(ctx context.Context, tag string, options ...client.CreateOption) {
	p := pod(l.bed.tag(tag))
	err := l.bed.Create(ctx, p, options...)
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked[tag]++
	switch at := time.Now().Format(time.TimeOnly); {
	case tag == signedTag && err != nil:
		l.wrong = append(l.wrong, fmt.Sprintf("%s: the signed image was refused: %v", at, err))
	case tag == unsignedTag && err == nil:
		l.wrong = append(l.wrong, fmt.Sprintf("%s: the unsigned image was admitted", at))
	case len(options) == 0:
		l.created = append(l.created, p)
	}
}

// counts returns how many Pods were asked for, signed and unsigned, and how many were created.
func (l *load) counts() (signed, unsigned, created int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked[signedTag], l.asked[unsignedTag], len(l.created)
}

// finish ends the load after a while more, wants every answer to have been right and every Pod to
// run, and removes those.
func (l *load) finish(t *testing.T) {
	t.Helper()
	signedBefore, unsignedBefore, _ := l.counts()
	l.bed.await(t, "more Pods to be asked for", func(context.Context) error {
		signed, unsigned, created := l.counts()
		if signed < signedBefore+50 || unsigned < unsignedBefore+50 || created == 0 {
			return fmt.Errorf("%d signed, %d unsigned, %d created", signed, unsigned, created)
		}
		return nil
	})
	l.end()
	l.ended.Wait()
	for i, text := range l.wrong {
		if i == 10 {
			t.Errorf("and %d more", len(l.wrong)-i)
			break
		}
		t.Error(text)
	}
	signed, unsigned, created := l.counts()
	l.bed.say("  %d signed Pods were asked for, %d unsigned ones, and %d run", signed, unsigned, created)
	for _, p := range l.created {
		l.bed.running(t, p)
		must(t, l.bed.Delete(t.Context(), p))
	}
}
