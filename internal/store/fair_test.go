package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/utils/clock"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
	"github.com/countersign-dev/countersign/test/digests"
)

// crowded is a bench whose server answers made-up names only when the test lets it.
type crowded struct {
	*bench
	root *scripted
	// answer lets the server answer one fetch of a made-up name.
	answer chan struct{}
	waits  sync.WaitGroup
}

func newCrowded(t *testing.T) *crowded {
	t.Helper()
	c := &crowded{answer: make(chan struct{})}
	c.root = &scripted{fetchOf: func(_ context.Context, repository string, _ trust.Evidence) (trust.Evidence, error) {
		if strings.Contains(repository, "made-up") {
			<-c.answer
			return trust.Unsigned{}, nil
		}
		return &fact{}, nil
	}}
	c.bench = newBench(c.root)
	t.Cleanup(func() {
		close(c.answer)
		c.waits.Wait()
	})
	return c
}

// from returns the context of a request of a namespace.
func from(ctx context.Context, namespace string) context.Context {
	return trust.WithPurpose(ctx, trust.Purpose{Namespace: namespace})
}

// madeUp returns a made-up name of a namespace.
func madeUp(namespace string, i int) trust.Key {
	return acmeKey(fmt.Sprintf("registry.example.com/made-up/%s-%d", namespace, i))
}

// flood requests n made-up names from a namespace, and returns when all are fetched, queued or
// turned away.
func (c *crowded) flood(t *testing.T, namespace string, n int) {
	t.Helper()
	gone, leave := context.WithCancel(from(t.Context(), namespace))
	leave()
	for i := range n {
		_ = c.Ensure(gone, madeUp(namespace, i))
	}
}

// loadedOf returns how many of the made-up names of a namespace are loaded.
func (c *crowded) loadedOf(namespace string, n int) (loaded int) {
	for i := range n {
		if _, _, err := c.Load().Evidence(madeUp(namespace, i)); err == nil {
			loaded++
		}
	}
	return loaded
}

// 1,280 made-up names of one namespace are in flight, and the server answers none of them. A new
// repository of another namespace is fetched all the same.
func TestThreatFloodOfOneNamespaceDelaysNoOther(t *testing.T) {
	c := newCrowded(t)
	c.flood(t, "evil", 1280)
	if err := c.Ensure(from(t.Context(), "shop"), key(app)); err != nil {
		t.Fatal(err)
	}
	if n := c.loadedOf("evil", 1280); n != 0 {
		t.Errorf("got %d made-up names served before it, want none", n)
	}
}

