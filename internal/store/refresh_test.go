package store

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/test/digests"
)

func repositories(n int) []imageref.Ref {
	var all []imageref.Ref
	for i := range n {
		all = append(all, imageref.Ref{Host: "registry.example.com", Path: fmt.Sprintf("acme/running-%d", i)})
	}
	return all
}

// running calls Run until the test ends.
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
		if _, _, err := snapshot.Evidence(key(i)); err == nil {
			n++
		}
	}
	return n
}

// Retained subjects are fetched without a tick of the clock. Each fetch that ends starts the next.
func TestRetainedIsFetchedInTurns(t *testing.T) {
	release, signed := make(chan struct{}), &fact{}
	root := &scripted{fetch: func(context.Context, trust.Evidence) (trust.Evidence, error) {
		<-release
		return signed, nil
	}}
	b := newBench(root)
	b.running(t)
	images := repositories(10 * maxBackground)
	b.Retain(append(keys(images...), trust.Key{Root: "gone", Subject: key(images[0]).Subject}))
	flights := func() (n int) {
		b.acme().mu.Lock()
		defer b.acme().mu.Unlock()
		for _, e := range b.acme().entries {
			if e.flight != nil {
				n++
			}
		}
		return n
	}
	eventually(t, "the first turns", func() bool {
		return flights() == maxBackground && root.fetches.Load() == maxBackground
	})
	b.wake()
	eventually(t, "another look at what is due", func() bool { return len(b.woken) == 0 })
	if n := flights(); n != maxBackground {
		t.Errorf("%d fetches are under way in the background, want %d", n, maxBackground)
	}
	close(release)
	eventually(t, "all of them, without a tick", func() bool { return b.loaded(images) == len(images) })
	if n := int(root.fetches.Load()); n != len(images) {
		t.Errorf("%d fetches of %d repositories", n, len(images))
	}
}

// A request is fetched at once, however many background fetches are due and however long they take.
func TestThreatBackgroundDoesNotStarveAdmission(t *testing.T) {
	for name, known := range map[string]bool{"first fetch": false, "renewal": true} {
		t.Run(name, func(t *testing.T) {
			signed, hang := &fact{}, make(chan struct{})
			var slow atomic.Bool
			root := &scripted{fetchOf: func(_ context.Context, repository string, _ trust.Evidence) (trust.Evidence,
				error) {
				if slow.Load() && repository != app.Repository() {
					<-hang
				}
				return signed, nil
			}}
			b := newBench(root)
			defer close(hang)
			images := repositories(100 * maxBackground)
			demand := func() error { return b.Ensure(t.Context(), key(app)) }
			if known {
				for _, i := range append(images, app) {
					if err := b.Ensure(t.Context(), key(i)); err != nil {
						t.Fatal(err)
					}
				}
				b.clock.Step(time.Hour)
				b.acme().entries[key(app).Subject].due = b.clock.Now().Add(time.Hour)
				demand = func() error { return b.Renew(t.Context(), key(app), b.clock.Now()) }
			}
			before := root.fetches.Load()
			slow.Store(true)
			b.running(t)
			b.Retain(keys(images...))
			b.wake()
			eventually(t, "the background to take its turns",
				func() bool { return root.fetches.Load()-before == maxBackground })
			if err := demand(); err != nil { // nothing of the backlog has ended, nor can it
				t.Error(err)
			}
			if n := root.fetches.Load() - before; n != maxBackground+1 {
				t.Errorf("%d fetches have begun, want the %d in the background and the one asked for", n, maxBackground)
			}
		})
	}
}

