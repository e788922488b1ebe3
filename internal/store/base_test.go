package store

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// mirror is the server of a base. A test sets what it serves.
type mirror struct {
	mu      sync.Mutex
	version int
	expires time.Time
	fault   *trust.Fault
	hang    chan struct{} // until it is closed; nil: it answers
	fetches int
	images  int // fetches of evidence about images
}

func (m *mirror) serve(version int, expires time.Time, fault *trust.Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version, m.expires, m.fault = version, expires, fault
}

func (m *mirror) counts() (bases, images int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fetches, m.images
}

// material is a base: a version.
type material struct {
	fact
	version int
}

// based is a trust root whose evidence says with which version of the base it was verified. An
// image whose repository ends in "keys" does not need the base.
type based struct {
	*mirror
	without bool // the TrustRoot has no base
	base    *material
	fault   *trust.Fault
	recheck func() // called before each recheck of an image
}

// judged is evidence about an image.
type judged struct {
	fact
	version int // of the base; 0: it needs none
	faults  []*trust.Fault
}

func (j *judged) Faults() []*trust.Fault { return j.faults }

func (j *judged) Statements(_, _ string) []trust.Statement {
	if len(j.faults) > 0 {
		return nil
	}
	return []trust.Statement{{Digest: digestOne, Role: "ci"}}
}

var _ trust.Based = (*based)(nil)

func (b *based) HasBase() bool { return !b.without }

func (b *based) WithBase(base trust.Evidence, fault *trust.Fault) trust.Root {
	next := &based{mirror: b.mirror, recheck: b.recheck, fault: fault}
	if base != nil {
		next.base = base.(*material)
	}
	same := (next.base == nil) == (b.base == nil) && (b.base == nil || b.base.version == next.base.version)
	if same && sameReason(b.fault, fault) {
		return b
	}
	return next
}

func (*based) Subject(image imageref.Ref) trust.Subject {
	return trust.Subject{Repository: image.Name()}
}

func (*based) Host(about trust.Subject) string {
	if about == trust.BaseSubject {
		return "https://tuf.example.com"
	}
	return "registry.example.com"
}

func (b *based) Probe(_ context.Context, host string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if strings.HasPrefix(host, "https://") && b.mirror.fault != nil {
		return b.mirror.fault
	}
	return nil
}

func (b *based) Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	if about != trust.BaseSubject {
		b.mu.Lock()
		b.images++
		b.mu.Unlock()
		return b.judge(about)
	}
	b.mu.Lock()
	b.fetches++
	hang := b.hang
	b.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return nil, trust.NewFault(v1alpha1.ReasonTimeout, "no answer")
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mirror.fault != nil {
		return nil, b.mirror.fault
	}
	if have, ok := held.(*material); ok && have.version == b.version && have.expires.Equal(b.expires) {
		return held, nil
	}
	return &material{fact: fact{expires: b.expires}, version: b.version}, nil
}

// judge returns the evidence about an image, or a fault where it needs a base that is not there.
func (b *based) judge(about trust.Subject) (trust.Evidence, error) {
	switch {
	case strings.HasSuffix(about.Repository, "keys"):
		return &judged{}, nil
	case b.base != nil:
		return &judged{version: b.base.version}, nil
	case b.fault != nil:
		return nil, trust.NewFault(b.fault.Reason, "no trusted root: %w", b.fault)
	}
	return nil, trust.NewFault(v1alpha1.ReasonNotLoaded, "no trusted root yet")
}

func (b *based) Recheck(about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	if about == trust.BaseSubject {
		if b.without {
			return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "what is this?")
		}
		return held, nil
	}
	if b.recheck != nil {
		b.recheck()
	}
	next, err := b.judge(about)
	if err != nil {
		return &judged{faults: []*trust.Fault{trust.AsFault(err, "")}}, nil
	}
	return next, nil
}

func (*based) Pack(held map[trust.Subject]trust.Evidence) ([]byte, error) {
	for about, e := range held {
		if base, ok := e.(*material); ok {
			return fmt.Appendf(nil, "%d %d", base.version, base.expires.Unix()), nil
		}
		return []byte(about.Repository), nil
	}
	return nil, nil
}

func (b *based) Unpack(repository trust.Subject, packed []byte,
	_ map[trust.Subject]trust.Evidence) (map[trust.Subject]trust.Evidence, error) {
	e, err := b.Recheck(repository, nil)
	if repository == trust.BaseSubject {
		var version int
		var expires int64
		if _, err := fmt.Sscan(string(packed), &version, &expires); err != nil {
			return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%w", err)
		}
		e, err = &material{fact: fact{expires: time.Unix(expires, 0)}, version: version}, nil
	}
	return map[trust.Subject]trust.Evidence{repository: e}, err
}