// 20 namespaces flood a server that answers one made-up name at a time. A new repository of another
// namespace waits for one of each at most.
func TestThreatFloodOfManyNamespacesIsOneRotation(t *testing.T) {
	const attackers, each = 20, 64
	c := newCrowded(t)
	for i := range attackers {
		c.flood(t, fmt.Sprint("evil-", i), each)
	}
	done := make(chan error, 1)
	go func() { done <- c.Ensure(from(t.Context(), "shop"), key(app)) }()
	eventually(t, "the request to wait", func() bool {
		c.acme().mu.Lock()
		defer c.acme().mu.Unlock()
		return c.acme().entries[key(app).Subject] != nil
	})
	for served := 0; ; served++ {
		if c.loaded([]imageref.Ref{app}) == 1 {
			break
		}
		if served > attackers {
			t.Fatalf("got %d made-up names served before it, want at most one of each of %d namespaces", served,
				attackers)
		}
		before := c.root.fetches.Load()
		c.answer <- struct{}{}
		eventually(t, "the next fetch", func() bool { return c.root.fetches.Load() > before })
		eventually(t, "the end of a fetch of the new repository", func() bool {
			c.acme().mu.Lock()
			defer c.acme().mu.Unlock()
			f := c.acme().entries[key(app).Subject].flight
			return f == nil || f.began.IsZero()
		})
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A repository that one namespace has queued behind its own flood is fetched in the turn of another
// namespace that wants it too.
func TestNamespaceJoinsAQueuedFetch(t *testing.T) {
	c := newCrowded(t)
	c.flood(t, "evil", 500)
	gone, leave := context.WithCancel(from(t.Context(), "evil"))
	leave()
	if err := c.Ensure(gone, key(app)); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want it queued", err)
	}
	if err := c.Ensure(from(t.Context(), "shop"), key(app)); err != nil {
		t.Fatal(err)
	}
	if n := c.loadedOf("evil", 500); n != 0 {
		t.Errorf("got %d made-up names served before it, want none", n)
	}
}

// A name whose request has ended keeps its position in the queue. So does one for which the queue
// was full: it is fetched in the background. No further request is needed for either.
func TestTurnedAwayKeepsItsTurn(t *testing.T) {
	c := newCrowded(t)
	const n = ofOneShare + maxQueued + 50
	c.flood(t, "team", n)
	c.acme().mu.Lock()
	if got := c.acme().others.queue.Len(); got != maxQueued {
		t.Errorf("got %d queued, want %d", got, maxQueued)
	}
	c.acme().mu.Unlock()
	c.clock.Step(time.Minute) // no wait is too long
	c.running(t)
	c.wake()
	for range n {
		c.answer <- struct{}{}
	}
	eventually(t, "all of them", func() bool { return c.loadedOf("team", n) == n })
}

// While the queue is full, a name of another namespace replaces the newest of the flood, which is
// then fetched in the background.
func TestThreatFullQueueTakesFromTheLargest(t *testing.T) {
	c := newCrowded(t)
	c.flood(t, "evil", ofOneShare+maxQueued)
	newest := madeUp("evil", ofOneShare+maxQueued-1)
	errs := make(chan error, 1)
	go func() { errs <- c.Ensure(from(t.Context(), "evil"), newest) }()
	for i := range fetchesPerHost { // these take what is free, and the rest is queued
		c.flood(t, fmt.Sprint("team-", i), 2)
	}
	if err := <-errs; trust.AsFault(err, "").Reason != v1alpha1.ReasonTimeout ||
		!strings.Contains(err.Error(), "fetched in the background") {
		t.Errorf("the newest of the flood: got %v, want it turned away", err)
	}
	c.acme().mu.Lock()
	defer c.acme().mu.Unlock()
	if got := c.acme().others.queue.Len(); got != maxQueued {
		t.Errorf("got %d queued, want %d", got, maxQueued)
	}
	// Nothing has requested the second one since it was evicted.
	for _, k := range []trust.Key{newest, madeUp("evil", ofOneShare+maxQueued-2)} {
		e := c.acme().entries[k.Subject]
		if e == nil || e.flight != nil || e.due.After(c.clock.Now()) {
			t.Errorf("%s: got the entry %+v, want it due in the background", k.Subject, e)
		}
	}
}

// Subjects that are not known to be signed are dropped from the namespaces that have the most.
func TestThreatFloodDropsItsOwn(t *testing.T) {
	b := newBench(&scripted{fetch: returning(trust.Unsigned{}, nil)})
	if err := b.Ensure(from(t.Context(), "shop"), key(app)); err != nil {
		t.Fatal(err)
	}
	for i := range maxUnsigned + 10 {
		b.clock.Step(time.Millisecond)
		if err := b.Ensure(from(t.Context(), "evil"), madeUp("evil", i)); err != nil {
			t.Fatal(err)
		}
	}
	b.prune()
	if b.loaded([]imageref.Ref{app}) != 1 || len(b.acme().entries) != maxUnsigned {
		t.Errorf("got %d subjects, and the oldest is kept: %t; want %d with the one of the other namespace",
			len(b.acme().entries), b.loaded([]imageref.Ref{app}) == 1, maxUnsigned)
	}
}

// A queued name that nobody has requested for a while leaves the queue.
func TestQueueForgets(t *testing.T) {
	c := newCrowded(t)
	c.flood(t, "evil", 100)
	c.clock.Step(forgetAfter + time.Second)
	c.prune()
	c.acme().mu.Lock()
	defer c.acme().mu.Unlock()
	if queued, entries := c.acme().others.queue.Len(), len(c.acme().entries); queued != 0 || entries != ofOneShare {
		t.Errorf("got %d queued and %d subjects, want none, and the %d in flight", queued, entries, ofOneShare)
	}
}

// hanging is registries of which some hosts never answer.
type hanging struct {
	*digests.Registries
	stop chan struct{}

	mu sync.Mutex
	n  int
}

func (h *hanging) Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	if strings.Contains(about.Pulled, "hangs") {
		h.mu.Lock()
		h.n++
		h.mu.Unlock()
		<-h.stop
		return trust.Unsigned{}, nil
	}
	return h.Registries.Fetch(ctx, about, held)
}

