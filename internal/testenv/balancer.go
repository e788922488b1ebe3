package testenv

import (
	"context"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"
)

// Balancer stands in front of several managers as a Service does: one URL for the API server, and connections to each of
// them in turn that is ready. A connection that is there stays, whatever becomes of the manager's readiness.
type Balancer struct {
	// URL is for --webhook-url.
	URL   string
	front *forwarder

	mu       sync.Mutex
	managers []*Manager
}

// probeInterval is what the kubelet's probe and the endpoints take together, which is seconds in a cluster.
const probeInterval = 200 * time.Millisecond

// RunBalancer runs a balancer without managers until the test ends.
func RunBalancer(t testing.TB) *Balancer {
	t.Helper()
	front, err := forward()
	if err != nil {
		t.Fatal(err)
	}
	b := &Balancer{URL: "https://" + front.address, front: front}
	ctx, cancel := context.WithCancel(t.Context())
	var probes sync.WaitGroup
	probes.Go(func() { b.probe(ctx) })
	t.Cleanup(func() {
		cancel()
		probes.Wait()
		front.disconnect()
	})
	return b
}

// Add puts a manager behind the balancer, which asks it once it is ready.
func (b *Balancer) Add(m *Manager) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.managers = append(b.managers, m)
}

// probe keeps those in turn that are ready.
func (b *Balancer) probe(ctx context.Context) {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		b.mu.Lock()
		managers := slices.Clone(b.managers)
		b.mu.Unlock()
		var ready []string
		for _, m := range managers {
			if m.Ended() {
				continue
			}
			if u, err := url.Parse(m.WebhookURL); err == nil && b.ready(ctx, m) {
				ready = append(ready, u.Host)
			}
		}
		b.front.serve(ready)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (b *Balancer) ready(ctx context.Context, m *Manager) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return m.Ready(ctx) == nil
}