var signedByKeys = imageref.Ref{Host: "registry.example.com", Path: "acme/keys", Tag: "v1"}

// basedBench returns a bench over a mirror that serves version 1. Its tracker runs.
func basedBench(t *testing.T) (*bench, *mirror) {
	t.Helper()
	b, m := basedBenchWith(t, nil)
	return b, m
}

// basedBenchWith is basedBench over a mirror that has a fault.
func basedBenchWith(t *testing.T, fault *trust.Fault) (*bench, *mirror) {
	t.Helper()
	m := &mirror{}
	b := newBench(&based{mirror: m})
	m.serve(1, b.clock.Now().Add(24*time.Hour), fault)
	b.Reset("acme", 5*time.Minute)
	go func() { _ = b.Run(t.Context()) }()
	return b, m
}

// version returns the version of the base with which an image was verified; 0: it could not be.
func (b *bench) version(image imageref.Ref) int {
	e, _, err := b.Load().Evidence(key(image))
	if j, ok := e.(*judged); ok && err == nil && len(j.faults) == 0 {
		return j.version
	}
	return 0
}

// renewBase fetches the base anew.
func (b *bench) renewBase(t *testing.T) error {
	t.Helper()
	b.clock.Step(2 * time.Second)
	return b.Renew(t.Context(), baseOf("acme"), b.clock.Now())
}

// passes advances the clock, by seconds, until a condition holds.
func (b *bench) passes(t *testing.T, what string, condition func() bool) {
	t.Helper()
	eventually(t, what, func() bool {
		if condition() {
			return true
		}
		b.clock.Step(time.Second)
		return false
	})
}

var mirrorDown = trust.NewFault(v1alpha1.ReasonUnreachable, "https://tuf.example.com: connection refused")

// The first request waits for the base, and one fetch of the image is enough.
func TestFirstSightWaitsForTheBase(t *testing.T) {
	b, m := basedBench(t)
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	if got := b.version(app); got != 1 {
		t.Errorf("got an image verified with version %d, want 1", got)
	}
	if bases, images := m.counts(); bases != 1 || images != 1 {
		t.Errorf("got %d fetches of the base and %d of the image, want 1 and 1", bases, images)
	}
}

// A mirror that is down at the first start is a fault of what needs the base, and of nothing else.
// Once it answers, requests and running images get their evidence.
func TestMirrorDownAtTheFirstStart(t *testing.T) {
	b, m := basedBenchWith(t, mirrorDown)
	if err := b.Ensure(t.Context(), key(signedByKeys)); err != nil {
		t.Errorf("got %v, want the evidence that needs no base", err)
	}
	err := b.Ensure(t.Context(), key(app))
	if f := trust.AsFault(err, "none"); f.Reason != v1alpha1.ReasonUnreachable ||
		!strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v, want the fault of the mirror", err)
	}
	s := b.Status("acme")
	if s.Base == nil || s.Base.Loaded || s.Base.Fault == nil {
		t.Errorf("got the state %+v of the base, want a fault", s.Base)
	}
	if !b.Load().known(baseOf("acme"), b.clock.Now()) {
		t.Error("got the limits of unknown names for a base that is not loaded, want those of known ones")
	}
	b.Retain(keys(app))
	m.serve(1, b.clock.Now().Add(24*time.Hour), nil)
	b.passes(t, "the running image is verified", func() bool { return b.version(app) == 1 })
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Errorf("got %v, want the evidence", err)
	}
	if s := b.Status("acme"); s.Base == nil || !s.Base.Loaded || s.Base.Fault != nil {
		t.Errorf("got the state %+v of the base, want it loaded", s.Base)
	}
}

// A mirror that hangs delays what does not need the base by a bounded time.
func TestHangingMirrorHoldsUpNothingElse(t *testing.T) {
	m := &mirror{hang: make(chan struct{}), version: 1}
	b := newBench(&based{mirror: m})
	b.Reset("acme", 5*time.Minute)
	go func() { _ = b.Run(t.Context()) }()
	done := make(chan error, 1)
	go func() { done <- b.Ensure(t.Context(), key(signedByKeys)) }()
	var err error
	b.passes(t, "the request ends", func() bool {
		select {
		case err = <-done:
			return true
		default:
			return false
		}
	})
	if err != nil {
		t.Errorf("got %v, want the evidence that needs no base", err)
	}
	close(m.hang)
	b.passes(t, "the base is loaded", func() bool { return b.Ensure(t.Context(), key(app)) == nil })
}

