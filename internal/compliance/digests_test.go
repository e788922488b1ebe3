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

// estate is a store with a trust root "acme" of a format that signs digests, and a policy that
// requires ci from it.
type estate struct {
	*store.Store
	*store.Tracker
	registries digests.Registries
	clock      *clocktesting.FakeClock
	image      compliance.Image // of the one Pod that runs
}

func newEstate(t *testing.T, image compliance.Image) *estate {
	t.Helper()
	e := &estate{
		Store: store.New(store.Options{Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO}),
		clock: clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0)),
		image: image,
	}
	e.Tracker = store.NewTracker(e.Store, e.clock, func(string) {})
	e.PutRoot("acme", store.Root{Verifier: &e.registries})
	e.Reset("acme", 24*time.Hour) // nothing is refreshed unless somebody needs it
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

// evaluate judges the Pod, by what the store holds now.
func (e *estate) evaluate() *compliance.Result {
	snapshot := e.Load()
	return compliance.Evaluate(compliance.Input{
		Pods: []compliance.Pod{{
			Workload: compliance.Workload{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web"},
			Images:   []compliance.Image{e.image},
		}},
		Namespaces: map[string]labels.Set{"shop": {}}, Policies: snapshot.Policies, Roots: snapshot, Now: e.clock.Now(),
	})
}

// fetch fetches all that the Pod needs.
func (e *estate) fetch(t *testing.T) {
	t.Helper()
	for _, k := range e.evaluate().Needs {
		if err := e.Ensure(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
}

// wantNeeds compares the subjects that a result needs.
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

// wantCounts compares how many workloads violate the policy, and could not be checked.
func wantCounts(t *testing.T, r *compliance.Result, violating, unchecked int) {
	t.Helper()
	if got := r.Policies["production"]; got.Covered != 1 || got.Violating != violating || got.Unchecked != unchecked {
		t.Errorf("%d covered, %d violating, %d unchecked; want 1, %d, %d", got.Covered, got.Violating, got.Unchecked,
			violating, unchecked)
	}
}

// A Pod names the digest of an index, and the kubelet reports the digest of one platform's image.
// Under a format that signs digests both are subjects, and both are fetched: either may be signed.
func TestReportedDigestIsFetchedByItself(t *testing.T) {
	for name, signed := range map[string]string{"index": indexDigest, "platform": platformDigest} {
		t.Run(name, func(t *testing.T) {
			e := newEstate(t, compliance.Image{Spec: repository + "@" + indexDigest, Digest: platformDigest})
			e.registries.Sign(signed, "ci")
			r := e.evaluate()
			wantNeeds(t, r, repository+"@"+indexDigest, repository+"@"+platformDigest)
			wantCounts(t, r, 0, 1)
			if r.NotLoaded == 0 {
				t.Error("nothing is waited for")
			}
			e.fetch(t)
			r = e.evaluate()
			wantCounts(t, r, 0, 0)
			wantNeeds(t, r, repository+"@"+indexDigest, repository+"@"+platformDigest)
			if r.NotLoaded > 0 {
				t.Errorf("%d are not loaded", r.NotLoaded)
			}
		})
	}
}

// While the evidence of one of the two digests is not known, the workload is no violation yet.
func TestReportedDigestCouldNotBeChecked(t *testing.T) {
	e := newEstate(t, compliance.Image{Spec: repository + "@" + indexDigest, Digest: platformDigest})
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
	wantCounts(t, e.evaluate(), 1, 0) // nobody has signed either
}

// Before the kubelet has reported a digest, a Pod needs what its tag means and the evidence of that
// digest, although nobody has signed it.
func TestTagNeedsItsDigest(t *testing.T) {
	e := newEstate(t, compliance.Image{Spec: repository + ":v1"})
	e.registries.Tag(repository, "v1", indexDigest)
	wantNeeds(t, e.evaluate(), repository+":v1")
	e.fetch(t)
	wantNeeds(t, e.evaluate(), repository+":v1", repository+"@"+indexDigest)
	e.fetch(t)
	r := e.evaluate()
	wantNeeds(t, r, repository+":v1", repository+"@"+indexDigest)
	wantCounts(t, r, 1, 0)
}
