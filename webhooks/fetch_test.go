package webhooks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/workload"
)

// If a fetch takes longer than the deadline, the answer is "could not check", in time. The fetch
// continues, and a retry finds its result.
func TestThreatSlowFetchIsDeniedInTimeAndFoundOnRetry(t *testing.T) {
	b := newBench(t)
	b.Deadline = 50 * time.Millisecond
	release, ended := make(chan struct{}), make(chan struct{})
	b.root.answer = func(ctx context.Context, _ string) (trust.Evidence, error) {
		defer close(ended)
		select {
		case <-release:
			return usual(), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	pod := request{kind: "Pod", object: object("Pod", signed)}
	// On a busy machine the deadline may pass before the fetch begins. Then there is no fetch.
	poll.Await(t, "a fetch to begin", func() error {
		start := time.Now()
		_, got := b.admit(t, pod)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("got an answer after %s, want one within 10s", took)
		}
		wantDenied(t, got, 503, "not loaded yet")
		if b.root.count() == 0 {
			return errors.New("it has not begun")
		}
		return nil
	})

	close(release)
	wait(t, ended)
	b.Deadline = time.Minute
	stored, got := b.admit(t, pod)
	wantAdmitted(t, got)
	wantImage(t, stored, pinned)
	if n := b.root.count(); n != 1 {
		t.Errorf("got %d fetches, want 1", n)
	}
}

// A request that names hundreds of repositories begins only 32 fetches, and none
// after its end.
func TestThreatFloodOfNamesEndsWithItsRequest(t *testing.T) {
	b := newBench(t)
	b.Deadline = 50 * time.Millisecond
	release := make(chan struct{})
	defer close(release)
	b.root.answer = func(context.Context, string) (trust.Evidence, error) {
		<-release
		return trust.Unsigned{}, nil
	}
	images := make([]string, 500)
	for i := range images {
		images[i] = fmt.Sprintf("registry.example.com/acme/made-up-%d:v1", i)
	}
	wantDenied(t, b.validate(t, request{kind: "Pod", object: object("Pod", images...)}), 503)
	if n := b.Tracker.Status("acme").Tracked; n > 32 {
		t.Errorf("got %d repositories, want at most 32", n)
	}
}

// The end of the request's context ends the wait for a fetch.
func TestDeadlineOfTheRequest(t *testing.T) {
	b := newBench(t)
	stop := make(chan struct{})
	defer close(stop)
	b.root.answer = func(context.Context, string) (trust.Evidence, error) {
		<-stop
		return usual(), nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	answers := make(chan admissionv1.AdmissionResponse, 1)
	go func() {
		review := request{kind: "Pod", object: object("Pod", pinned)}.review(t)
		answers <- b.Validate(ctx, admissionRequest(review)).AdmissionResponse
	}()
	cancel()
	select {
	case got := <-answers:
		wantDenied(t, &got, 503)
	case <-time.After(30 * time.Second):
		t.Fatal("got no answer within 30 s of the end of the request")
	}
}

// The flood: 40 Pods of one namespace name 1,280 repositories, and the server answers none
// of them. A newly signed repository of another namespace is admitted at the first try.
func TestThreatFloodOfOneNamespaceKeepsNoOtherOut(t *testing.T) {
	b := newBench(t)
	release := make(chan struct{})
	var answered atomic.Int32
	b.root.answer = func(_ context.Context, repository string) (trust.Evidence, error) {
		if strings.Contains(repository, "made-up") {
			<-release
			answered.Add(1)
			return trust.Unsigned{}, nil
		}
		return usual(), nil
	}
	ctx, end := context.WithCancel(t.Context())
	var floods sync.WaitGroup
	for pod := range 40 {
		images := make([]string, 32)
		for i := range images {
			images[i] = fmt.Sprintf("registry.example.com/acme/made-up-%d-%d:v1", pod, i)
		}
		review := admissionRequest(request{kind: "Pod", object: object("Pod", images...), namespace: "lab"}.review(t))
		floods.Go(func() { b.Validate(ctx, review) })
	}
	defer func() { end(); close(release); floods.Wait() }()
	poll.Await(t, "the flood", func() error {
		// The rest was turned away: these requests have ended.
		if n := b.Tracker.Status("acme").Tracked; n < 1000 {
			return fmt.Errorf("%d names are known to the tracker", n)
		}
		return nil
	})
	_, got := b.admit(t, request{kind: "Pod", object: object("Pod", signed)})
	wantAdmitted(t, got)
	if n := answered.Load(); n != 0 {
		t.Errorf("got %d made-up names served before it, want none", n)
	}
}

// A Pod of 20 new images is admitted at the first try. One of 40 has 32 of them fetched; the retry
// fetches the rest.
func TestThreatNewImagesOfARequestAreBounded(t *testing.T) {
	b := newBench(t)
	names := func(what string, n int) (images []string) {
		for i := range n {
			images = append(images, fmt.Sprintf("registry.example.com/acme/%s-%d:signed@%s", what, i, digestA))
		}
		return images
	}
	_, got := b.admit(t, request{kind: "Pod", object: object("Pod", names("few", 20)...)})
	wantAdmitted(t, got)
	pod := request{kind: "Pod", object: object("Pod", names("many", 40)...)}
	before := b.root.count()
	wantDenied(t, b.validate(t, pod), 503, "one request fetches at most 32 images that are not loaded")
	if n := b.root.count() - before; n != 32 {
		t.Errorf("got %d fetches, want 32", n)
	}
	_, got = b.admit(t, pod)
	wantAdmitted(t, got)
	if n := b.root.count() - before; n != 40 {
		t.Errorf("got %d fetches with the retry, want 40", n)
	}
}

// A server hangs. Mutate has 3 s for an unknown image, and Validate more than that: together less
// than 8 s, with the rest of both requests.
func TestUnknownImageIsDeniedWithin8Seconds(t *testing.T) {
	b := newBench(t)
	b.Deadline = 0
	var left time.Duration
	b.Namespaces = observing{namespaces: b.Namespaces.(namespaces), see: func(ctx context.Context) {
		deadline, ok := ctx.Deadline()
		if !ok {
			t.Fatal("got a context without a deadline")
		}
		left = time.Until(deadline)
	}}
	review := admissionRequest(request{kind: "Pod", object: object("Pod", pinned)}.review(t))
	b.Mutate(t.Context(), review)
	if left <= 0 || left > 3*time.Second {
		t.Errorf("got %s for Mutate, want 3s", left)
	}
	left = 0
	b.Validate(t.Context(), review)
	if left <= 3*time.Second || left > 4500*time.Millisecond { // a busy machine may take a second until here
		t.Errorf("got %s for Validate, want 4.5s", left)
	}
}

// The deadline of a decision must leave time for the answer before the webhook's timeout of 10 s.
func TestThreatInnerDeadlineIsShorter(t *testing.T) {
	b := newBench(t)
	b.Deadline = 0
	var left time.Duration
	b.Namespaces = observing{namespaces: b.Namespaces.(namespaces), see: func(ctx context.Context) {
		deadline, ok := ctx.Deadline()
		if !ok {
			t.Error("got a context without a deadline")
		}
		left = time.Until(deadline)
	}}
	b.validate(t, request{kind: "Pod", object: object("Pod", pinned)})
	if left <= 0 || left > 8*time.Second {
		t.Errorf("got a deadline of %s, want at most 8s", left)
	}
}

// The evidence is refreshed before a denial, even by the mutating handler, so that a new signature
// counts.
func TestRenewedBeforeADenialStands(t *testing.T) {
	b := newBench(t)
	pod := request{kind: "Pod", object: object("Pod", ciOnly)}
	_, got := b.admit(t, pod)
	wantDenied(t, got, 403, `role "qa"`)

	b.root.answers(usual(trust.Statement{Digest: digestB, Tag: "ci-only", Role: "qa"}), nil)
	b.clock.Step(5 * time.Second)
	stored, got := b.admit(t, pod)
	wantAdmitted(t, got)
	wantImage(t, stored, ciOnly+"@"+digestB)
	if n := b.root.count(); n != 2 {
		t.Errorf("got %d fetches, want 2: the first and the refresh", n)
	}
}

// If the evidence of a denial cannot be refreshed, the answer is "could not check": the image may
// have been signed since.
func TestThreatDenialFromOldEvidenceIsNoVerdict(t *testing.T) {
	b := newBench(t)
	pod := request{kind: "Pod", object: object("Pod", ciOnly)}
	_, got := b.admit(t, pod)
	wantDenied(t, got, 403, `role "qa"`)
	b.root.answers(nil, trust.NewFault(v1alpha1.ReasonUnreachable, "no connection to notary.example.com"))
	b.clock.Step(5 * time.Second)
	_, got = b.admit(t, pod)
	wantDenied(t, got, 503, `role "qa" has not signed`,
		`TrustRoot "acme" could not be asked for newer signatures: no connection to notary.example.com`)
}

// Only the outcomes that depend on the trust root whose refresh failed become "could not check".
func TestFailedRefreshIsOfItsTrustRootOnly(t *testing.T) {
	b := newBench(t, requireBoth(nil),
		requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.TrustRoots = []v1alpha1.ObjectName{"other"} }),
		requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.Mode = v1alpha1.ModeWarn }))
	other := &root{}
	other.answers(usual(), nil)
	b.Store.PutRoot("other", store.Root{Verifier: other})
	wantDenied(t, b.validate(t, request{kind: "Pod", object: object("Pod", ciOnly)}), 403)
	b.root.answers(nil, trust.NewFault(v1alpha1.ReasonUnreachable, "no connection to notary.example.com"))
	b.clock.Step(5 * time.Second)
	decided, err := b.decide(t.Context(), "shop", []workload.Image{{Image: ciOnly}})
	if err != nil {
		t.Fatal(err)
	}
	d := decided[ciOnly]
	if len(d.Outcomes) != 3 || d.Verdict != policy.CouldNotCheck {
		t.Fatalf("got the decision %+v, want three outcomes and CouldNotCheck", d)
	}
	for i, want := range []struct {
		verdict policy.Verdict
		reason  string
	}{
		{policy.CouldNotCheck, v1alpha1.ReasonUnreachable}, {policy.Denied, v1alpha1.ReasonNotSigned},
		{policy.Denied, v1alpha1.ReasonNotSigned},
	} {
		if o := d.Outcomes[i]; o.Verdict != want.verdict || o.Reason != want.reason {
			t.Errorf("%s: got the verdict %d and the reason %s, want %d and %s", o.Policy, o.Verdict, o.Reason,
				want.verdict, want.reason)
		}
	}
}

