package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/test/digests"
)

const (
	digestOne = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	digestTwo = "sha256:2222222222222222222222222222222222222222222222222222222222222222"

	digestThree = "sha256:3333333333333333333333333333333333333333333333333333333333333333"
	digestFour  = "sha256:4444444444444444444444444444444444444444444444444444444444444444"
)

// digestsBench returns a bench whose trust root "acme" has evidence of a tag and two digests of one
// repository.
func digestsBench(t *testing.T) (b *bench, r *digests.Registries, held []trust.Key) {
	t.Helper()
	r = &digests.Registries{}
	r.Tag(app.Name(), "v1", digestOne)
	r.Sign(digestOne, "ci", "qa")
	r.Sign(digestTwo, "ci")
	b = newBench(r)
	b.Reset("acme", time.Minute)
	for _, image := range []imageref.Ref{
		app, {Host: app.Host, Path: app.Path, Digest: digestOne}, {Host: app.Host, Path: app.Path, Digest: digestTwo},
	} {
		k := trust.Key{Root: "acme", Subject: r.Subject(image)}
		if err := b.Ensure(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		held = append(held, k)
	}
	return b, r, held
}

// One record has all subjects of a repository. They are restored from it without a network.
func TestOneRecordForAllSubjects(t *testing.T) {
	b, r, held := digestsBench(t)
	repository := held[0].InRepository()
	if got := b.Load().Repositories(); len(got) != 1 || got[0] != repository {
		t.Fatalf("repositories %v, want %v", got, repository)
	}
	packed, err := r.Pack(b.Load().Verified(repository))
	if err != nil {
		t.Fatal(err)
	}
	restarted := &digests.Registries{}
	again := newBench(restarted)
	again.DropRoot("acme")
	saved := func(take func(trust.Subject, []byte)) error {
		take(repository.Subject, packed)
		return nil
	}
	if faults, err := again.PutRootWith("acme", Root{Verifier: restarted}, saved, never); err != nil ||
		len(faults) > 0 {
		t.Fatalf("faults %v, error %v", faults, err)
	}
	for _, k := range held {
		want, _, _ := b.Load().Evidence(k)
		got, _, err := again.Load().Evidence(k)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.Statements("", ""), got.Statements("", "")); diff != "" ||
			!cmp.Equal(want.Hints("v1"), got.Hints("v1")) {
			t.Errorf("%s (-want +got):\n%s", k.Subject, diff)
		}
	}
	if fetched := restarted.Fetched(); len(fetched) > 0 {
		t.Errorf("got fetches of %q, want none", fetched)
	}

	// A later record of another replica adds its subjects to the evidence in use.
	late := newBench(&digests.Registries{})
	if err := late.Restore(repository, late.Load().Root("acme"), packed); err != nil {
		t.Fatal(err)
	}
	if got := len(late.Load().Verified(repository)); got != len(held) {
		t.Errorf("%d subjects restored, want %d", got, len(held))
	}
	late.Release(repository)
	if got := late.Load().Repositories(); len(got) > 0 {
		t.Errorf("%v is held after its release", got)
	}
}

// The status lists a failing repository once, however many of its subjects fail.
func TestSeveralFailingSubjectsOfOneRepository(t *testing.T) {
	b, r, held := digestsBench(t)
	r.Fail(app.Host, trust.NewFault(v1alpha1.ReasonTimeout, "no answer"))
	b.clock.Step(time.Second)
	for _, k := range held {
		if err := b.Renew(t.Context(), k, b.clock.Now()); err == nil {
			t.Fatalf("%s: renewed from a host that fails", k.Subject)
		}
	}
	s := b.Status("acme")
	if s.Tracked != 1 || s.Failing != 1 || len(s.Faults) != 1 || s.Faults[0].Repository != app.Name() {
		t.Errorf("%d of %d fail: %v; want the one repository", s.Failing, s.Tracked, s.Faults)
	}
	for _, k := range held { // what is held stays in use
		if _, _, err := b.Load().Evidence(k); err != nil {
			t.Error(err)
		}
	}
}

