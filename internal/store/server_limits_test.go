package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// After a response with Retry-After, no request is sent before that time.
func TestRetryAtIsHonoured(t *testing.T) {
	b, o, images := known(t, 50)
	busy := trust.NewFault(v1alpha1.ReasonServerError, "status 429")
	busy.RetryAt = b.clock.Now().Add(2 * time.Minute)
	o.is(busy, busy)
	b.clock.Step(time.Minute)
	b.turn()
	b.pass(2 * time.Second)
	before, probes := o.fetches.Load(), o.probes.Load()
	for range 52 { // in the last 5 s a request would wait
		b.pass(time.Second)
		b.fails(t, busy)
	}
	if n, m := o.fetches.Load()-before, o.probes.Load()-probes; n > 0 || m > 0 {
		t.Errorf("%d fetches and %d probes before the time", n, m)
	}
	o.is(nil, nil)
	b.pass(8*time.Second + catchUp)
	if n := int(o.fetches.Load() - before); n < len(images) {
		t.Errorf("%d fetches after the time, want one of each of %d", n, len(images))
	}

	t.Run("of one repository", func(t *testing.T) {
		busy := trust.NewFault(v1alpha1.ReasonServerError, "the token service has status 429")
		busy.RetryAt = b.clock.Now().Add(3 * time.Minute)
		o.is(busy, nil)
		b.clock.Step(time.Second)
		b.fails(t, busy)
		before := o.fetches.Load()
		b.clock.Step(3*time.Minute - 8*time.Second)
		b.fails(t, busy)
		if due := b.acme().entries[key(app).Subject].due; o.fetches.Load() != before || due.Before(busy.RetryAt) {
			t.Errorf("it is fetched before the time, or due at %s", due)
		}
		o.is(nil, nil)
		b.clock.Step(7 * time.Second)
		if err := b.Renew(t.Context(), key(app), b.clock.Now()); err != nil {
			t.Error(err)
		}
	})
}

// The context of each fetch has its purpose: whether its subject is known to be signed, and whether
// it is a background fetch.
func TestPurposeOfFetches(t *testing.T) {
	var purpose trust.Purpose
	b := newBench(&scripted{fetch: func(ctx context.Context, _ trust.Evidence) (trust.Evidence, error) {
		purpose = trust.PurposeOf(ctx)
		purpose.Wanted = nil
		return &fact{}, nil
	}})
	wants := func(want trust.Purpose) {
		t.Helper()
		if purpose != want {
			t.Errorf("got purpose %+v, want %+v", purpose, want)
		}
	}
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	wants(trust.Purpose{})
	b.clock.Step(time.Minute)
	if err := b.Renew(t.Context(), key(app), b.clock.Now()); err != nil {
		t.Fatal(err)
	}
	wants(trust.Purpose{Known: true})
	b.clock.Step(time.Hour)
	b.turn()
	wants(trust.Purpose{Known: true, Background: true})
}

// A fetch that waits for the semaphore is not sent if the server is found to be down meanwhile.
func TestQueueDoesNotGoOutToADeadServer(t *testing.T) {
	b, o, _ := known(t, 0)
	release := make(chan struct{})
	o.fetchOf = func(context.Context, string, trust.Evidence) (trust.Evidence, error) {
		<-release
		return nil, refused
	}
	o.is(refused, refused)
	before := o.fetches.Load()
	var wg sync.WaitGroup
	for _, i := range repositories(10 * fetchesPerHost) {
		wg.Go(func() {
			if err := b.Ensure(t.Context(), key(i)); !errors.Is(err, refused) {
				t.Errorf("Ensure = %v", err)
			}
		})
	}
	eventually(t, "the slots to be taken", func() bool { return o.fetches.Load()-before == ofOneShare })
	b.acme().mu.Lock()
	b.acme().host("notary.example.com").down = refused
	b.acme().mu.Unlock()
	close(release)
	wg.Wait()
	if n := o.fetches.Load() - before; n != ofOneShare {
		t.Errorf("%d fetches went out, want the %d that were under way", n, ofOneShare)
	}
}

