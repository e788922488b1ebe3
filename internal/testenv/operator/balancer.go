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

// Balancer is a load balancer in front of several managers, like a Service: the API server uses one
// URL, and connections go to the ready managers round-robin. An open connection stays open when its
// manager stops being ready.
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
	// probeInterval stands for the time until a change of readiness reaches the endpoints of a
	// Service. In a cluster that takes seconds.
	probeInterval = 200 * time.Millisecond
	probeTimeout  = 2 * time.Second
)

// RunBalancer runs a balancer until the test ends. It starts without managers.
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

// Add adds a manager, and probes its readiness until it ends. If the manager is ready now, the
// balancer uses it when Add returns.
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
		b.set(host, false)
	})
}

// probe probes the readiness of one manager. A probe without a response in time changes nothing: a
// kubelet requires several failures too.
func (b *Balancer) probe(m *Manager, host string) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	if err := m.Ready(ctx); ctx.Err() == nil {
		b.set(host, err == nil)
	}
}

// set adds a server to the rotation, or removes it.
func (b *Balancer) set(host string, ready bool) {
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
