package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

func repositories(n int) []imageref.Ref {
	var all []imageref.Ref
	for i := range n {
		all = append(all, imageref.Ref{Host: "registry.example.com", Path: fmt.Sprintf("acme/running-%d", i)})
	}
	return all
}

// running has Run run until the test ends.
func (b *bench) running(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the ticker", b.clock.HasWaiters)
}

func (b *bench) loaded(images []imageref.Ref) (n int) {
	snapshot := b.Load()
	for _, i := range images {
		if _, err := snapshot.Evidence("acme", i); err == nil {
			n++
		}
	}
	return n
}

// What runs is fetched without a tick of the clock, in turns, and each turn is handed on.
func TestRetainedIsFetchedInTurns(t *testing.T) {
	release, signed := make(chan struct{}), &fact{}
	root := &scripted{fetch: func(context.Context, trust.Evidence) (trust.Evidence, error) {
		<-release
		return signed, nil
	}}
	b := newBench(root)
	b.running(t)
	images := repositories(10 * inBackground)
	b.Retain(map[string][]imageref.Ref{"acme": images, "gone": images})
	flights := func() (n int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, e := range b.tracked {
			if e.flight != nil {
				n++
			}
		}
		return n
	}
	eventually(t, "the first turns", func() bool { return flights() == inBackground && root.fetches.Load() == fetchesPerRoot })
	b.wake()
	eventually(t, "another look at what is due", func() bool { return len(b.woken) == 0 })
	if n := flights(); n != inBackground {
		t.Errorf("%d fetches are under way in the background, want %d", n, inBackground)
	}
	close(release)
	eventually(t, "all of them, without a tick", func() bool { return b.loaded(images) == len(images) })
	if n := int(root.fetches.Load()); n != len(images) {
		t.Errorf("%d fetches of %d repositories", n, len(images))
	}
}

// Whoever asks on demand has no more than the fetches under way before him, however much is due in the background.
func TestThreatBackgroundDoesNotStarveAdmission(t *testing.T) {
	turns, signed := make(chan struct{}), &fact{}
	root := &scripted{fetch: func(context.Context, trust.Evidence) (trust.Evidence, error) {
		<-turns
		return signed, nil
	}}
	b := newBench(root)
	b.running(t)
	images := repositories(100 * inBackground)
	b.Retain(map[string][]imageref.Ref{"acme": images})
	eventually(t, "every place to be taken", func() bool { return root.fetches.Load() == fetchesPerRoot })
	done := make(chan error, 1)
	go func() { done <- b.Ensure(t.Context(), "acme", app) }()
	for n := 0; ; n++ {
		select {
		case turns <- struct{}{}:
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			if n > 4*inBackground {
				t.Errorf("admission waited for %d fetches, want about the %d under way", n, inBackground)
			}
			close(turns)
			return
		}
	}
}

func TestRetainedIsNotForgotten(t *testing.T) {
	b := newBench(&scripted{fetch: returning(trust.Unsigned{}, nil)})
	other := imageref.Ref{Host: "registry.example.com", Path: "acme/other"}
	for _, i := range []imageref.Ref{app, other} {
		if err := b.Ensure(t.Context(), "acme", i); err != nil {
			t.Fatal(err)
		}
	}
	b.Retain(map[string][]imageref.Ref{"acme": {app}})
	b.clock.Step(forgetAfter + time.Second)
	b.prune()
	if _, err := b.Load().Evidence("acme", app); err != nil {
		t.Errorf("what runs: %v, want it kept", err)
	}
	if _, err := b.Load().Evidence("acme", other); !errors.Is(err, policy.ErrNotLoaded) {
		t.Errorf("what does not: %v, want it forgotten", err)
	}
	b.Retain(nil)
	b.prune()
	if _, err := b.Load().Evidence("acme", app); !errors.Is(err, policy.ErrNotLoaded) {
		t.Errorf("what runs no more: %v, want it forgotten", err)
	}
}

// A flood of made-up names must not push out what runs, nor count against it.
func TestThreatFloodDoesNotPushOutWhatRuns(t *testing.T) {
	b := newBench(&scripted{fetch: returning(trust.Unsigned{}, nil)})
	b.Retain(map[string][]imageref.Ref{"acme": {app}})
	for _, k := range b.dueNow() {
		<-b.refresh(k).done
	}
	for _, i := range repositories(maxUnsigned + 1) {
		b.clock.Step(time.Millisecond)
		if err := b.Ensure(t.Context(), "acme", i); err != nil {
			t.Fatal(err)
		}
	}
	b.prune()
	if b.loaded([]imageref.Ref{app}) != 1 {
		t.Error("what runs was forgotten")
	}
	if got := b.Status("acme").Tracked; got != maxUnsigned+1 {
		t.Errorf("%d repositories are tracked, want %d", got, maxUnsigned+1)
	}
}

func TestChangedIsCalledForEachSnapshot(t *testing.T) {
	b := newBench(&scripted{fetch: returning(&fact{}, nil)})
	calls := 0
	b.Changed = func() {
		calls++
		b.Load() // no lock is held
		b.publish(func(*Snapshot) *Snapshot { return nil })
	}
	want := func(n int, after string) {
		t.Helper()
		if calls != n {
			t.Errorf("called %d times after %s, want %d", calls, after, n)
		}
	}
	b.PutRoot("other", Root{Root: &scripted{}})
	want(1, "a trust root")
	compiled, _ := policy.Compile("p", nil)
	b.PutPolicy(compiled, "1")
	want(2, "a policy")
	if err := b.Ensure(t.Context(), "acme", app); err != nil {
		t.Fatal(err)
	}
	want(3, "evidence")
	b.clock.Step(time.Minute)
	if err := b.Renew(t.Context(), "acme", app, b.clock.Now()); err != nil {
		t.Fatal(err)
	}
	want(3, "a refresh that found nothing new")
	b.DropPolicy("unknown")
	want(3, "dropping what is not there")
	b.DropPolicy("p")
	want(4, "dropping a policy")
}
