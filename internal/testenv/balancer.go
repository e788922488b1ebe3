package testenv

import (
	"net/url"
	"testing"
)

// Balancer stands in front of several managers as a Service does: one URL for the API server, and connections to each of
// them in turn.
type Balancer struct {
	// URL is for --webhook-url.
	URL   string
	front *forwarder
}

// RunBalancer runs a balancer without managers until the test ends.
func RunBalancer(t testing.TB) *Balancer {
	t.Helper()
	front, err := forward()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(front.disconnect)
	return &Balancer{URL: "https://" + front.address, front: front}
}

// Add puts a manager behind the balancer.
func (b *Balancer) Add(m *Manager) error {
	u, err := url.Parse(m.WebhookURL)
	if err != nil {
		return err
	}
	b.front.mu.Lock()
	defer b.front.mu.Unlock()
	b.front.targets = append(b.front.targets, u.Host)
	return nil
}