// The tracker does not scan the whole backlog for each fetch, and a scan returns at most as many
// subjects as may be fetched in the background.
func TestThreatBacklogIsNotLookedThroughEachTime(t *testing.T) {
	allocations := map[int]float64{}
	for _, n := range []int{100, 20_000} {
		b := newBench(&scripted{})
		for i := range n {
			b.acme().entry(acmeKey(fmt.Sprint(i)).Subject, b.clock.Now()).due = b.clock.Now().Add(-time.Duration(i))
		}
		due := b.acme().dueNow()
		if len(due) != maxBackground {
			t.Fatalf("%d are due, want the %d whose turn it is", len(due), maxBackground)
		}
		for i, k := range due {
			if want := fmt.Sprint(n - 1 - i); k.about.Repository != want {
				t.Errorf("turn %d is that of %s, want %s, which is due the longest", i, k.about.Repository, want)
			}
		}
		allocations[n] = testing.AllocsPerRun(10, func() { b.acme().dueNow() })
	}
	if allocations[20_000] > allocations[100]+1 {
		t.Errorf("a look allocates %v times for 100 and for 20,000", allocations)
	}
}

func TestRunIsWokenWhenTurnsAreFree(t *testing.T) {
	turns := make(chan struct{})
	b := newBench(&scripted{fetch: func(context.Context, trust.Evidence) (trust.Evidence, error) {
		<-turns
		return trust.Unsigned{}, nil
	}})
	b.Retain(keys(repositories(10 * maxBackground)...))
	<-b.woken
	for _, k := range b.acme().dueNow() {
		k.start()
	}
	if due := b.acme().dueNow(); len(due) > 0 {
		t.Errorf("%d are due although every turn is taken", len(due))
	}
	free := func() int {
		b.acme().mu.Lock()
		defer b.acme().mu.Unlock()
		return maxBackground - b.acme().others.background
	}
	for ended := 1; ended <= maxBackground; ended++ {
		turns <- struct{}{}
		eventually(t, "the end of a fetch", func() bool { return free() == ended })
		if woken, want := len(b.woken) == 1, ended > maxBackground/2; woken != want {
			t.Errorf("after %d of %d: woken %v, want %v", ended, maxBackground, woken, want)
		}
	}
	if p := b.acme().others; p.background != 0 || p.queue.Len() != 0 || !p.slots.Free(trust.BackgroundShare) {
		t.Errorf("turns are taken when nothing is under way: %+v", p)
	}
}

// Pods may name any number of repositories. The number of retained ones without known signatures is
// limited, and they stay the same.
func TestThreatRetainedIsBounded(t *testing.T) {
	b := newBench(&scripted{fetch: returning(&fact{}, nil)})
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	images := append(repositories(maxRetainedUnsigned+50), app)
	retain := func(images []imageref.Ref, want, beyond int) map[trust.Subject]bool {
		t.Helper()
		if n := b.Retain(
			append(keys(images...), trust.Key{Root: "gone", Subject: key(images[0]).Subject})); n != beyond ||
			len(b.acme().retained) != want {
			t.Errorf("%d retained and %d beyond, want %d and %d", len(b.acme().retained), n, want, beyond)
		}
		if !b.acme().retained[key(app).Subject] {
			t.Error("what is signed is not retained")
		}
		return b.acme().retained
	}
	first := retain(images, maxRetainedUnsigned+1, 50)
	if n := len(b.acme().entries); n != maxRetainedUnsigned+1 {
		t.Errorf("%d are tracked, want %d", n, maxRetainedUnsigned+1)
	}
	if diff := cmp.Diff(first, retain(images, maxRetainedUnsigned+1, 50)); diff != "" {
		t.Errorf("others are retained the second time:\n%s", diff)
	}
	retain(images[50:], maxRetainedUnsigned+1, 0)
}

func TestRetainedIsNotForgotten(t *testing.T) {
	b := newBench(&scripted{fetch: returning(trust.Unsigned{}, nil)})
	other := imageref.Ref{Host: "registry.example.com", Path: "acme/other"}
	for _, i := range []imageref.Ref{app, other} {
		if err := b.Ensure(t.Context(), key(i)); err != nil {
			t.Fatal(err)
		}
	}
	b.Retain(keys(app))
	b.clock.Step(forgetAfter + time.Second)
	b.prune()
	if _, _, err := b.Load().Evidence(key(app)); err != nil {
		t.Errorf("what runs: %v, want it kept", err)
	}
	if _, _, err := b.Load().Evidence(key(other)); !errors.Is(err, policy.ErrNotLoaded) {
		t.Errorf("what does not: %v, want it forgotten", err)
	}
	b.Retain(nil)
	b.prune()
	if _, _, err := b.Load().Evidence(key(app)); !errors.Is(err, policy.ErrNotLoaded) {
		t.Errorf("what runs no more: %v, want it forgotten", err)
	}
}

