package store

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/test/digests"
)

// fact is evidence that tests distinguish by its pointer.
type fact struct{ expires time.Time }

func (*fact) Hints(string) []string                               { return nil }
func (*fact) Statements(_, _ string) []trust.Statement            { return nil }
func (*fact) Rejected([]string, string, string) []trust.Rejection { return nil }
func (*fact) Signed() bool                                        { return true }
func (*fact) Faults() []*trust.Fault                              { return nil }
func (f *fact) Expiry() (time.Time, string)                       { return f.expires, "timestamp" }

// scripted is a trust root whose results a test sets, for faults that no real server can show on
// demand.
type scripted struct {
	fetches atomic.Int32
	fetch   func(ctx context.Context, held trust.Evidence) (trust.Evidence, error)
	// instead of fetch
	fetchOf func(ctx context.Context, repository string, held trust.Evidence) (trust.Evidence, error)
	recheck func(held trust.Evidence) (trust.Evidence, error)
	unpack  func(packed []byte, held trust.Evidence) (trust.Evidence, error)
	probe   error
	remaps  trust.Remaps
}

func (s *scripted) Subject(image imageref.Ref) trust.Subject {
	return trust.Subject{Repository: s.remaps.Signed(image)}
}

func (s *scripted) Probe(context.Context, string) error { return s.probe }

func (*scripted) Host(trust.Subject) string { return "notary.example.com" }

func (s *scripted) Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	s.fetches.Add(1)
	if s.fetchOf != nil {
		return s.fetchOf(ctx, about.Repository, held)
	}
	return s.fetch(ctx, held)
}

func (s *scripted) Recheck(_ trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	if s.recheck == nil {
		return held, nil
	}
	return s.recheck(held)
}

func (*scripted) Pack(map[trust.Subject]trust.Evidence) ([]byte, error) { return nil, nil }

func (s *scripted) Unpack(repository trust.Subject, packed []byte,
	held map[trust.Subject]trust.Evidence) (map[trust.Subject]trust.Evidence, error) {
	evidence, err := s.unpack(packed, held[repository])
	if evidence == nil {
		return nil, err
	}
	return map[trust.Subject]trust.Evidence{repository: evidence}, err
}

// acmeKey returns the key of a repository under the trust root "acme".
func acmeKey(repository string) trust.Key {
	return trust.Key{Root: "acme", Subject: trust.Subject{Repository: repository}}
}

// key returns the key of the repository of an image.
func key(image imageref.Ref) trust.Key { return acmeKey(image.Name()) }

// keys returns the keys of several images.
func keys(images ...imageref.Ref) []trust.Key {
	all := make([]trust.Key, 0, len(images))
	for _, image := range images {
		all = append(all, key(image))
	}
	return all
}

func returning(e trust.Evidence, err error) func(context.Context, trust.Evidence) (trust.Evidence, error) {
	return func(context.Context, trust.Evidence) (trust.Evidence, error) { return e, err }
}

var app = imageref.Ref{Host: "registry.example.com", Path: "acme/app", Tag: "v1"}

// ofOneShare is how many fetches from one host one namespace alone may have in flight.
const ofOneShare = fetchesPerHost * 2 / 3

type bench struct {
	*Store
	*Tracker
	clock   *clocktesting.FakeClock
	changes atomic.Int32
}

func newBench(root trust.Root) *bench {
	b := &bench{
		Store: New(Options{Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO}),
		clock: clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0)),
	}
	if r, ok := root.(*digests.Registries); ok {
		r.Now = b.clock.Now
	}
	b.Tracker = NewTracker(b.Store, b.clock, func(string) { b.changes.Add(1) })
	b.PutRoot("acme", Root{Verifier: root})
	return b
}

// acme returns the tracker's part for the trust root.
func (b *bench) acme() *track { return b.track("acme") }

// fetching fetches a subject in the background.
func (b *bench) fetching(k trust.Key) *flight {
	return task{track: b.acme(), about: k.Subject}.start()
}

// probing probes the server.
func (b *bench) probing() *flight {
	return task{track: b.acme(), host: b.acme().host("notary.example.com")}.start()
}

func (b *bench) holds(t *testing.T, want trust.Evidence) {
	t.Helper()
	got, _, err := b.Load().Evidence(key(app))
	if err != nil || got != want {
		t.Fatalf("Evidence = %v, %v; want %v", got, err, want)
	}
}

func (b *bench) faults(t *testing.T, reason string) {
	t.Helper()
	got, _, err := b.Load().Evidence(key(app))
	var f *trust.Fault
	if got != nil || !errors.As(err, &f) || f.Reason != reason {
		t.Fatalf("Evidence = %v, %v; want a fault %s", got, err, reason)
	}
}

