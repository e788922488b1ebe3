package compliance_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/test/digests"
)

const repository = "registry.example.com/acme/app"

var (
	indexDigest    = "sha256:" + strings.Repeat("1", 64)
	platformDigest = "sha256:" + strings.Repeat("2", 64)
)

// fixture is a store with a trust root "acme" of a format that signs digests, and a policy that
// requires ci from it.
type fixture struct {
	*store.Store
	*store.Tracker
	registries digests.Registries
	clock      *clocktesting.FakeClock
	image      compliance.Image // of the only running Pod
}

func newFixture(t *testing.T, image compliance.Image) *fixture {
	t.Helper()
	e := &fixture{
		Store: store.New(store.Options{Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO}),
		clock: clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0)),
		image: image,
	}
	e.registries.Now = e.clock.Now
	e.Tracker = store.NewTracker(e.Store, e.clock, func(string) {})
	e.PutRoot("acme", store.Root{Verifier: &e.registries})
	e.Reset("acme", 24*time.Hour) // no periodic refresh during the test
	p, err := policy.Compile("production", &v1alpha1.ImagePolicySpec{
		Images: []v1alpha1.ImagePattern{"registry.example.com/**"}, TrustRoots: []v1alpha1.ObjectName{"acme"},
		RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.PutPolicy(p, "1")
	return e
}

// evaluate evaluates the Pod against the store's current snapshot.
func (e *fixture) evaluate() *compliance.Result {
	snapshot := e.Load()
	return compliance.Evaluate(compliance.Input{
		Pods: []compliance.Pod{{
			Workload: compliance.Workload{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web"},
			Images:   []compliance.Image{e.image},
		}},
		Namespaces: map[string]labels.Set{"shop": {}}, Policies: snapshot.Policies, Roots: snapshot, Now: e.clock.Now(),
	})
}

// fetch fetches all evidence that the Pod needs.
func (e *fixture) fetch(t *testing.T) {
	t.Helper()
	for _, k := range e.evaluate().Needs {
		if err := e.Ensure(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
}

// wantNeeds compares the needs of a result with the wanted ones.
func wantNeeds(t *testing.T, r *compliance.Result, want ...string) {
	t.Helper()
	got := make([]string, 0, len(r.Needs))
	for _, k := range r.Needs {
		got = append(got, k.String())
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("needs (-want +got):\n%s", diff)
	}
}

// wantCounts compares the counts of workloads that violate the policy or could not be checked.
func wantCounts(t *testing.T, r *compliance.Result, violating, unchecked int) {
	t.Helper()
	if got := r.Policies["production"]; got.Covered != 1 || got.Violating != violating || got.Unchecked != unchecked {
		t.Errorf("got %d covered, %d violating, %d unchecked; want 1, %d, %d", got.Covered, got.Violating,
			got.Unchecked, violating, unchecked)
	}
}

// A Pod names the digest of an index, and the kubelet reports the digest of the image of one
// platform. With a format that signs digests, both are subjects. Both are fetched, because either
// may be signed.
func TestReportedDigestIsFetchedByItself(t *testing.T) {
	for name, signed := range map[string]string{"index": indexDigest, "platform": platformDigest} {
		t.Run(name, func(t *testing.T) {
			e := newFixture(t, compliance.Image{Spec: repository + "@" + indexDigest, Digest: platformDigest})
			e.registries.Sign(signed, "ci")
			r := e.evaluate()
			wantNeeds(t, r, repository+"@"+indexDigest, repository+"@"+platformDigest)
			wantCounts(t, r, 0, 1)
			if r.NotLoaded == 0 {
				t.Error("got NotLoaded 0 before the fetch, want more")
			}
			e.fetch(t)
			r = e.evaluate()
			wantCounts(t, r, 0, 0)
			wantNeeds(t, r, repository+"@"+indexDigest, repository+"@"+platformDigest)
			if r.NotLoaded > 0 {
				t.Errorf("got NotLoaded %d after the fetch, want 0", r.NotLoaded)
			}
		})
	}
}

// A workload does not violate the policy while the evidence of one of its two digests is not
// loaded.
func TestReportedDigestCouldNotBeChecked(t *testing.T) {
	e := newFixture(t, compliance.Image{Spec: repository + "@" + indexDigest, Digest: platformDigest})
	about := func(digest string) trust.Key {
		return trust.Key{
			Root: "acme", Subject: trust.Subject{Repository: repository, Pulled: repository, Digest: digest},
		}
	}
	if err := e.Ensure(t.Context(), about(indexDigest)); err != nil {
		t.Fatal(err)
	}
	wantCounts(t, e.evaluate(), 0, 1)
	if err := e.Ensure(t.Context(), about(platformDigest)); err != nil {
		t.Fatal(err)
	}
	wantCounts(t, e.evaluate(), 1, 0) // neither digest is signed
}

// Before the kubelet reports a digest, a Pod needs the digest of its tag and the evidence of that
// digest, even if the digest is not signed.
func TestTagNeedsItsDigest(t *testing.T) {
	e := newFixture(t, compliance.Image{Spec: repository + ":v1"})
	e.registries.Tag(repository, "v1", indexDigest)
	wantNeeds(t, e.evaluate(), repository+":v1")
	e.fetch(t)
	wantNeeds(t, e.evaluate(), repository+":v1", repository+"@"+indexDigest)
	e.fetch(t)
	r := e.evaluate()
	wantNeeds(t, r, repository+":v1", repository+"@"+indexDigest)
	wantCounts(t, r, 1, 0)
}

// What runs under a tag is judged by the registry's last answer, also if that is too old for an
// admission, for a day. The answer is still needed then.
func TestTagIsJudgedByTheLastAnswer(t *testing.T) {
	for name, always := range map[string]bool{"interval of an hour": false, "interval of 0s": true} {
		t.Run(name, func(t *testing.T) {
			e := newFixture(t, compliance.Image{Spec: repository + ":v1"})
			e.registries.Always = always
			e.registries.Tag(repository, "v1", indexDigest)
			e.registries.Sign(indexDigest, "ci")
			e.fetch(t)
			e.fetch(t)
			for _, age := range []time.Duration{0, 24*time.Hour - time.Second} {
				e.clock.Step(age)
				r := e.evaluate()
				wantCounts(t, r, 0, 0)
				wantNeeds(t, r, repository+":v1")
			}
			e.clock.Step(time.Second)
			r := e.evaluate()
			wantCounts(t, r, 0, 1)
			wantNeeds(t, r, repository+":v1")
		})
	}
}
