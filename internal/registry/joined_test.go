package registry

import (
	"context"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/fair"
	"github.com/countersign-dev/countersign/internal/trust"
)

// A request in the background that a request of admission waits for no longer waits as one in the
// background.
func TestThreatJoinedBackgroundRequest(t *testing.T) {
	h := NewHosts(time.Now)
	background := trust.WithPurpose(t.Context(), trust.Purpose{Background: true})
	for range maxRequests / 4 {
		if _, err := h.acquire(background, "registry.example.com"); err != nil {
			t.Fatal(err)
		}
	}
	wanted := fair.NewShares(trust.BackgroundShare)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ctx = trust.WithPurpose(ctx, trust.Purpose{Background: true, Wanted: wanted})
	failed := make(chan error, 1)
	go func() {
		release, err := h.acquire(ctx, "registry.example.com")
		if err == nil {
			release()
		}
		failed <- err
	}()
	wanted.Add("shop")
	if err := <-failed; err != nil {
		t.Errorf("got %v, want that it goes out for the namespace", err)
	}
}