// A registry that answers fetches again is no longer reported, even if its last probe failed: such
// a host is not probed again until a fetch fails.
func TestRegistryThatAnswersAgain(t *testing.T) {
	b, r, held := digestsBench(t)
	b.PutRoot("acme", Root{Verifier: unprobed{r}})
	r.Fail(app.Host, trust.NewFault(v1alpha1.ReasonUnreachable, "refused"))
	b.clock.Step(time.Second)
	_ = b.Renew(t.Context(), held[0], b.clock.Now())
	h := b.acme().host(app.Host)
	<-task{track: b.acme(), host: h}.start().done
	if h.down == nil || b.Status("acme").Server == nil {
		t.Fatal("the registry is not reported to be down")
	}
	r.Fail(app.Host, nil)
	b.clock.Step(2 * lastProbe)
	for _, due := range b.acme().dueNow() {
		<-due.start().done
	}
	if h.down != nil || h.suspect {
		t.Fatal("the trial fetch did not end the outage")
	}
	if fault := b.Status("acme").Server; fault != nil {
		t.Errorf("got %v, want no fault of a registry that answers", fault)
	}
}

// unprobed is a registry that answers no probe.
type unprobed struct{ *digests.Registries }

func (unprobed) Probe(context.Context, string) error {
	return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "there is no such endpoint")
}

// After an edit of the trust root, each subject is verified again.
func TestEachSubjectIsCheckedAgain(t *testing.T) {
	b, _, held := digestsBench(t)
	edited := &rechecking{Registries: &digests.Registries{}}
	b.PutRoot("acme", Root{Verifier: edited})
	for _, k := range held {
		if _, ok := edited.told.Load(k.Subject); !ok {
			t.Errorf("%s was not checked again", k.Subject)
		}
	}
}

// rechecking records the subjects that it verifies again.
type rechecking struct {
	*digests.Registries
	told sync.Map
}

func (r *rechecking) Recheck(about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	r.told.Store(about, true)
	return held, nil
}

// The digest that a registry reports for a tag is no signature. An attacker may report any tags of
// their own registry: these are dropped like unsigned subjects, displace no signed ones, and are
// not recorded.
func TestThreatHintsAreNotSignatures(t *testing.T) {
	r := &digests.Registries{}
	b := newBench(r)
	b.Reset("acme", time.Minute)
	for i := range maxUnsigned + 500 {
		tag := fmt.Sprintf("v%d", i)
		r.Tag(app.Name(), tag, digestOne)
		k := trust.Key{Root: "acme", Subject: r.Subject(imageref.Ref{Host: app.Host, Path: app.Path, Tag: tag})}
		if err := b.Ensure(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		if b.acme().isKnown(k.Subject) {
			t.Fatalf("%s is taken to be signed", k.Subject)
		}
	}
	repository := trust.Key{Root: "acme", Subject: r.Subject(app)}.InRepository()
	if got := b.Load().Verified(repository); got != nil {
		t.Errorf("%d subjects are to be written down, and nobody has signed any", len(got))
	}
	b.prune()
	if n := len(b.acme().entries); n != maxUnsigned {
		t.Errorf("%d subjects are kept, want the bound, %d", n, maxUnsigned)
	}
	b.clock.Step(2 * forgetAfter)
	b.prune()
	if n := len(b.acme().entries); n != 0 {
		t.Errorf("%d subjects are kept that nobody asks for", n)
	}
}

// Nothing remains of deleted hosts and trust roots, even if one of their fetches ends later.
func TestNothingIsLeftOfHostsAndRoots(t *testing.T) {
	r := &digests.Registries{}
	b := newBench(r)
	b.PutRoot("acme", Root{Verifier: r, ExpiredGrace: time.Hour})
	b.Reset("acme", time.Minute)
	for i := range 20 {
		host := fmt.Sprintf("registry-%d.example.com", i)
		r.Fail(host, trust.NewFault(v1alpha1.ReasonUnreachable, "refused"))
		k := trust.Key{Root: "acme", Subject: r.Subject(imageref.Ref{Host: host, Path: "app", Tag: "v1"})}
		for range 3 {
			b.clock.Step(time.Minute)
			_ = b.Renew(t.Context(), k, b.clock.Now())
			<-task{track: b.acme(), host: b.acme().host(host)}.start().done
		}
	}
	if len(b.Load().down) == 0 {
		t.Fatal("no host is down")
	}
	b.clock.Step(2 * forgetAfter)
	b.prune()
	if n, hosts := len(b.Load().down), len(b.acme().hosts); n > 0 || hosts > 1 {
		t.Errorf("%d hosts are down and %d known, of which nobody has a subject", n, hosts)
	}
	old := b.acme()
	h := old.host("registry.example.com")
	h.down = trust.NewFault(v1alpha1.ReasonUnreachable, "refused")
	b.DropRoot("acme")
	b.Forget("acme")
	b.PutRoot("acme", Root{Verifier: r, ExpiredGrace: time.Hour})
	old.publishHost(h)
	if n := len(b.Load().down); n > 0 {
		t.Error("what was under way under the trust root that is gone speaks for the new one")
	}
}

// A subject that cannot be verified for now stays in the record of its repository.
func TestRecordKeepsWhatCannotBeVerified(t *testing.T) {
	b, r, held := digestsBench(t)
	edited := &refusing{Registries: r, refused: held[2].Subject}
	b.PutRoot("acme", Root{Verifier: edited})
	if _, _, err := b.Load().Evidence(held[2]); err == nil {
		t.Fatal("it is not refused")
	}
	if got := len(b.Load().Verified(held[0].InRepository())); got != len(held) {
		t.Errorf("%d subjects are to be written down, want all %d", got, len(held))
	}
}

// refusing refuses one subject.
type refusing struct {
	*digests.Registries
	refused trust.Subject
}

func (r *refusing) Recheck(about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	if about == r.refused {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "refused")
	}
	return held, nil
}

