package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/test/digests"
)

var noRoute = trust.NewFault(v1alpha1.ReasonUnreachable, "no route")

// heldRegistries hold back the result of each fetch and probe until the test releases it.
type heldRegistries struct {
	*digests.Registries
	began   chan string // receives the subject of each fetch, or "probe"
	release chan struct{}
}

func holding(r *digests.Registries) *heldRegistries {
	return &heldRegistries{Registries: r, began: make(chan string, 100), release: make(chan struct{})}
}

func (r *heldRegistries) Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	evidence, err := r.Registries.Fetch(ctx, about, held)
	r.began <- about.String()
	<-r.release
	return evidence, err
}

func (r *heldRegistries) Probe(ctx context.Context, host string) error {
	r.began <- "probe"
	<-r.release
	return r.Registries.Probe(ctx, host)
}

// answersBench is digestsBench with an interval of ten seconds, and the time of its requests.
func answersBench(t *testing.T) (b *bench, r *digests.Registries, tag trust.Key) {
	t.Helper()
	b, r, held := digestsBench(t)
	r.Interval = 10 * time.Second
	b.PutRoot("acme", Root{Verifier: r})
	_ = r.Fetched()
	return b, r, held[0]
}

// hint returns the digest that the store has for a tag.
func (b *bench) hint(t *testing.T, tag trust.Key) string {
	t.Helper()
	e, _, err := b.Load().Evidence(tag)
	if err != nil || len(e.Hints("")) != 1 {
		t.Fatalf("got %v, %v of the tag, want one digest", e, err)
	}
	return e.Hints("")[0]
}

// ensure calls EnsureFor in the background for a request that arrives now.
func (b *bench) ensure(t *testing.T, k trust.Key) <-chan error {
	t.Helper()
	arrived, result := b.clock.Now(), make(chan error, 1)
	go func() { result <- b.EnsureFor(t.Context(), k, arrived) }()
	return result
}

// Within the interval nothing is fetched, and after it once for all requests.
func TestOneFetchOfAnAnswerForAllRequests(t *testing.T) {
	b, r, tag := answersBench(t)
	b.clock.Step(9 * time.Second)
	if err := b.EnsureFor(t.Context(), tag, b.clock.Now()); err != nil {
		t.Fatal(err)
	}
	if got := r.Fetched(); len(got) > 0 {
		t.Fatalf("got fetches of %q within the interval, want none", got)
	}
	r.Tag(app.Name(), "v1", digestTwo)
	b.clock.Step(time.Second)
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if err := b.EnsureFor(t.Context(), tag, b.clock.Now()); err != nil {
				t.Error(err)
			}
			if got := b.hint(t, tag); got != digestTwo {
				t.Errorf("got %s for the tag, want the new digest", got)
			}
		})
	}
	group.Wait()
	if got := r.Fetched(); len(got) != 1 {
		t.Errorf("got fetches of %q, want one", got)
	}
}

// TestThreatTagReadForAnEarlierRequest sends a request with the interval 0s while a fetch for an
// earlier one is in flight: it gets an answer of its own.
func TestThreatTagReadForAnEarlierRequest(t *testing.T) {
	b, r, tag := answersBench(t)
	r.Always = true
	registries := holding(r)
	b.PutRoot("acme", Root{Verifier: registries})
	b.clock.Step(time.Second)
	first := b.ensure(t, tag)
	<-registries.began
	b.clock.Step(time.Second)
	second := b.ensure(t, tag)
	r.Tag(app.Name(), "v1", digestTwo)
	registries.release <- struct{}{}
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	<-registries.began
	registries.release <- struct{}{}
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	if got := b.hint(t, tag); got != digestTwo {
		t.Errorf("got %s for the tag, want the digest of its own answer", got)
	}
}

// A registry that hangs delays a request for two seconds if an older answer is usable, and the next
// request not at all. The fetch continues.
func TestWaitForANewAnswerEnds(t *testing.T) {
	b, r, tag := answersBench(t)
	registries := holding(r)
	b.PutRoot("acme", Root{Verifier: registries})
	r.Tag(app.Name(), "v1", digestTwo)
	b.clock.Step(time.Minute)
	first := b.ensure(t, tag)
	<-registries.began
	poll.Await(t, "the request to wait", func() error {
		if !b.clock.HasWaiters() {
			return errors.New("it does not")
		}
		return nil
	})
	b.clock.Step(answerWait - time.Millisecond)
	select {
	case err := <-first:
		t.Fatalf("got %v before two seconds were over, want it to wait", err)
	default:
	}
	b.clock.Step(time.Millisecond)
	wantUnavailable(t, <-first, v1alpha1.ReasonTimeout)
	wantUnavailable(t, <-b.ensure(t, tag), v1alpha1.ReasonTimeout)
	if got := b.hint(t, tag); got != digestOne {
		t.Errorf("got %s for the tag, want the older answer", got)
	}
	late := b.fetching(tag)
	registries.release <- struct{}{}
	<-late.done
	if got := b.hint(t, tag); got != digestTwo {
		t.Errorf("got %s for the tag, want the answer that came late", got)
	}
}