func (h *hanging) inFlight() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n
}

// A registry that hangs, or any number of made-up ones, delay no image of another registry: not of
// another namespace, and in small numbers not even of the same. All together are bounded.
func TestThreatHangingRegistriesDelayNoOther(t *testing.T) {
	for name, hosts := range map[string]int{"one": 1, "many made-up ones": 500} {
		t.Run(name, func(t *testing.T) {
			h := &hanging{Registries: &digests.Registries{}, stop: make(chan struct{})}
			defer close(h.stop)
			h.Tag(app.Name(), "v1", digestOne)
			h.Sign(digestOne, "ci", "qa")
			b := newBench(h)
			gone, leave := context.WithCancel(from(t.Context(), "evil"))
			leave()
			for i := range 500 {
				image := imageref.Ref{
					Host: fmt.Sprintf("hangs-%d.example.com", i%hosts), Path: fmt.Sprint("app-", i), Tag: "v1",
				}
				_ = b.Ensure(gone, trust.Key{Root: "acme", Subject: h.Subject(image)})
			}
			most := ofOneShare
			if hosts > 1 {
				most = 43 // two thirds of fetchesPerRoot
			}
			eventually(t, "the slots to be taken", func() bool { return h.inFlight() == most })
			namespaces := []string{"shop"}
			if hosts == 1 {
				namespaces = append(namespaces, "evil")
			}
			for i, namespace := range namespaces {
				image := imageref.Ref{Host: app.Host, Path: app.Path, Digest: []string{digestOne, digestTwo}[i]}
				err := b.Ensure(from(t.Context(), namespace), trust.Key{Root: "acme", Subject: h.Subject(image)})
				if err != nil {
					t.Errorf("%s: %v", namespace, err)
				}
			}
			if n := h.inFlight(); n != most {
				t.Errorf("got %d fetches from hosts that hang, want %d", n, most)
			}
		})
	}
}

// hangingProbes is registries of which made-up hosts answer no probe any more, once hang is set.
type hangingProbes struct {
	*digests.Registries
	stop  chan struct{}
	hang  atomic.Bool
	hangs atomic.Int32 // probes that hang
}

func (h *hangingProbes) Probe(ctx context.Context, host string) error {
	if h.hang.Load() && host != app.Host {
		h.hangs.Add(1)
		<-h.stop
	}
	return h.Registries.Probe(ctx, host)
}

// The probes of any number of made-up hosts hang. They are bounded, and a registry that is up again
// is probed for another namespace at once.
func TestThreatHangingProbesDelayNoOther(t *testing.T) {
	h := &hangingProbes{Registries: &digests.Registries{}, stop: make(chan struct{})}
	defer close(h.stop)
	h.Tag(app.Name(), "v1", digestOne)
	h.Sign(digestOne, "ci", "qa")
	b := newBench(h)
	down := func(image imageref.Ref) trust.Key {
		t.Helper()
		h.Fail(image.Host, noRoute)
		k := trust.Key{Root: "acme", Subject: h.Subject(image)}
		if err := b.Ensure(from(t.Context(), "evil"), k); err == nil {
			t.Fatalf("%s: got evidence of a registry that fails", image.Host)
		}
		probe := task{track: b.acme(), host: b.acme().host(image.Host)}.start()
		if probe == nil {
			t.Fatalf("%s: got no probe, want the slots of the earlier ones released", image.Host)
		}
		<-probe.done
		return k
	}
	image := imageref.Ref{Host: app.Host, Path: app.Path, Digest: digestOne}
	wanted := down(image)
	var madeUp []trust.Key
	for i := range 100 {
		host := fmt.Sprintf("%d.example.com", i)
		madeUp = append(madeUp, down(imageref.Ref{Host: host, Path: "a", Digest: digestTwo}))
	}

	h.hang.Store(true)
	b.clock.Step(time.Minute)
	gone, leave := context.WithCancel(from(t.Context(), "evil"))
	leave()
	for _, k := range madeUp {
		_ = b.Ensure(gone, k)
	}
	for _, due := range b.acme().dueNow() {
		if due.host != nil && due.host.name != app.Host {
			due.start()
		}
	}
	const most = maxProbes - 1 // of one namespace and the background
	eventually(t, "the probes to hang", func() bool { return h.hangs.Load() == most })
	h.Fail(app.Host, nil)
	if err := b.Ensure(from(t.Context(), "shop"), wanted); err != nil {
		t.Errorf("got %v, want the registry probed and the image fetched", err)
	}
	if got := h.hangs.Load(); got != most {
		t.Errorf("got %d probes that hang, want %d", got, most)
	}
}