// TestThreatHalfARotation reads decisions while the base changes again and again. In each snapshot
// the evidence is verified with the base of the root, and no image is ever unknown.
func TestThreatHalfARotation(t *testing.T) {
	b, m := basedBench(t)
	images := append([]imageref.Ref{app}, repositories(40)...)
	for _, image := range images {
		if err := b.Ensure(t.Context(), key(image)); err != nil {
			t.Fatal(err)
		}
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				s := b.Load()
				want := s.roots["acme"].Verifier.(*based).base.version
				for _, image := range images {
					e, _, err := s.Evidence(key(image))
					if j, ok := e.(*judged); !ok || err != nil || j.version != want {
						t.Errorf("%s: got %+v and %v, want it verified with version %d", image, e, err, want)
						return
					}
				}
			}
		})
	}
	for version := 2; version < 12; version++ {
		m.serve(version, b.clock.Now().Add(24*time.Hour), nil)
		if err := b.renewBase(t); err != nil {
			t.Error(err)
		}
		if got := b.version(app); got != version {
			t.Errorf("got an image verified with version %d once the base was fetched, want %d", got, version)
		}
	}
	stop.Store(true)
	wg.Wait()
	if _, fetches := m.counts(); fetches != len(images) {
		t.Errorf("got %d fetches of %d images, want one of each", fetches, len(images))
	}
}

// A rotation takes effect when all evidence is verified, however long that takes.
func TestRotationWaitsForAllEvidence(t *testing.T) {
	b, m := basedBench(t)
	images := repositories(2 * min(runtime.GOMAXPROCS(0), savedConcurrency))
	for _, image := range images {
		if err := b.Ensure(t.Context(), key(image)); err != nil {
			t.Fatal(err)
		}
	}
	slow := *b.Load().roots["acme"].Verifier.(*based)
	slow.recheck = func() { <-time.After(recheckTime) }
	b.PutRoot("acme", Root{Verifier: &slow})
	eventually(t, "the edit is in force", func() bool { return count(b.Load(), images, v1alpha1.ReasonNotLoaded) == 0 })
	lost := atomic.Int32{}
	b.options.Changed = func() {
		if n := count(b.Load(), images, v1alpha1.ReasonNotLoaded); n > 0 {
			lost.Add(1)
		}
	}
	m.serve(2, b.clock.Now().Add(24*time.Hour), nil)
	if err := b.renewBase(t); err != nil {
		t.Fatal(err)
	}
	for _, image := range images {
		if got := b.version(image); got != 2 {
			t.Errorf("%s: got it verified with version %d, want 2", image, got)
		}
	}
	if lost.Load() > 0 {
		t.Errorf("got %d snapshots in which images could not be checked, want none", lost.Load())
	}
}

// TestThreatFrozenBase stops the mirror. The base counts until it expires, and then what needs it
// cannot be checked. What does not need it stays. A newer base ends that.
func TestThreatFrozenBase(t *testing.T) {
	b, m := basedBench(t)
	for _, image := range []imageref.Ref{app, signedByKeys} {
		if err := b.Ensure(t.Context(), key(image)); err != nil {
			t.Fatal(err)
		}
	}
	end := b.Status("acme").Expires
	m.serve(1, end, mirrorDown)
	b.clock.SetTime(end.Add(-time.Second))
	if got := b.version(app); got != 1 {
		t.Errorf("got version %d before the expiry, want 1", got)
	}
	b.passes(t, "the base has expired", func() bool {
		s := b.Status("acme")
		return b.version(app) == 0 && s.Base != nil && s.Base.Fault != nil
	})
	e, _, err := b.Load().Evidence(key(app))
	if err != nil || len(e.Statements("", "")) > 0 || len(e.Faults()) != 1 ||
		e.Faults()[0].Reason != v1alpha1.ReasonMetadataExpired {
		t.Errorf("got %+v and %v, want the fault that the base has expired", e, err)
	}
	if e, _, err := b.Load().Evidence(key(signedByKeys)); err != nil || len(e.Statements("", "")) != 1 {
		t.Errorf("got %+v and %v, want the evidence that needs no base", e, err)
	}
	if s := b.Status("acme"); s.Base == nil || s.Base.Loaded || s.Base.Fault == nil {
		t.Errorf("got the state %+v of the base, want it expired", s.Base)
	}
	m.serve(2, b.clock.Now().Add(24*time.Hour), nil)
	b.passes(t, "the newer base is in force", func() bool { return b.version(app) == 2 })
}