// Each digest of a repository is fetched, retained and pruned independently. An unused digest is
// pruned even if other digests of the repository are in use or signed.
func TestDigestsArePrunedByThemselves(t *testing.T) {
	b, r, held := digestsBench(t) // a tag, and two digests that are signed
	unsigned := make([]trust.Key, 2)
	for i, digest := range []string{digestThree, digestFour} {
		unsigned[i] = trust.Key{
			Root: "acme", Subject: r.Subject(imageref.Ref{Host: app.Host, Path: app.Path, Digest: digest}),
		}
	}
	_ = r.Fetched()
	b.Retain([]trust.Key{unsigned[0]})
	for _, due := range b.acme().dueNow() {
		<-due.start().done
	}
	if err := b.Ensure(t.Context(), unsigned[1]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{unsigned[0].String(), unsigned[1].String()}, r.Fetched()); diff != "" {
		t.Fatalf("fetched (-want +got):\n%s", diff)
	}
	b.clock.Step(2 * forgetAfter)
	b.prune()
	wantHeld := func(want ...trust.Key) {
		t.Helper()
		for _, k := range slices.Concat(held, unsigned) {
			got, want := b.Load().evidence.get(k) != nil, slices.Contains(want, k)
			if tracked := b.acme().entries[k.Subject] != nil; got != want || tracked != want {
				t.Errorf("%s: held %t, tracked %t; want %t", k.Subject, got, tracked, want)
			}
		}
	}
	wantHeld(held[0], held[1], held[2], unsigned[0]) // signed ones with their tag, and the running one
	b.Retain(nil)
	b.prune()
	wantHeld(held...)
	if err := b.Ensure(t.Context(), unsigned[0]); err != nil { // a new request fetches it again
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{unsigned[0].String()}, r.Fetched()); diff != "" {
		t.Errorf("fetched again (-want +got):\n%s", diff)
	}
}

// TestUnusableRootLeavesNoHost checks that a trust root without a server of its own that was
// unusable for a while probes only its registries afterwards. Its subjects have no host meanwhile.
func TestUnusableRootLeavesNoHost(t *testing.T) {
	b, r, _ := digestsBench(t)
	r.Fail("", trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "there is no host without a name"))
	b.PutRoot("acme", Root{Fault: trust.NewFault(v1alpha1.ReasonReferenceNotFound, "no Secret")})
	b.Reset("acme", time.Minute)
	b.PutRoot("acme", Root{Verifier: r})
	b.Reset("acme", time.Minute)
	b.pass(3 * time.Minute)
	if s := b.Status("acme"); s.Server != nil || s.Hosts != 1 {
		t.Errorf("got fault %v and %d hosts, want no fault and the registry alone", s.Server, s.Hosts)
	}
}
