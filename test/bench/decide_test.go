package bench

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"k8s.io/utils/clock"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust/notary"
)

// estate is a store as a manager has it that knows n repositories, each covered by a policy of its own and by one for all.
type estate struct {
	store   *store.Store
	tracker *store.Tracker
	images  []string // one of each repository
}

// newEstate verifies n repositories by the real verifier, from memory.
func newEstate(tb testing.TB, n int) *estate {
	tb.Helper()
	s, files := published(tb, n)
	root, err := notary.New(s.pin(), memory(files))
	check(tb, err)
	e := emptyEstate(tb, root, n)
	each(tb, n, 2, func(ctx context.Context, i int) error {
		image, err := imageref.Parse(e.images[i])
		if err != nil {
			return err
		}
		return e.tracker.Ensure(ctx, "acme-notary", image)
	})
	return e
}

// emptyEstate has n policies, and no repository verified yet.
func emptyEstate(tb testing.TB, root *notary.Root, n int) *estate {
	tb.Helper()
	e := &estate{store: store.New(policy.UncoveredDeny)}
	e.store.PutRoot("acme-notary", store.Root{Root: root, Format: "Notary"})
	e.tracker = store.NewTracker(e.store, clock.RealClock{}, func(string) {})
	for i := range n {
		e.policy(tb, fmt.Sprintf("team-%d", i), v1alpha1.ImagePattern(fmt.Sprintf("%s/team-%d/**", host, i)))
		e.images = append(e.images, repositoryName(i)+":"+tag(i%tags))
	}
	e.store.MarkPrimed()
	return e
}

func (e *estate) policy(tb testing.TB, name string, pattern v1alpha1.ImagePattern) {
	tb.Helper()
	p, err := policy.Compile(name, &v1alpha1.ImagePolicySpec{
		Images: []v1alpha1.ImagePattern{pattern}, TrustRoots: []v1alpha1.ObjectName{"acme-notary"},
		RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}, {Role: "qa"}}, Mode: v1alpha1.ModeEnforce, PinDigests: v1alpha1.PinPods,
	})
	check(tb, err)
	e.store.PutPolicy(p, "1")
}

// decide decides on one image, as the gate does: from the snapshot that holds now.
func (e *estate) decide(image string, now time.Time) error {
	snapshot := e.store.Load()
	d := snapshot.Policies.Decide(policy.Request{Image: image, NamespaceLabels: map[string]string{"env": "production"}, Now: now}, snapshot)
	if d.Verdict != policy.Admitted || d.Digest == "" {
		return errors.New("denied: " + d.Message)
	}
	return nil
}

// BenchmarkDecide is one decision out of a store of so many policies and repositories of 100 tags, over evidence of the real verifier.
// Each decision is on one of ten images, wherever in the store they are: what else there is must make no difference.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{few, many} {
		b.Run(fmt.Sprintf("size=%d", n), func(b *testing.B) {
			e := newEstate(b, n)
			now := time.Now()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := e.decide(e.images[i%few*(n/few)], now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDecideGrowth is how much longer the same decisions take with 1,000 policies and repositories than with 10. The two take turns,
// so that whatever else the machine does is in both. In a third turn each decision is on another of the 1,000 repositories: what
// that takes more is the processor's caches, which hold the evidence of some and not of all.
func BenchmarkDecideGrowth(b *testing.B) {
	small, large := newEstate(b, few), newEstate(b, many)
	now := time.Now()
	batch := func(e *estate, among int) float64 {
		begin := time.Now()
		for i := range many {
			if err := e.decide(e.images[i%among], now); err != nil {
				b.Fatal(err)
			}
		}
		return float64(time.Since(begin)) / many
	}
	var short, long, scattered []float64
	for b.Loop() {
		short, long, scattered = append(short, batch(small, few)), append(long, batch(large, few)), append(scattered, batch(large, many))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(long)/median(short), "x/growth")
	b.ReportMetric(median(scattered), "ns/scattered-decision")
}