// TestThreatExpiryNeedsNoFetch lets the base expire while its mirror hangs, so that no fetch ends.
func TestThreatExpiryNeedsNoFetch(t *testing.T) {
	b, m := basedBench(t)
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.hang = make(chan struct{})
	m.mu.Unlock()
	defer close(m.hang)
	b.clock.SetTime(b.Status("acme").Expires)
	b.passes(t, "the base has expired", func() bool { return b.version(app) == 0 })
}

// The base is no repository: it is not counted, not dropped, and refreshed although nothing uses
// it. Made-up names do not delay it.
func TestBaseIsNoRepository(t *testing.T) {
	b, m := basedBench(t)
	for _, image := range repositories(maxUnsigned / 100) {
		if err := b.Ensure(t.Context(), key(image)); err != nil {
			t.Fatal(err)
		}
	}
	if s := b.Status("acme"); s.Tracked != maxUnsigned/100 || s.Unknown != 0 || s.Failing != 0 {
		t.Errorf("got %d repositories tracked, %d unknown and %d failing, want %d, 0 and 0", s.Tracked, s.Unknown,
			s.Failing, maxUnsigned/100)
	}
	m.serve(1, b.clock.Now().Add(1000*time.Hour), nil)
	before, _ := m.counts()
	b.clock.Step(forgetAfter + 5*time.Minute)
	b.passes(t, "the base is refreshed", func() bool { n, _ := m.counts(); return n > before })
	base := baseOf("acme")
	b.prune()
	if b.Load().evidence.get(base) == nil || b.acme().entries[trust.BaseSubject] == nil {
		t.Error("got the base dropped, want it kept")
	}
	if got := b.LastUsed(base); !got.Equal(b.clock.Now()) {
		t.Errorf("got the last use %s, want now: its record must not be deleted", got)
	}
	if !b.Load().known(base, b.clock.Now()) {
		t.Error("got the limits of unknown names for the base, want those of known ones")
	}
}

// While no repository is known, the faults of all count, as without a base.
func TestFaultsCountBesideALoadedBase(t *testing.T) {
	b, _ := basedBenchWith(t, mirrorDown)
	_ = b.Ensure(t.Context(), key(app))
	if s := b.Status("acme"); s.Failing != 1 || s.Unknown != 0 {
		t.Errorf("got %d failing and %d unknown repositories, want 1 and 0", s.Failing, s.Unknown)
	}
}

// inOrder calls take with records, in the order that Saved demands.
func inOrder(packed map[trust.Subject][]byte) Saved {
	return func(take func(trust.Subject, []byte)) error {
		rest := maps.Clone(packed)
		if base, ok := rest[trust.BaseSubject]; ok {
			delete(rest, trust.BaseSubject)
			take(trust.BaseSubject, base)
		}
		for about, one := range rest {
			take(about, one)
		}
		return nil
	}
}

// packedRecords returns the records that a leader would write.
func (b *bench) packedRecords(t *testing.T) map[trust.Subject][]byte {
	t.Helper()
	all := map[trust.Subject][]byte{}
	for _, k := range b.Load().Repositories() {
		packed, err := b.Load().roots["acme"].Verifier.(trust.Keeper).Pack(b.Load().Verified(k))
		if err != nil {
			t.Fatal(err)
		}
		all[k.Subject] = packed
	}
	if all[trust.BaseSubject] == nil {
		t.Fatal("got no record of the base, want one")
	}
	return all
}

// A restart with the mirror down decides as before, from the record of the base and of the images.
// A base that has expired meanwhile does not count.
func TestRestartWithTheMirrorDown(t *testing.T) {
	b, m := basedBench(t)
	for _, image := range []imageref.Ref{app, signedByKeys} {
		if err := b.Ensure(t.Context(), key(image)); err != nil {
			t.Fatal(err)
		}
	}
	m.serve(1, b.clock.Now().Add(24*time.Hour), mirrorDown)
	records := b.packedRecords(t)
	restarted := newBench(&based{mirror: m, without: true})
	faults, err := restarted.PutRootWith("acme", Root{Verifier: &based{mirror: m}}, inOrder(records), never)
	if err != nil || len(faults) > 0 {
		t.Fatalf("got %v and the faults %v, want none", err, faults)
	}
	restarted.Reset("acme", 5*time.Minute)
	if got := restarted.version(app); got != 1 {
		t.Errorf("got an image verified with version %d from its record, want 1", got)
	}
	if e, _, err := restarted.Load().Evidence(key(signedByKeys)); err != nil || len(e.Statements("", "")) != 1 {
		t.Errorf("got %+v and %v, want the evidence that needs no base", e, err)
	}
	if s := restarted.Status("acme"); s.Base == nil || !s.Base.Loaded {
		t.Errorf("got the state %+v of the base, want it loaded", s.Base)
	}

	late := newBench(&based{mirror: m, without: true})
	late.clock.Step(48 * time.Hour)
	_, _ = late.PutRootWith("acme", Root{Verifier: &based{mirror: m}}, inOrder(records), never)
	late.Reset("acme", 5*time.Minute)
	eventually(t, "the expired base does not count", func() bool { return late.version(app) == 0 })
	if e, _, err := late.Load().Evidence(key(signedByKeys)); err != nil || len(e.Statements("", "")) != 1 {
		t.Errorf("got %+v and %v, want the evidence that needs no base", e, err)
	}
}