func wantUnavailable(t *testing.T, err error, reason string) {
	t.Helper()
	if f, ok := errors.AsType[*trust.Fault](err); !ok || f.Reason != reason || !f.Unavailable() {
		t.Errorf("got %v, want a fault with the reason %s", err, reason)
	}
}

// downBench is answersBench with a host that is down. Requests to it are held back.
func downBench(t *testing.T, always bool) (b *bench, r *heldRegistries, tag trust.Key) {
	t.Helper()
	b, registries, tag := answersBench(t)
	registries.Fail(app.Host, noRoute)
	b.clock.Step(time.Minute)
	if err := b.Renew(t.Context(), tag, b.clock.Now()); err == nil {
		t.Fatal("got an answer of a registry that fails")
	}
	<-task{track: b.acme(), host: b.acme().host(app.Host)}.start().done
	registries.Always = always
	r = holding(registries)
	b.PutRoot("acme", Root{Verifier: r})
	return b, r, tag
}

// If the host is down, a request with a usable older answer does not wait for a probe that hangs.
func TestOlderAnswerOfADownHost(t *testing.T) {
	b, registries, tag := downBench(t, false)
	b.clock.Step(time.Minute)
	wantUnavailable(t, <-b.ensure(t, tag), v1alpha1.ReasonUnreachable)
	if got := <-registries.began; got != "probe" {
		t.Errorf("got a fetch of %s, want a probe", got)
	}
	close(registries.release)
}

// An older answer that is not usable shortens no wait: the request waits for the probe, and for the
// new answer.
func TestUnusableAnswerOfADownHost(t *testing.T) {
	for name, test := range map[string]struct {
		always bool
		age    time.Duration
	}{
		"the interval 0s": {true, time.Minute}, "a day old": {false, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			b, registries, tag := downBench(t, test.always)
			registries.Tag(app.Name(), "v1", digestTwo)
			b.clock.Step(test.age)
			waiting := b.ensure(t, tag)
			select {
			case got := <-registries.began:
				if got != "probe" {
					t.Errorf("got a fetch of %s, want a probe", got)
				}
			case err := <-waiting:
				t.Fatalf("got %v at once, want a wait for the probe", err)
			}
			b.clock.Step(2 * answerWait)
			registries.Fail(app.Host, nil)
			close(registries.release)
			if err := <-waiting; err != nil {
				t.Fatal(err)
			}
			if got := b.hint(t, tag); got != digestTwo {
				t.Errorf("got %s for the tag, want the new answer", got)
			}
		})
	}
}

// A tag whose digest is signed is known to be signed: it is not pruned, has the limits of signed
// subjects, and its refresh counts for the status. Any other tag is a made-up name.
func TestTagOfASignedDigestIsKnown(t *testing.T) {
	b, r, tag := answersBench(t)
	r.Tag(app.Name(), "unsigned", digestThree)
	unsigned := tag
	unsigned.Tag = "unsigned"
	if err := b.Ensure(t.Context(), unsigned); err != nil {
		t.Fatal(err)
	}
	if !b.acme().isKnown(tag.Subject) || b.acme().isKnown(unsigned.Subject) {
		t.Errorf("got known %t and %t, want the tag of the signed digest alone", b.acme().isKnown(tag.Subject),
			b.acme().isKnown(unsigned.Subject))
	}
	if verified := b.Load().Verified(tag.InRepository()); verified[tag.Subject] == nil ||
		verified[unsigned.Subject] != nil {
		t.Errorf("got %v to be recorded, want the tag of the signed digest and not the other", verified)
	}
	b.clock.Step(2 * forgetAfter)
	b.prune()
	if b.Load().evidence.get(tag) == nil || b.Load().evidence.get(unsigned) != nil {
		t.Error("want the tag of the signed digest to stay, and the other to be dropped")
	}
	_ = r.Fetched()
	for _, due := range b.acme().dueNow() {
		<-due.start().done
	}
	if got := r.Fetched(); !slices.Contains(got, tag.String()) {
		t.Errorf("got refreshes of %q, want the tag among them", got)
	}
	refreshed := b.clock.Now()
	b.clock.Step(time.Second)
	for k := range b.Load().evidence.under("acme") {
		if k != tag {
			_ = b.Renew(t.Context(), k, b.clock.Now())
		}
	}
	if got := b.Status("acme").Oldest; !got.Equal(refreshed) {
		t.Errorf("got the oldest refresh at %s, want that of the tag, %s", got, refreshed)
	}
}