func TestHerdCostsOneFetch(t *testing.T) {
	release := make(chan struct{})
	signed := &fact{}
	root := &scripted{fetch: func(context.Context, trust.Evidence) (trust.Evidence, error) {
		<-release
		return signed, nil
	}}
	b := newBench(root)
	var wg sync.WaitGroup
	errs := make(chan error, 500)
	for range 500 {
		wg.Go(func() { errs <- b.Ensure(t.Context(), key(app)) })
	}
	eventually(t, "the first fetch", func() bool { return root.fetches.Load() > 0 })
	close(release)
	wg.Wait()
	for range 500 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if n := root.fetches.Load(); n != 1 {
		t.Errorf("500 callers cost %d fetches, want 1", n)
	}
	b.holds(t, signed)
}

func TestFetchGoesOnBehindACallerThatLeaves(t *testing.T) {
	release, signed := make(chan struct{}), &fact{}
	b := newBench(&scripted{fetch: func(ctx context.Context, _ trust.Evidence) (trust.Evidence, error) {
		select {
		case <-release:
			return signed, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Ensure(ctx, key(app)); !errors.Is(err, context.Canceled) {
		t.Fatalf("Ensure = %v, want the context's error", err)
	}
	close(release)
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	b.holds(t, signed)
}

func TestFaultKeepsVerifiedEvidence(t *testing.T) {
	signed := &fact{expires: time.Unix(1_900_000_000, 0)}
	root := &scripted{fetch: returning(signed, nil)}
	b := newBench(root)
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	root.fetch = returning(nil, trust.NewFault(v1alpha1.ReasonUnreachable, "down"))
	b.clock.Step(time.Minute)
	changes := b.changes.Load()
	if err := b.Renew(t.Context(), key(app), b.clock.Now()); err == nil {
		t.Fatal("Renew hid the fault")
	}
	b.holds(t, signed)
	if b.changes.Load() == changes {
		t.Error("got no notification of the fault, want one")
	}
	got := b.Status("acme")
	if got.Tracked != 1 || got.Failing != 1 || got.Faults[0].Fault.Reason != v1alpha1.ReasonUnreachable {
		t.Errorf("Status = %+v, want one failing repository", got)
	}
	if !got.Expires.Equal(signed.expires) || got.ExpiresFirst != "registry.example.com/acme/app timestamp" {
		t.Errorf("expiry = %s, %q", got.Expires, got.ExpiresFirst)
	}
}

func TestFaultIsNoVerdictAndIsTriedAgain(t *testing.T) {
	cases := map[string]struct {
		fetch  func(context.Context, trust.Evidence) (trust.Evidence, error)
		reason string
	}{
		"typed fault": {
			returning(nil, trust.NewFault(v1alpha1.ReasonTLSNotTrusted, "who are you")), v1alpha1.ReasonTLSNotTrusted,
		},
		"untyped error": {returning(nil, errors.New("odd")), v1alpha1.ReasonMetadataInvalid},
		"nil evidence":  {returning(nil, nil), v1alpha1.ReasonMetadataInvalid},
		"panic": {
			func(context.Context, trust.Evidence) (trust.Evidence, error) { panic("hostile") },
			v1alpha1.ReasonMetadataInvalid,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			root := &scripted{fetch: c.fetch}
			b := newBench(root)
			if err := b.Ensure(t.Context(), key(app)); err == nil {
				t.Fatal("Ensure hid the fault")
			}
			b.faults(t, c.reason)
			if err := b.Ensure(t.Context(), key(app)); err == nil || root.fetches.Load() != 1 {
				t.Fatalf("a fault of a moment ago: Ensure = %v after %d fetches, want the fault and no second one", err,
					root.fetches.Load())
			}
			signed := &fact{}
			root.fetch = returning(signed, nil)
			b.clock.Step(2 * firstRetry)
			if err := b.Ensure(t.Context(), key(app)); err != nil {
				t.Fatal(err)
			}
			b.holds(t, signed)
		})
	}
}

// A request must see every signature from before it, even if a fetch was already in flight.
func TestRenewSeesWhatWasThereBefore(t *testing.T) {
	entered, release := make(chan struct{}, 10), make(chan struct{})
	var published atomic.Pointer[fact]
	published.Store(&fact{})
	root := &scripted{fetch: func(context.Context, trust.Evidence) (trust.Evidence, error) {
		was := published.Load()
		entered <- struct{}{}
		<-release
		return was, nil
	}}
	b := newBench(root)
	early := make(chan error, 1)
	go func() { early <- b.Ensure(t.Context(), key(app)) }()
	<-entered
	b.clock.Step(time.Millisecond)
	signed := &fact{}
	published.Store(signed)
	late := make(chan error, 50)
	for range cap(late) {
		go func() { late <- b.Renew(t.Context(), key(app), b.clock.Now()) }()
	}
	close(release)
	for range cap(late) {
		if err := <-late; err != nil {
			t.Fatal(err)
		}
	}
	if err := <-early; err != nil {
		t.Fatal(err)
	}
	b.holds(t, signed)
	if n := root.fetches.Load(); n != 2 {
		t.Errorf("%d fetches, want the one under way and one for all who came later", n)
	}
	if err := b.Renew(t.Context(), key(app), b.clock.Now()); err != nil || root.fetches.Load() != 2 {
		t.Errorf("evidence that is new enough: %v after %d fetches, want no further one", err, root.fetches.Load())
	}
}

func TestRootReplacedDuringAFetch(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	older := &scripted{fetch: func(context.Context, trust.Evidence) (trust.Evidence, error) {
		close(entered)
		<-release
		return &fact{}, nil
	}}
	b := newBench(older)
	done := make(chan error, 1)
	go func() { done <- b.Ensure(t.Context(), key(app)) }()
	<-entered
	signed := &fact{}
	newer := &scripted{fetch: returning(signed, nil)}
	b.PutRoot("acme", Root{Verifier: newer})
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.holds(t, signed)
}

func TestEditedRootVerifiesAgain(t *testing.T) {
	signed := &fact{}
	b := newBench(&scripted{fetch: returning(signed, nil)})
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	revoked := trust.NewFault(v1alpha1.ReasonRootNotPinned, "another pin")
	b.PutRoot("acme", Root{
		Verifier: &scripted{recheck: func(trust.Evidence) (trust.Evidence, error) { return nil, revoked }},
	})
	b.faults(t, v1alpha1.ReasonRootNotPinned)
	b.PutRoot("acme", Root{Verifier: &scripted{}})
	b.holds(t, signed)
}

// An edit to a trust root that rejects a repository must not permit a rollback of the repository.
func TestThreatRollbackAcrossAnEditOfTheTrustRoot(t *testing.T) {
	signed := &fact{}
	b := newBench(&scripted{fetch: returning(signed, nil)})
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	var given trust.Evidence
	b.PutRoot("acme", Root{Verifier: &scripted{
		recheck: func(trust.Evidence) (trust.Evidence, error) { return nil, errors.New("another pin") },
		fetch: func(_ context.Context, held trust.Evidence) (trust.Evidence, error) {
			given = held
			return nil, trust.NewFault(v1alpha1.ReasonRollback, "older")
		},
	}})
	for range 2 { // the fault of the first does not make the second forget
		b.clock.Step(time.Minute)
		if err := b.Ensure(t.Context(), key(app)); err == nil || given != signed {
			t.Errorf("Ensure = %v and the root was given %v, want a fault and what was held", err, given)
		}
	}
	b.faults(t, v1alpha1.ReasonRollback)
}

func TestUsable(t *testing.T) {
	b := newBench(&scripted{fetch: returning(&fact{}, nil)})
	b.PutRoot("broken", Root{Fault: trust.NewFault(v1alpha1.ReasonInvalidKey, "spec.notary.root.keys[0]: not PEM")})
	cases := map[string]struct {
		root, reason string
	}{
		"missing": {"other", v1alpha1.ReasonTrustRootNotFound},
		"broken":  {"broken", v1alpha1.ReasonTrustRootNotReady},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var f *trust.Fault
			if err := b.Load().Usable(c.root); !errors.As(err, &f) || f.Reason != c.reason {
				t.Errorf("Usable = %v, want %s", err, c.reason)
			}
			if e, _, err := b.Load().Evidence(trust.Key{Root: c.root, Subject: key(app).Subject}); e != nil ||
				err == nil {
				t.Errorf("Evidence = %v, %v; want an error", e, err)
			}
			if err := b.Ensure(t.Context(), trust.Key{Root: c.root, Subject: key(app).Subject}); err == nil {
				t.Error("Ensure of a root that is not usable succeeded")
			}
		})
	}
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	b.DropRoot("acme")
	if _, _, err := b.Load().Evidence(key(app)); err == nil {
		t.Error("got evidence of a deleted trust root, want none")
	}
	b.PutRoot("acme", Root{Verifier: &scripted{}})
	if _, _, err := b.Load().Evidence(key(app)); !errors.Is(err, policy.ErrNotLoaded) {
		t.Errorf("a new trust root of the same name: %v, want nothing held", err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// The cause of a fault may be repaired while a client waits. A request fetches a failing repository
// again a second after its last fetch, however often it has failed. More requests cause no more
// fetches.
func TestDemandAfterManyFaults(t *testing.T) {
	root := &scripted{fetch: returning(nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "half published"))}
	b := newBench(root)
	b.Reset("acme", time.Hour)
	for range 10 {
		b.clock.Step(2 * firstRetry)
		b.fails(t, nil)
	}
	before := root.fetches.Load()
	for range 1000 {
		b.clock.Step(10 * time.Millisecond)
		b.fails(t, nil)
	}
	if n := root.fetches.Load() - before; n > 13 {
		t.Errorf("%d fetches in 10 s, want one a second", n)
	}
	if due := b.acme().entries[key(app).Subject].due.Sub(b.clock.Now()); due < 4*time.Minute {
		t.Errorf("it is due in %s though nobody asks, want less and less", due)
	}
	signed := &fact{}
	root.fetch = returning(signed, nil)
	b.clock.Step(firstRetry)
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Errorf("Ensure = %v, want the repository to be fetched", err)
	}
	b.holds(t, signed)
}