// A replica takes a newer base from the record that the leader wrote, though its mirror is down.
func TestBaseOfAnotherReplica(t *testing.T) {
	b, m := basedBench(t)
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	newer := &material{fact: fact{expires: b.clock.Now().Add(24 * time.Hour)}, version: 7}
	packed, err := (&based{}).Pack(map[trust.Subject]trust.Evidence{trust.BaseSubject: newer})
	if err != nil {
		t.Fatal(err)
	}
	m.serve(1, b.clock.Now().Add(24*time.Hour), mirrorDown)
	if err := b.Restore(baseOf("acme"), b.Load().Root("acme"), packed); err != nil {
		t.Fatal(err)
	}
	if got := b.version(app); got != 7 {
		t.Errorf("got an image verified with version %d, want 7, that of the record", got)
	}
}

// An edit keeps the base, and verifies everything with it. An edit to a trust root without a base
// drops the base, and nothing fetches it any more.
func TestEditKeepsOrDropsTheBase(t *testing.T) {
	b, m := basedBench(t)
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	m.serve(1, b.clock.Now().Add(24*time.Hour), mirrorDown)
	b.PutRoot("acme", Root{Verifier: &based{mirror: m}})
	if got := b.version(app); got != 1 {
		t.Errorf("got an image verified with version %d at once after an edit, want 1", got)
	}
	b.PutRoot("acme", Root{Verifier: &based{mirror: m, without: true, base: &material{version: 9}}})
	b.Reset("acme", 5*time.Minute)
	if got := b.version(app); got != 9 {
		t.Errorf("got an image verified with version %d, want 9, that of the spec", got)
	}
	if b.Load().evidence.get(baseOf("acme")) != nil || b.acme().entries[trust.BaseSubject] != nil {
		t.Error("got the base kept and tracked, want it dropped")
	}
	if s := b.Status("acme"); s.Base != nil {
		t.Errorf("got the state %+v of a base, want none", s.Base)
	}
}

// An edit that is published while a new base is being verified stays in force.
func TestRotationDoesNotUndoAnEdit(t *testing.T) {
	b, m := basedBench(t)
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	var armed atomic.Bool
	b.PutRoot("acme", Root{Version: "first", Verifier: &based{mirror: m, recheck: func() {
		if armed.CompareAndSwap(true, false) {
			b.PutRoot("acme", Root{Version: "edited", Verifier: &based{mirror: m}})
		}
	}}})
	armed.Store(true)
	m.serve(2, b.clock.Now().Add(24*time.Hour), nil)
	if err := b.renewBase(t); err != nil {
		t.Error(err)
	}
	if got := b.Load().Root("acme").Version; got != "edited" || armed.Load() {
		t.Errorf("got the version %q of the trust root, want that of the edit", got)
	}
	b.passes(t, "the new base is in force", func() bool { return b.version(app) == 2 })
}

// An edit and a new base may meet. In the end, the edited root verifies with the new base.
func TestEditMeetsARotation(t *testing.T) {
	b, m := basedBench(t)
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	m.serve(2, b.clock.Now().Add(24*time.Hour), nil)
	edited := &based{mirror: m}
	var once sync.Once
	edited.recheck = func() {
		once.Do(func() {
			if err := b.renewBase(t); err != nil {
				t.Error(err)
			}
		})
	}
	b.PutRoot("acme", Root{Verifier: edited, Version: "edited"})
	b.Reset("acme", 5*time.Minute)
	b.passes(t, "the new base is in force", func() bool { return b.version(app) == 2 })
	if got := b.Load().Root("acme").Version; got != "edited" {
		t.Errorf("got the version %q of the trust root, want that of the edit", got)
	}
}
