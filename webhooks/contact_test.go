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

// link is the way to an API server that can be cut.
type link struct {
	client.Reader
	cut   atomic.Bool
	asked atomic.Int32
}

func (l *link) List(context.Context, client.ObjectList, ...client.ListOption) error {
	l.asked.Add(1)
	if l.cut.Load() {
		return errors.New("no route to host")
	}
	return nil
}

// A replica that the API server reaches, and that does not reach the API server, would decide by
// old policies for ever.
func TestThreatReplicaOutOfTouch(t *testing.T) {
	api := &link{}
	now := clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0))
	contact := &Contact{Live: api, Clock: now}
	s := runServer(t, 0)
	s.Contact = contact
	go func() { _ = contact.Start(t.Context()) }()
	pass := func(d time.Duration) {
		t.Helper()
		poll.Await(t, "the ticker", func() error {
			if !now.HasWaiters() {
				return errors.New("nobody waits")
			}
			return nil
		})
		before := api.asked.Load()
		now.Step(d)
		poll.Await(t, "the next sign of life", func() error {
			if api.asked.Load() == before {
				return errors.New("not asked for yet")
			}
			return nil
		})
	}
	ready := func(want bool) {
		t.Helper()
		poll.Await(t, fmt.Sprintf("ready: %t", want), func() error {
			if err := s.Ready(nil); (err == nil) != want {
				return fmt.Errorf("ready says: %w", err)
			}
			return nil
		})
	}
	asked := func(wantReused bool) {
		t.Helper()
		if reused, err := s.ask(t, "/now"); err != nil || reused != wantReused {
			t.Errorf("connection reused: %t, %v; want %t", reused, err, wantReused)
		}
	}
	poll.Await(t, "the first sign of life", func() error {
		if contact.lastSuccess.Load() == nil {
			return errors.New("not heard of yet")
		}
		return nil
	})
	asked(false)

	api.cut.Store(true)
	pass(outOfTouch / 2)
	asked(true)
	ready(true)
	pass(outOfTouch)
	ready(true) // nobody asks: the API server may be down for all
	asked(true) // which ends the connection
	ready(false)
	asked(false)
	asked(false)

	api.cut.Store(false)
	pass(contactInterval)
	ready(true)
	poll.Await(t, "a connection that stays", func() error {
		if reused, err := s.ask(t, "/now"); err != nil || !reused {
			return fmt.Errorf("reused: %t, %w", reused, err)
		}
		return nil
	})
	ready(true)
}
