package store

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

func TestRefreshInTheBackground(t *testing.T) {
	signed := &fact{}
	root := &scripted{fetch: returning(signed, nil)}
	b := newBench(root)
	b.Reset("acme", time.Minute)
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	eventually(t, "the ticker", b.clock.HasWaiters)
	b.clock.Step(time.Minute)
	eventually(t, "a refresh once the interval is over", func() bool { return root.fetches.Load() == 2 })
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestDueWithJitter(t *testing.T) {
	b := newBench(&scripted{fetch: returning(&fact{}, nil)})
	b.Reset("acme", time.Minute)
	for _, k := range b.acme().dueNow() { // the probe
		<-k.start().done
	}
	for i := range 200 {
		image := imageref.Ref{Host: "registry.example.com", Path: fmt.Sprintf("acme/app-%d", i)}
		if err := b.Ensure(t.Context(), key(image)); err != nil {
			t.Fatal(err)
		}
	}
	due := func() (n int) {
		for _, e := range b.acme().entries {
			if !e.due.After(b.clock.Now()) {
				n++
				e.due = b.clock.Now().Add(time.Hour)
			}
		}
		return n
	}
	b.clock.Step(48*time.Second - time.Millisecond)
	if n := due(); n > 0 {
		t.Errorf("%d repositories due before 80 %% of the interval", n)
	}
	b.clock.Step(6 * time.Second)
	early := due()
	b.clock.Step(6*time.Second + time.Millisecond)
	late := due()
	if early < 20 || late < 20 || early+late < 200 {
		t.Errorf("%d due in the first half of the jitter and %d in the second, want all 200 spread over both",
			early, late)
	}
}

func TestUnsignedIsForgotten(t *testing.T) {
	root := &scripted{fetch: returning(trust.Unsigned{}, nil)}
	b := newBench(root)
	other := imageref.Ref{Host: "registry.example.com", Path: "acme/signed"}
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	root.fetch = returning(&fact{}, nil)
	if err := b.Ensure(t.Context(), key(other)); err != nil {
		t.Fatal(err)
	}
	b.clock.Step(forgetAfter)
	b.prune()
	if _, _, err := b.Load().Evidence(key(app)); err != nil {
		t.Errorf("unsigned repository that was asked for lately: %v, want it kept", err)
	}
	b.clock.Step(time.Second)
	b.prune()
	if _, _, err := b.Load().Evidence(key(app)); !errors.Is(err, policy.ErrNotLoaded) {
		t.Errorf("unsigned repository: %v, want it forgotten", err)
	}
	if _, _, err := b.Load().Evidence(key(other)); err != nil {
		t.Errorf("signed repository: %v, want it kept", err)
	}
	if got := b.Status("acme").Tracked; got != 1 {
		t.Errorf("tracked = %d, want 1", got)
	}
}

// Requests for made-up names must not fill the memory, nor evict signed repositories.
func TestThreatMadeUpRepositories(t *testing.T) {
	root := &scripted{fetch: returning(&fact{}, nil)}
	b := newBench(root)
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	root.fetch = returning(trust.Unsigned{}, nil)
	madeUp := func(i int) imageref.Ref {
		return imageref.Ref{Host: "registry.example.com", Path: fmt.Sprintf("acme/made-up-%d", i)}
	}
	for i := range maxUnsigned + 10 {
		b.clock.Step(time.Millisecond)
		if err := b.Ensure(t.Context(), key(madeUp(i))); err != nil {
			t.Fatal(err)
		}
	}
	b.prune()
	if got := len(b.acme().entries); got != maxUnsigned+1 {
		t.Errorf("%d repositories are tracked, want %d", got, maxUnsigned+1)
	}
	if _, _, err := b.Load().Evidence(key(app)); err != nil {
		t.Errorf("signed repository: %v, want it kept", err)
	}
	for i, want := range map[int]error{9: policy.ErrNotLoaded, 10: nil} {
		if _, _, err := b.Load().Evidence(key(madeUp(i))); !errors.Is(err, want) {
			t.Errorf("made-up repository %d: %v, want %v", i, err, want)
		}
	}
}

// Signed repositories are refreshed, however many made-up names are requested and however slow the
// server is.
func TestThreatMadeUpRepositoriesHoldNothingUp(t *testing.T) {
	hang := make(chan struct{})
	var slow atomic.Bool
	first, second := &fact{}, &fact{}
	root := &scripted{fetch: func(_ context.Context, held trust.Evidence) (trust.Evidence, error) {
		if held == nil && slow.Load() {
			<-hang
			return trust.Unsigned{}, nil
		}
		if held == nil {
			return first, nil
		}
		return second, nil
	}}
	b := newBench(root)
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	slow.Store(true)
	var flights []*flight
	for i := range 10 * fetchesPerHost {
		flights = append(flights, b.fetching(acmeKey(fmt.Sprintf("registry.example.com/acme/made-up-%d", i))))
	}
	eventually(t, "every place to be taken", func() bool { return root.fetches.Load() == 1+ofOneShare })
	b.clock.Step(time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.Renew(ctx, key(app), b.clock.Now()); err != nil {
		t.Errorf("Renew = %v, want the refresh not to wait for the flood", err)
	}
	b.holds(t, second)
	close(hang)
	for _, f := range flights {
		<-f.done
	}
}

func TestProbe(t *testing.T) {
	root := &scripted{probe: trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "HTML")}
	b := newBench(root)
	b.Reset("acme", time.Minute)
	probe := func() {
		for _, k := range b.acme().dueNow() {
			<-k.start().done
		}
	}
	if b.Status("acme").Probed {
		t.Error("got a probe in the status before the first one was sent")
	}
	probe()
	if got := b.Status("acme"); !got.Probed || got.Server == nil ||
		got.Server.Reason != v1alpha1.ReasonUnexpectedAnswer || got.Tracked != 0 {
		t.Errorf("Status = %+v, want the probe's fault and no repository", got)
	}
	root.probe = nil
	b.clock.Step(time.Minute)
	probe()
	if got := b.Status("acme"); !got.Probed || got.Server != nil {
		t.Errorf("Status = %+v, want no fault after the server has answered", got)
	}
}