// Made-up names that fail, and made-up hosts that are down, change neither the health of the trust
// root nor the errors that it lists.
func TestThreatMadeUpNamesHideNothing(t *testing.T) {
	h := &hanging{Registries: &digests.Registries{}}
	h.Tag(app.Name(), "v1", digestOne)
	h.Sign(digestOne, "ci", "qa")
	b := newBench(h)
	b.Reset("acme", time.Minute)
	ensure := func(image imageref.Ref) trust.Key {
		t.Helper()
		k := trust.Key{Root: "acme", Subject: h.Subject(image)}
		_ = b.Ensure(t.Context(), k)
		return k
	}
	evil := func(i int) imageref.Ref {
		return imageref.Ref{Host: "a-down.example.com", Path: fmt.Sprint("a/", i), Digest: digestThree}
	}
	h.Fail("a-down.example.com", refused)
	ensure(evil(0))
	if s := b.Status("acme"); s.Failing != 1 || s.Tracked != 1 {
		t.Errorf("nothing is known yet: got %d of %d failing, want the first fault shown", s.Failing, s.Tracked)
	}
	image := imageref.Ref{Host: app.Host, Path: app.Path, Digest: digestOne}
	held := ensure(image)
	succeeded := b.Status("acme").Succeeded
	for i := range 20 {
		b.clock.Step(2 * time.Second)
		ensure(evil(i))
		for _, due := range b.acme().dueNow() {
			if f := due.start(); f != nil {
				<-f.done
			}
		}
	}
	s := b.Status("acme")
	if s.Failing != 0 || s.Tracked != 1 || s.UnknownFailing == 0 || s.Server != nil || len(s.Faults) > 0 {
		t.Errorf("got %d of %d failing, %d unknown ones, the server's fault %v; want none of 1, some, and none",
			s.Failing, s.Tracked, s.UnknownFailing, s.Server)
	}
	if s.Succeeded.Before(succeeded) {
		t.Errorf("got the last refresh at %s, want %s or later", s.Succeeded, succeeded)
	}

	// What is real shows at once, and first.
	h.Fail(app.Host, broken)
	b.clock.Step(time.Second)
	if err := b.Renew(t.Context(), held, b.clock.Now()); err == nil {
		t.Fatal("renewed from a host that fails")
	}
	b.Retain([]trust.Key{{Root: "acme", Subject: h.Subject(evil(0))}})
	s = b.Status("acme")
	if s.Failing != 2 || s.Tracked != 2 || s.Faults[0].Repository != app.Name() {
		t.Errorf("got %d of %d failing, %+v; want the signed one first, then the one that runs", s.Failing, s.Tracked,
			s.Faults)
	}
}