// An edit of the trust root may repair the cause of a fault. Failed fetches are retried at once,
// and the circuit is closed.
func TestEditEndsAnOutage(t *testing.T) {
	b, o, images := known(t, 20)
	o.is(refused, refused)
	b.clock.Step(time.Minute)
	b.turn()
	b.pass(10 * time.Second)
	hang := make(chan struct{})
	o.before.Store(&hang)
	b.clock.Step(lastProbe)
	stale := b.probing()
	edited := newOutage()
	b.PutRoot("acme", Root{Verifier: edited, Version: "2"})
	b.Reset("acme", time.Minute)
	edited.is(broken, nil)
	b.fails(t, broken)
	if b.acme().outage(trust.Subject{}) != nil {
		t.Error("a probe before the edit makes the server down after it")
	}
	edited.is(nil, nil)
	b.clock.Step(time.Second)
	close(hang)
	<-stale.done
	if b.acme().outage(trust.Subject{}) != nil || b.Status("acme").Server != nil {
		t.Error("a probe of the server before the edit counts after it")
	}
	if err := b.Renew(t.Context(), key(app), b.clock.Now()); err != nil {
		t.Error(err)
	}
	b.turn()
	if s := b.Status("acme"); s.Failing > 0 {
		t.Errorf("%d are failing, want them tried at once", s.Failing)
	}
	b.pass(time.Minute)
	if n := int(edited.fetches.Load()); n < len(images) {
		t.Errorf("%d of %d repositories were fetched", n, len(images))
	}
}

// The evidence that exists when a trust root is published, mostly from records, is refreshed over a
// while and not at once.
func TestRestoredIsRefreshedOverAWhile(t *testing.T) {
	b, o, images := known(t, 200)
	b.Reset("acme", 5*time.Minute)
	b.clock.Step(time.Second)
	before := o.fetches.Load()
	b.turn()
	if n := o.fetches.Load() - before; n > 20 {
		t.Errorf("%d are refreshed at once", n)
	}
	b.pass(freshen / 2)
	half := int(o.fetches.Load() - before)
	b.pass(freshen / 2)
	if all := int(o.fetches.Load() - before); half < 60 || half > 140 || all < len(images) {
		t.Errorf("%d are refreshed in the first half of the time and %d in all, want %d spread over both", half, all,
			len(images))
	}
}

// A server that hangs does not delay another. Cached evidence of its own repositories stays in use.
func TestThreatHangingServerHoldsUpNoOther(t *testing.T) {
	b, o, _ := known(t, 1)
	evidence, _, err := b.Load().Evidence(key(app))
	if err != nil {
		t.Fatal(err)
	}
	hang := make(chan struct{})
	o.fetchOf = func(context.Context, string, trust.Evidence) (trust.Evidence, error) {
		<-hang
		return nil, slow
	}
	b.PutRoot("other", Root{Verifier: newOutage()})
	b.clock.Step(2 * time.Minute)
	b.running(t)
	var wg sync.WaitGroup
	for _, i := range repositories(10 * fetchesPerHost) {
		wg.Go(func() { _ = b.Ensure(t.Context(), key(i)) })
	}
	eventually(t, "the slots of the server to be taken", func() bool {
		b.acme().mu.Lock()
		defer b.acme().mu.Unlock()
		return !b.acme().others.free("", b.acme().host("notary.example.com"))
	})
	for _, i := range repositories(50) {
		if err := b.Ensure(t.Context(), trust.Key{Root: "other", Subject: key(i).Subject}); err != nil {
			t.Fatalf("another server: %v", err)
		}
	}
	b.holds(t, evidence)
	close(hang)
	wg.Wait()
}

// Pods may name any number of repositories while a server hangs. Only a limited number waits, and
// fetches of signed repositories are not delayed.
func TestThreatMadeUpNamesWaitInBoundedNumber(t *testing.T) {
	b, o, images := known(t, 1)
	hang := make(chan struct{})
	o.fetchOf = func(_ context.Context, repository string, _ trust.Evidence) (trust.Evidence, error) {
		if strings.Contains(repository, "evil") {
			<-hang
			return trust.Unsigned{}, nil
		}
		return &fact{}, nil
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	evil := func(i int) imageref.Ref {
		return imageref.Ref{Host: "registry.example.com", Path: fmt.Sprintf("evil/%d", i)}
	}
	refused := 0
	for i := range ofOneShare + maxQueued + 100 {
		if err := b.Ensure(gone, key(evil(i))); !errors.Is(err, context.Canceled) {
			refused++
		}
	}
	if refused != 100 {
		t.Errorf("%d were turned away at once, want those beyond %d", refused, ofOneShare+maxQueued)
	}
	short, end := context.WithTimeout(t.Context(), 10*time.Second)
	defer end()
	if err := b.Ensure(short, key(evil(2*maxQueued+200))); err == nil ||
		trust.AsFault(err, "").Reason != v1alpha1.ReasonTimeout {
		t.Errorf("beyond the bound: %v, want a Timeout", err)
	}
	if err := b.Renew(t.Context(), key(images[0]), b.clock.Now()); err != nil {
		t.Errorf("a repository known to be signed: %v", err)
	}
	close(hang)
	eventually(t, "the fetches to end", func() bool {
		b.acme().mu.Lock()
		defer b.acme().mu.Unlock()
		return b.acme().others.queue.Len() == 0
	})
	if err := b.Ensure(t.Context(), key(evil(2*maxQueued+200))); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
