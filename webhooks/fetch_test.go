package webhooks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/workload"
)

// A fetch that outlasts the deadline is answered in time as "could not check". It goes on, and the
// retry finds it.
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
	// On a busy machine the deadline may be over before the fetch has begun, which it then does
	// not.
	poll.Await(t, "a fetch to begin", func() error {
		start := time.Now()
		_, got := b.admit(t, pod)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("answered after %s", took)
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
		t.Errorf("%d fetches, want the one", n)
	}
}

// A request that names hundreds of repositories begins no fetch that it would not wait for.
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
	if n := b.Tracker.Status("acme").Tracked; n > maxConcurrentFetches {
		t.Errorf("%d repositories are being fetched, want %d at most", n, maxConcurrentFetches)
	}
}

// The request's own end is a bound as well.
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
		t.Fatal("no answer after the request had ended")
	}
}

// The deadline inside must leave time for the answer before the webhook's own timeout of 10 s.
func TestThreatInnerDeadlineIsShorter(t *testing.T) {
	b := newBench(t)
	b.Deadline = 0
	var left time.Duration
	b.Namespaces = observing{namespaces: b.Namespaces.(namespaces), see: func(ctx context.Context) {
		deadline, ok := ctx.Deadline()
		if !ok {
			t.Error("no deadline")
		}
		left = time.Until(deadline)
	}}
	b.validate(t, request{kind: "Pod", object: object("Pod", pinned)})
	if left <= 0 || left > 8*time.Second {
		t.Errorf("the deadline inside is %s", left)
	}
}

// A signature made a moment ago is found before a denial stands, by mutation already.
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
		t.Errorf("%d fetches, want the first and the renewal", n)
	}
}

// A denial from evidence that cannot be brought up to date is no verdict: the image may have been
// signed since.
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

// Only the outcomes that rest on the trust root which could not be asked are in doubt.
func TestDoubtIsForTheTrustRootThatFailed(t *testing.T) {
	b := newBench(t, requireBoth(nil),
		requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.TrustRoots = []v1alpha1.ObjectName{"other"} }),
		requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.Mode = v1alpha1.ModeWarn }))
	other := &root{}
	other.answers(usual(), nil)
	b.Store.PutRoot("other", store.Root{Root: other})
	wantDenied(t, b.validate(t, request{kind: "Pod", object: object("Pod", ciOnly)}), 403)
	b.root.answers(nil, trust.NewFault(v1alpha1.ReasonUnreachable, "no connection to notary.example.com"))
	b.clock.Step(5 * time.Second)
	decided, err := b.decide(t.Context(), "shop", []workload.Image{{Image: ciOnly}})
	if err != nil {
		t.Fatal(err)
	}
	d := decided[ciOnly]
	if len(d.Outcomes) != 3 || d.Verdict != policy.CouldNotCheck {
		t.Fatalf("decided %+v", d)
	}
	for i, want := range []struct {
		verdict policy.Verdict
		reason  string
	}{
		{policy.CouldNotCheck, v1alpha1.ReasonUnreachable}, {policy.Denied, v1alpha1.ReasonNotSigned},
		{policy.Denied, v1alpha1.ReasonNotSigned},
	} {
		if o := d.Outcomes[i]; o.Verdict != want.verdict || o.Reason != want.reason {
			t.Errorf("%s: verdict %d and reason %s, want %d and %s", o.Policy, o.Verdict, o.Reason, want.verdict,
				want.reason)
		}
	}
	unclear := outcomesNotRenewed([]policy.Outcome{{Policy: "unclear", Roots: []string{"acme"}}}, "acme",
		errors.New("no answer"))
	if unclear[0].Verdict != policy.CouldNotCheck || unclear[0].Reason != v1alpha1.ReasonTimeout {
		t.Errorf("a policy without a mode, which decides: %+v", unclear[0])
	}
}

// What is not loaded because nothing was asked says why, and counts as that fault; what is on its
// way says so, and stays what it is.
func TestNotLoadedSaysWhy(t *testing.T) {
	image, err := imageref.Parse(signed)
	if err != nil {
		t.Fatal(err)
	}
	outcome := func(name string, verdict policy.Verdict, reason, root string) policy.Outcome {
		return policy.Outcome{Policy: name, Verdict: verdict, Reason: reason, Roots: []string{root}}
	}
	tests := map[string]struct {
		err     error
		message string
		reason  string
	}{
		"server down": {
			trust.NewFault(v1alpha1.ReasonServerError, "the server failed with status 503"),
			`not loaded; TrustRoot "acme": the server failed with status 503`, v1alpha1.ReasonServerError,
		},
		"on its way": {
			context.DeadlineExceeded, `not loaded; TrustRoot "acme": context deadline exceeded`,
			v1alpha1.ReasonNotLoaded,
		},
		"loaded": {nil, "not loaded", v1alpha1.ReasonNotLoaded},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := []policy.Outcome{
				outcome("waits", policy.CouldNotCheck, v1alpha1.ReasonNotLoaded, "acme"),
				outcome("waits for another", policy.CouldNotCheck, v1alpha1.ReasonNotLoaded, "other"),
				outcome("decided", policy.Denied, v1alpha1.ReasonNotSigned, "acme"),
			}
			decided := decisions{
				signed: {
					Verdict: policy.CouldNotCheck, Image: image, Message: "not loaded",
					NotLoaded: []trust.Key{{Root: "acme"}, {Root: "other"}}, Outcomes: before,
				},
			}
			decided.explainNotLoaded(map[trust.Key]error{{Root: "acme"}: tt.err})
			d := decided[signed]
			if d.Verdict != policy.CouldNotCheck || d.Message != tt.message {
				t.Errorf("verdict %d, message %q, want %q", d.Verdict, d.Message, tt.message)
			}
			for i, want := range []string{tt.reason, v1alpha1.ReasonNotLoaded, v1alpha1.ReasonNotSigned} {
				if d.Outcomes[i].Reason != want {
					t.Errorf("%s: reason %s, want %s", d.Outcomes[i].Policy, d.Outcomes[i].Reason, want)
				}
			}
			if before[0].Reason != v1alpha1.ReasonNotLoaded {
				t.Error("the outcomes that were given are changed")
			}
		})
	}
}

// Validation renews by itself: what mutation learned is not needed.
func TestValidationRenews(t *testing.T) {
	b := newBench(t)
	digest := request{kind: "Pod", object: object("Pod", repository+"@"+digestB)}
	wantDenied(t, b.validate(t, digest), 403)
	b.root.answers(usual(trust.Statement{Digest: digestB, Tag: "ci-only", Role: "qa"}), nil)
	b.clock.Step(5 * time.Second)
	wantAdmitted(t, b.validate(t, digest))
}

// A known image that is admitted is decided without the network, and goes on being so when the
// server is gone.
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
		t.Errorf("%d fetches, want the first alone", n)
	}
}

// A fault is neither a verdict nor kept: 503, and admitted once the server is back.
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

// One image that could not be checked among denied ones makes the whole a fault: trying again is
// worth it.
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

// However many ask for a new repository at once, it is fetched once.
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
				t.Errorf("denied: %s", got.Result.Message)
			}
		})
	}
	wait(t, arrived)
	close(release)
	wg.Wait()
	if n := b.root.count(); n != 1 {
		t.Errorf("%d fetches, want one", n)
	}
}

// wait ends the test where what it waits for does not come.
func wait(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("it did not come to pass within 30 s")
	}
}
