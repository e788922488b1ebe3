package operator

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/forward"
)

// Balancer stands in front of several managers as a Service does: one URL for the API server, and
// connections to each of them in turn that is ready. A connection that is there stays, whatever
// becomes of the manager's readiness.
type Balancer struct {
	// URL is for --webhook-url.
	URL   string
	front *forward.Forwarder

	ended  chan struct{} // closed to end the probes
	probes sync.WaitGroup

	mu    sync.Mutex
	ready []string
}

const (
	// probeInterval is what the kubelet's probe and the endpoints take together, which is seconds
	// in a cluster.
	probeInterval = 200 * time.Millisecond
	probeTimeout  = 2 * time.Second
)

// RunBalancer runs a balancer without managers until the test ends.
func RunBalancer(t testing.TB) *Balancer {
	t.Helper()
	front, err := forward.To()
	if err != nil {
		t.Fatal(err)
	}
	b := &Balancer{URL: "https://" + front.Address, front: front, ended: make(chan struct{})}
	t.Cleanup(func() {
		close(b.ended)
		b.probes.Wait()
		front.Disconnect()
	})
	return b
}

// Add puts a manager behind the balancer, which asks it while it is ready. One that is ready now
// has its turn when Add returns.
func (b *Balancer) Add(m *Manager) {
	host := strings.TrimPrefix(m.WebhookURL, "https://")
	b.probe(m, host)
	b.probes.Go(func() {
		tick := time.NewTicker(probeInterval)
		defer tick.Stop()
		for !m.Ended() {
			select {
			case <-b.ended:
				return
			case <-tick.C:
				b.probe(m, host)
			}
		}
		b.take(host, false)
	})
}

// probe asks one manager whether it is ready. One that does not answer in time stays what it was,
// as the kubelet wants two failures.
func (b *Balancer) probe(m *Manager, host string) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	if err := m.Ready(ctx); ctx.Err() == nil {
		b.take(host, err == nil)
	}
}

// take puts a server among those that have their turn, or takes it out.
func (b *Balancer) take(host string, ready bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.Contains(b.ready, host) != ready {
		b.ready = slices.DeleteFunc(slices.Clone(b.ready), func(other string) bool { return other == host })
		if ready {
			b.ready = append(b.ready, host)
		}
		b.front.Serve(slices.Clone(b.ready))
	}
}