// Validation refreshes by itself, without an earlier mutation.
func TestValidationRenews(t *testing.T) {
	b := newBench(t)
	digest := request{kind: "Pod", object: object("Pod", repository+"@"+digestB)}
	wantDenied(t, b.validate(t, digest), 403)
	b.root.answers(usual(trust.Statement{Digest: digestB, Tag: "ci-only", Role: "qa"}), nil)
	b.clock.Step(5 * time.Second)
	wantAdmitted(t, b.validate(t, digest))
}

// A known, admitted image is decided without the network, and stays admitted while the server is
// down.
func TestKnownImagesNeedNoNetwork(t *testing.T) {
	b := newBench(t)
	pod := request{kind: "Pod", object: object("Pod", signed)}
	_, got := b.admit(t, pod)
	wantAdmitted(t, got)
	b.root.answers(nil, trust.NewFault(v1alpha1.ReasonUnreachable, "no connection"))
	for range 20 {
		b.clock.Step(time.Minute)
		_, got = b.admit(t, pod)
		wantAdmitted(t, got)
	}
	if n := b.root.count(); n != 1 {
		t.Errorf("got %d fetches, want 1", n)
	}
}

// A fault is not a verdict and is not cached: the answer is 503, and an admission once the server
// is back.
func TestThreatFaultIsNoVerdict(t *testing.T) {
	b := newBench(t)
	b.root.answers(nil, trust.NewFault(v1alpha1.ReasonUnreachable, "no connection to notary.example.com"))
	pod := request{kind: "Pod", object: object("Pod", signed)}
	_, got := b.admit(t, pod)
	wantDenied(t, got, 503, "could not check", "no connection to notary.example.com")

	b.root.answers(usual(), nil)
	b.clock.Step(time.Minute)
	_, got = b.admit(t, pod)
	wantAdmitted(t, got)
}