// A flood of made-up names must not evict running repositories, nor count toward their limit.
func TestThreatFloodDoesNotPushOutWhatRuns(t *testing.T) {
	b := newBench(&scripted{fetch: returning(trust.Unsigned{}, nil)})
	b.Retain(keys(app))
	for _, k := range b.acme().dueNow() {
		<-k.start().done
	}
	for _, i := range repositories(maxUnsigned + 1) {
		b.clock.Step(time.Millisecond)
		if err := b.Ensure(t.Context(), key(i)); err != nil {
			t.Fatal(err)
		}
	}
	b.prune()
	if b.loaded([]imageref.Ref{app}) != 1 {
		t.Error("what runs was forgotten")
	}
	if got := len(b.acme().entries); got != maxUnsigned+1 {
		t.Errorf("%d repositories are tracked, want %d", got, maxUnsigned+1)
	}
}

func TestChangedIsCalledForEachSnapshot(t *testing.T) {
	b := newBench(&scripted{fetch: returning(&fact{}, nil)})
	calls := 0
	b.options.Changed = func() {
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
	b.PutRoot("other", Root{Verifier: &scripted{}})
	want(1, "a trust root")
	compiled, _ := policy.Compile("p", nil)
	b.PutPolicy(compiled, "1")
	want(2, "a policy")
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	want(3, "evidence")
	b.clock.Step(time.Minute)
	if err := b.Renew(t.Context(), key(app), b.clock.Now()); err != nil {
		t.Fatal(err)
	}
	want(3, "a refresh that found nothing new")
	b.DropPolicy("unknown")
	want(3, "dropping what is not there")
	b.DropPolicy("p")
	want(4, "dropping a policy")
}

// countingHosts counts the calls of Host.
type countingHosts struct {
	*digests.Registries
	subjects atomic.Int32
}

func (c *countingHosts) Host(about trust.Subject) string {
	if about != (trust.Subject{}) {
		c.subjects.Add(1)
	}
	return c.Registries.Host(about)
}

// While the only host is down, a look for due work looks at the subjects only when a trial fetch is
// due. A subject of another host, which is not known to be down, is fetched all the same.
func TestDownHostCostsNoLookAtItsSubjects(t *testing.T) {
	r := &countingHosts{Registries: &digests.Registries{}}
	b := newBench(r)
	b.Reset("acme", time.Minute)
	about := func(host string, i int) trust.Key {
		image := imageref.Ref{Host: host, Path: fmt.Sprintf("app-%d", i), Tag: "v1"}
		return trust.Key{Root: "acme", Subject: r.Subject(image)}
	}
	const down = "down.example.com"
	r.Fail(down, refused)
	for i := range 3 {
		b.clock.Step(time.Minute)
		_ = b.Renew(t.Context(), about(down, i), b.clock.Now())
		<-task{track: b.acme(), host: b.acme().host(down)}.start().done
	}
	if b.acme().host(down).down == nil {
		t.Fatal("the host is not down")
	}
	fetches := func() (n int) {
		for _, due := range b.acme().dueNow() {
			if due.host == nil {
				n++
			}
		}
		return n
	}
	b.clock.Step(lastProbe)
	if got := fetches(); got != 1 {
		t.Errorf("%d fetches are due, want one trial", got)
	}
	r.subjects.Store(0)
	b.clock.Step(lastProbe - time.Second)
	if got := fetches(); got != 0 || r.subjects.Load() != 0 {
		t.Errorf("%d fetches are due after a look at %d subjects, want none of both", got, r.subjects.Load())
	}
	b.Retain([]trust.Key{about("up.example.com", 0)})
	if got := fetches(); got != 1 {
		t.Errorf("%d fetches are due, want that from the other host", got)
	}
}
