package policy_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

// indexed is evidence that looks up statements without allocations, like real evidence.
type indexed struct {
	*held
	tag []trust.Statement
}

func (i indexed) Statements(string, string) []trust.Statement { return i.tag }

// loaded is a set of trust roots that all have the same evidence.
type loaded struct{ evidence trust.Evidence }

func (loaded) Usable(string) error { return nil }

func (loaded) Subject(_ string, image imageref.Ref) trust.Subject {
	return trust.Subject{Repository: image.Repository()}
}

func (loaded) Tenant(trust.Key, string) (trust.Key, bool) { return trust.Key{}, false }

func (l loaded) Evidence(trust.Key) (trust.Evidence, time.Duration, error) {
	return l.evidence, 0, nil
}

// teams returns a set of n policies, of which one covers an image of team 7.
func teams(tb testing.TB, n int) *policy.Set {
	tb.Helper()
	var policies []*policy.Policy
	for i := range n {
		pattern := v1alpha1.ImagePattern(fmt.Sprintf("registry.example.com/team-%d/**", i))
		policies = append(policies, compiled(tb, fmt.Sprintf("team-%d", i), images(pattern)))
	}
	return policy.NewSet(policy.UncoveredDeny, policies)
}

func teamRequest() (policy.Request, policy.Roots) {
	h := signed("ci v1 a", "qa v1 a")
	evidence := indexed{held: &held{}, tag: h.statements}
	return policy.Request{
		Image: "registry.example.com/team-7/app:v1", NamespaceLabels: map[string]string{"env": "production"}, Now: now,
	}, loaded{evidence}
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			set := teams(b, n)
			request, roots := teamRequest()
			b.ReportAllocs()
			for b.Loop() {
				if d := set.Decide(request, roots); d.Verdict != policy.Admitted {
					b.Fatal(d.Message)
				}
			}
		})
	}
}

// The test counts allocations and not time, because a count is the same on every machine.
func TestAllocationsDoNotGrowWithPolicies(t *testing.T) {
	allocations := func(n int) float64 {
		set := teams(t, n)
		request, roots := teamRequest()
		return testing.AllocsPerRun(100, func() {
			if d := set.Decide(request, roots); d.Verdict != policy.Admitted {
				t.Fatal(d.Message)
			}
		})
	}
	// The regular expressions of the reference parser keep buffers in a pool, and the race detector
	// drops some of them at random. A few more allocations are therefore no fault. One for each
	// policy would be hundreds.
	if few, many := allocations(10), allocations(1000); many > few+5 {
		t.Errorf("%v allocations with 10 policies, %v with 1000", few, many)
	}
}