// A tag of a signed digest that nothing has used for a week is dropped. A decision from memory uses
// it.
func TestUnusedTagIsDropped(t *testing.T) {
	for name, test := range map[string]struct {
		used func(day int) bool
		kept bool
	}{
		"used each day": {func(int) bool { return true }, true},
		"used once":     {func(day int) bool { return day == 1 }, false},
		"used again":    {func(day int) bool { return day == 1 || day == 5 }, true},
		"unused":        {func(int) bool { return false }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b, _, tag := answersBench(t)
			b.Load().evidence.get(tag).used.Store(false)
			kept := func() bool { return b.Load().evidence.get(tag) != nil }
			for day := 1; day <= 9 && kept(); day++ {
				b.clock.Step(24*time.Hour - time.Second)
				<-b.fetching(tag).done
				if test.used(day) {
					_ = b.hint(t, tag)
				}
				b.prune()
				b.clock.Step(time.Second)
			}
			if got := kept(); got != test.kept {
				t.Errorf("got the tag kept %t after nine days, want %t", got, test.kept)
			}
		})
	}
}

// A tag that cannot be refreshed for a day is no longer known, and is dropped.
func TestThreatTagFrozenIsDropped(t *testing.T) {
	b, r, tag := answersBench(t)
	r.Fail(app.Host, trust.NewFault(v1alpha1.ReasonUnauthorized, "403"))
	b.clock.Step(24*time.Hour - time.Second)
	b.prune()
	if b.Load().evidence.get(tag) == nil {
		t.Fatal("got the tag dropped within a day")
	}
	b.clock.Step(time.Second)
	b.prune()
	if b.Load().evidence.get(tag) != nil {
		t.Error("got a tag that has not been refreshed for a day, want it dropped")
	}
}

// TestThreatEndlessTagsOfASignedDigest names more tags of one signed digest than are kept.
func TestThreatEndlessTagsOfASignedDigest(t *testing.T) {
	b, r, tag := answersBench(t)
	b.clock.Step(time.Second)
	for i := range maxTags {
		next := tag
		next.Tag = fmt.Sprintf("t%d", i)
		r.Tag(app.Name(), next.Tag, digestOne)
		if err := b.Ensure(t.Context(), next); err != nil {
			t.Fatal(err)
		}
	}
	b.prune()
	tags := 0
	for k := range b.Load().evidence.under("acme") {
		if k.Tag != "" {
			tags++
		}
	}
	if tags != maxTags || b.Load().evidence.get(tag) != nil || b.acme().entries[tag.Subject] != nil {
		t.Errorf("got %d tags, want the %d that were used last", tags, maxTags)
	}
}

// TestThreatTagsOfOneNamespaceDropNoOthers names more tags than are kept, from one namespace. The
// tag that another namespace has used before stays.
func TestThreatTagsOfOneNamespaceDropNoOthers(t *testing.T) {
	b, r, tag := answersBench(t)
	b.clock.Step(time.Second)
	if err := b.Renew(from(t.Context(), "shop"), tag, b.clock.Now()); err != nil {
		t.Fatal(err)
	}
	b.clock.Step(time.Second)
	for i := range maxTags {
		next := tag
		next.Tag = fmt.Sprintf("t%d", i)
		r.Tag(app.Name(), next.Tag, digestOne)
		if err := b.Ensure(from(t.Context(), "evil"), next); err != nil {
			t.Fatal(err)
		}
	}
	b.prune()
	tags := 0
	for k := range b.Load().evidence.under("acme") {
		if k.Tag != "" {
			tags++
		}
	}
	if tags != maxTags || b.Load().evidence.get(tag) == nil {
		t.Errorf("got %d tags, that of the other namespace kept: %t; want %d with that one", tags,
			b.Load().evidence.get(tag) != nil, maxTags)
	}
}

