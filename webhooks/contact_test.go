package webhooks

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// link is a connection to an API server that the test can cut.
type link struct {
	client.Reader
	cut    atomic.Bool
	probes atomic.Int32
}

func (l *link) List(context.Context, client.ObjectList, ...client.ListOption) error {
	l.probes.Add(1)
	if l.cut.Load() {
		return errors.New("no route to host")
	}
	return nil
}

// A replica that the API server can reach but that cannot reach the API server would decide by
// stale policies for ever.
func TestThreatReplicaOutOfTouch(t *testing.T) {
	api := &link{}
	now := clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0))
	contact := &Contact{Live: api, Clock: now}
	s := runServer(t, ServerOptions{Contact: contact})
	go func() { _ = contact.Start(t.Context()) }()
	pass := func(d time.Duration) {
		t.Helper()
		poll.Await(t, "the ticker", func() error {
			if !now.HasWaiters() {
				return errors.New("it is not running yet")
			}
			return nil
		})
		before := api.probes.Load()
		now.Step(d)
		poll.Await(t, "the next probe", func() error {
			if api.probes.Load() == before {
				return errors.New("no probe yet")
			}
			return nil
		})
	}
	ready := func(want bool) {
		t.Helper()
		poll.Await(t, fmt.Sprintf("ready: %t", want), func() error {
			if err := s.Ready(nil); (err == nil) != want {
				return fmt.Errorf("got %w from Ready", err)
			}
			return nil
		})
	}
	request := func(wantReused bool) {
		t.Helper()
		if reused, err := s.request(t, "/now"); err != nil || reused != wantReused {
			t.Errorf("got connection reused %t, %v, want %t", reused, err, wantReused)
		}
	}
	poll.Await(t, "the first success", func() error {
		if contact.lastSuccess.Load() == nil {
			return errors.New("none yet")
		}
		return nil
	})
	request(false)

	api.cut.Store(true)
	pass(outOfTouch / 2)
	request(true)
	ready(true)
	pass(outOfTouch)
	ready(true)   // no request came: the API server may be down for all replicas
	request(true) // its answer closes the connection
	ready(false)
	request(false)
	request(false)

	api.cut.Store(false)
	pass(contactInterval)
	ready(true)
	poll.Await(t, "a connection that stays", func() error {
		if reused, err := s.request(t, "/now"); err != nil || !reused {
			return fmt.Errorf("got reused %t, %w", reused, err)
		}
		return nil
	})
	ready(true)
}
