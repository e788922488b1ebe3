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

// A load creates Pods continuously. The signed image must never be denied, and the unsigned image
// never be admitted.
type load struct {
	bed   *bed
	end   context.CancelFunc
	ended sync.WaitGroup

	mu       sync.Mutex
	requests map[string]int // by tag
	wrong    []string
	created  []*corev1.Pod
}

// The pace of the load. Dry runs are frequent. Pods that a kubelet has to run are rare.
const (
	dryRunEvery = 50 * time.Millisecond
	createEvery = 2 * time.Second
)

const (
	signedTag   = "v1"
	unsignedTag = "v2"
)

// startLoad starts a load that runs until finish.
func (b *bed) startLoad(t *testing.T) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{bed: b, end: cancel, requests: make(map[string]int)}
	t.Cleanup(func() { cancel(); l.ended.Wait() })
	for _, tag := range []string{signedTag, unsignedTag} {
		l.every(ctx, dryRunEvery, func() { l.create(ctx, tag, client.DryRunAll) })
	}
	l.every(ctx, createEvery, func() { l.create(ctx, signedTag) })
	return l
}

// every calls do periodically until ctx is done.
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

// create creates a Pod, and records whether the verdict is right.
func (l *load) create(ctx context.Context, tag string, options ...client.CreateOption) {
	p := pod(l.bed.tag(tag))
	err := l.bed.Create(ctx, p, options...)
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests[tag]++
	switch at := time.Now().Format(time.TimeOnly); {
	case tag == signedTag && err != nil:
		l.wrong = append(l.wrong, fmt.Sprintf("at %s: the signed image: got %v, want it admitted", at, err))
	case tag == unsignedTag && err == nil:
		l.wrong = append(l.wrong, fmt.Sprintf("at %s: the unsigned image was admitted, want a denial", at))
	case len(options) == 0:
		l.created = append(l.created, p)
	}
}

// counts returns the number of requests for signed and for unsigned Pods, and of created Pods.
func (l *load) counts() (signed, unsigned, created int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests[signedTag], l.requests[unsignedTag], len(l.created)
}

// finish waits for some more requests and ends the load. It checks that every verdict was right and
// that every created Pod runs, and deletes the Pods.
func (l *load) finish(t *testing.T) {
	t.Helper()
	signedBefore, unsignedBefore, _ := l.counts()
	l.bed.await(t, "more requests", func(context.Context) error {
		signed, unsigned, created := l.counts()
		if signed < signedBefore+50 || unsigned < unsignedBefore+50 || created == 0 {
			return fmt.Errorf("got %d signed, %d unsigned, %d created", signed, unsigned, created)
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
	l.bed.say("  %d requests for signed Pods, %d for unsigned ones; %d Pods created", signed, unsigned, created)
	for _, p := range l.created {
		l.bed.running(t, p)
		must(t, l.bed.Delete(t.Context(), p))
	}
}