// The same answer at a later time wakes neither the records nor the status.
func TestSameAnswerWakesNobody(t *testing.T) {
	b, r, tag := answersBench(t)
	var moved, changed int
	b.options.Moved = func(trust.Key) { moved++ }
	b.options.Changed = func() { changed++ }
	renew := func() {
		t.Helper()
		b.clock.Step(time.Minute)
		if err := b.Renew(t.Context(), tag, b.clock.Now()); err != nil {
			t.Fatal(err)
		}
	}
	renew() // the status had no refresh since the publication
	before := b.changes.Load()
	moved, changed = 0, 0
	renew()
	if e, _, _ := b.Load().Evidence(tag); !e.(trust.Answer).Given().Equal(b.clock.Now()) {
		t.Errorf("got an answer of %s, want the one of now", e.(trust.Answer).Given())
	}
	if got := b.changes.Load() - before; moved > 0 || changed > 0 || got > 0 {
		t.Errorf("got %d wake-ups of the records, %d of the running images and %d of the status, want none", moved,
			changed, got)
	}
	r.Tag(app.Name(), "v1", digestTwo)
	renew()
	if got := b.changes.Load() - before; moved != 1 || changed != 1 || got != 1 {
		t.Errorf("got %d, %d and %d wake-ups after the tag has moved, want one of each", moved, changed, got)
	}
}

// TestThreatRestartWithTheRegistryDown restores the answer about a tag from its record: it counts
// with a warning, for a day from when it was given.
func TestThreatRestartWithTheRegistryDown(t *testing.T) {
	b, r, tag := answersBench(t)
	given := b.clock.Now()
	packed, err := r.Pack(b.Load().Verified(tag.InRepository()))
	if err != nil {
		t.Fatal(err)
	}
	for age, counts := range map[time.Duration]bool{2 * time.Hour: true, 25 * time.Hour: false} {
		restarted := &digests.Registries{}
		again := newBench(restarted)
		again.DropRoot("acme")
		again.clock.SetTime(given.Add(age))
		restarted.Fail(app.Host, noRoute)
		saved := func(take func(trust.Subject, []byte)) error {
			take(tag.Subject.InRepository(), packed)
			return nil
		}
		if faults, err := again.PutRootWith("acme", Root{Verifier: restarted}, saved, never); err != nil ||
			len(faults) > 0 {
			t.Fatalf("got faults %v, error %v", faults, err)
		}
		arrived := again.clock.Now()
		err := again.EnsureFor(t.Context(), tag, arrived)
		wantUnavailable(t, err, v1alpha1.ReasonUnreachable)
		production, err := policy.Compile("production", &v1alpha1.ImagePolicySpec{
			Images: []v1alpha1.ImagePattern{"registry.example.com/**"}, TrustRoots: []v1alpha1.ObjectName{"acme"},
			RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		again.PutPolicy(production, "1")
		snapshot := again.Load()
		d := snapshot.Policies.Decide(policy.Request{
			Image: app.String(), Now: arrived, Arrived: arrived, Failed: map[trust.Key]error{tag: noRoute},
		}, snapshot)
		if admitted := d.Verdict == policy.Admitted; admitted != counts || admitted && d.OlderAnswer == "" {
			t.Errorf("after %s: got %+v, want admitted %t, with a warning", age, d, counts)
		}
	}
}

// An answer about a tag says nothing about signatures.
func TestAnswerIsNotUnsigned(t *testing.T) {
	r := &digests.Registries{}
	b := newBench(r)
	r.Tag(app.Name(), "v1", digestOne)
	tag := trust.Key{Root: "acme", Subject: r.Subject(app)}
	digest := trust.Key{
		Root: "acme", Subject: r.Subject(imageref.Ref{Host: app.Host, Path: app.Path, Digest: digestOne}),
	}
	for _, k := range []trust.Key{tag, digest} {
		if b.Load().Unsigned(tag.InRepository()) {
			t.Errorf("got a repository without signatures before its digest was looked up")
		}
		if err := b.Ensure(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	if !b.Load().Unsigned(tag.InRepository()) {
		t.Error("got a repository with signatures, want none")
	}
}

// A request does not wait for a pause that ends after its own wait for a new answer: an older
// answer counts.
func TestPauseBeyondTheWaitForAnAnswer(t *testing.T) {
	b, r, tag := answersBench(t)
	b.clock.Step(11 * time.Second)
	paused := trust.NewFault(v1alpha1.ReasonServerError, "status 429")
	paused.RetryAt = b.clock.Now().Add(longestPause)
	r.Fail(app.Host, paused)
	select {
	case err := <-b.ensure(t, tag):
		if !errors.Is(err, paused) {
			t.Errorf("got %v, want the fault of the pause", err)
		}
	case <-time.After(10 * time.Second): // the clock stands still
		t.Error("got a wait for the end of the pause, want the fault at once")
	}
}