// A request waits for the end of a short pause that the server asks for, and no longer than its
// context lasts.
func TestRequestsWaitForTheEndOfAPause(t *testing.T) {
	busy := func(b *bench, pause time.Duration) *trust.Fault {
		f := trust.NewFault(v1alpha1.ReasonServerError, "status 429")
		f.RetryAt = b.clock.Now().Add(pause)
		return f
	}
	b, o, _ := known(t, 1)
	unknown := key(imageref.Ref{Host: "registry.example.com", Path: "acme/new"})
	b.clock.Step(time.Second)
	o.is(busy(b, time.Second), nil)
	done := make(chan error, 2)
	go func() { done <- b.Ensure(t.Context(), unknown) }()
	eventually(t, "the wait for the pause", b.clock.HasWaiters)
	go func() { done <- b.Ensure(t.Context(), unknown) }()
	before := o.fetches.Load()
	o.is(nil, nil)
	b.clock.Step(time.Second)
	for range 2 {
		if err := <-done; err != nil {
			t.Errorf("got %v, want it fetched after the pause", err)
		}
	}
	if n := o.fetches.Load() - before; n != 1 {
		t.Errorf("got %d fetches, want 1", n)
	}

	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	for name, tt := range map[string]struct {
		ctx   context.Context
		pause time.Duration
	}{
		"beyond the deadline": {short, time.Second}, "too long": {t.Context(), longestPause + time.Second},
	} {
		b.clock.Step(time.Minute)
		fault := busy(b, tt.pause)
		o.is(fault, nil)
		if err := b.Renew(tt.ctx, unknown, b.clock.Now()); !errors.Is(err, fault) {
			t.Errorf("%s: got %v, want the fault at once", name, err)
		}
	}
}

// A request for a subject of a down host waits for the pause that its probe was answered with.
func TestRequestsWaitForTheEndOfAPauseOfADownHost(t *testing.T) {
	b, o, _ := known(t, 1)
	b.clock.Step(time.Minute)
	fault := trust.NewFault(v1alpha1.ReasonServerError, "status 429")
	fault.RetryAt = b.clock.Now().Add(800 * time.Millisecond)
	b.acme().mu.Lock()
	b.acme().host("notary.example.com").down = fault
	b.acme().mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- b.Renew(t.Context(), key(app), b.clock.Now()) }()
	eventually(t, "the wait for the pause", b.clock.HasWaiters)
	probes := o.probes.Load()
	b.clock.Step(800 * time.Millisecond)
	if err := <-done; err != nil || o.probes.Load() != probes+1 {
		t.Errorf("got %v after %d probes, want it fetched after one", err, o.probes.Load()-probes)
	}
}

// A real server answers one request with 429 and Retry-After: 1. Every first sight on it is
// admitted all the same, that request's included.
func TestFirstSightsDuringAPause(t *testing.T) {
	n := notaryserver.Run(t, notaryserver.Options{})
	client := notaryserver.RunClient(t, n)
	var pins []string
	images := repositories(4)
	for _, i := range images {
		if err := client.Init(t.Context(), i.Repository()); err != nil {
			t.Fatal(err)
		}
		pin, err := client.Root(i.Repository())
		if err != nil {
			t.Fatal(err)
		}
		pins = append(pins, pin.KeyID)
	}
	proxy := faultproxy.Run(t, n.URL, n.CA)
	get, err := registry.New(registry.Config{Server: proxy.URL, CABundle: string(proxy.CA.PEM)})
	if err != nil {
		t.Fatal(err)
	}
	root, err := notary.New(notary.Config{Name: "acme", RootKeyIDs: pins}, get)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{})
	tracker := NewTracker(s, clock.RealClock{}, func(string) {})
	s.PutRoot("acme", Root{Verifier: root})
	for name, faults := range map[string][]faultproxy.Fault{
		"metadata": {
			{
				Times: 1, Status: 429, RetryAfter: "1",
				Match: func(p string) bool { return strings.Contains(p, "running-0") },
			},
		},
		"anything": {{Times: 1, Status: 429, RetryAfter: "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			proxy.Set(faults...)
			ctx, cancel := context.WithTimeout(from(t.Context(), "shop"), 30*time.Second)
			defer cancel()
			var wg sync.WaitGroup
			for _, image := range images {
				wg.Go(func() {
					if err := tracker.Renew(ctx, key(image), time.Now()); err != nil {
						t.Errorf("%s: %v", image.Repository(), err)
					}
				})
			}
			wg.Wait()
		})
	}
}