// One image that could not be checked among denied ones makes the answer a fault: a retry may help.
func TestMixedDenialIsAFault(t *testing.T) {
	b := newBench(t)
	b.root.answer = func(_ context.Context, repository string) (trust.Evidence, error) {
		if repository == "registry.example.com/acme/broken" {
			return nil, trust.NewFault(v1alpha1.ReasonTimeout, "no answer in time")
		}
		return usual(), nil
	}
	got := b.validate(t, request{
		kind: "Pod", object: object("Pod", unsigned, "registry.example.com/acme/broken:v1", pinned),
	})
	wantDenied(t, got, 503, `app:unsigned"`, `broken:v1"`, "no answer in time")
}

// Many concurrent requests for a new repository cause one fetch.
func TestThunderingHerd(t *testing.T) {
	b := newBench(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.root.answer = func(context.Context, string) (trust.Evidence, error) {
		once.Do(func() { close(arrived) })
		<-release
		return usual(), nil
	}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			got := b.validate(t, request{kind: "Pod", object: object("Pod", pinned)})
			if !got.Allowed {
				t.Errorf("got a denial, want an admission: %s", got.Result.Message)
			}
		})
	}
	wait(t, arrived)
	close(release)
	wg.Wait()
	if n := b.root.count(); n != 1 {
		t.Errorf("got %d fetches, want 1", n)
	}
}

// wait waits until done is closed, and fails the test after 30 s.
func wait(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("the channel was not closed within 30 s")
	}
}
