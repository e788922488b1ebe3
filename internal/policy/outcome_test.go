package policy_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
)

func TestOutcomes(t *testing.T) {
	const enforce, warn, audit = v1alpha1.ModeEnforce, v1alpha1.ModeWarn, v1alpha1.ModeAudit
	met := func(name string) policy.Outcome {
		return policy.Outcome{Policy: name, Mode: enforce, Verdict: policy.Admitted, Reason: v1alpha1.ReasonSigned}
	}
	both := compiled(t, "both")
	tests := map[string]struct {
		image    string
		roots    roots
		policies []*policy.Policy
		want     []policy.Outcome
	}{
		"signed": {
			app, roots{"acme-notary": signed("ci v1 a", "qa v1 a")}, []*policy.Policy{both},
			[]policy.Outcome{met("both")},
		},
		"one role missing": {
			app, roots{"acme-notary": signed("ci v1 a")}, []*policy.Policy{both},
			[]policy.Outcome{
				{Policy: "both", Mode: enforce, Reason: v1alpha1.ReasonNotSigned, Missing: []string{"qa"}},
			},
		},
		"of several digests the one that lacks the fewest": {
			app, roots{"acme-notary": signed("ci v1 a", "ci v1 b", "qa v1 b")},
			[]*policy.Policy{compiled(t, "three", requires("ci", "qa", "dev"))},
			[]policy.Outcome{
				{Policy: "three", Mode: enforce, Reason: v1alpha1.ReasonNotSigned, Missing: []string{"dev"}},
			},
		},
		"a threshold missed, of a digest": {
			repository + "@" + digest("a"), roots{"acme-notary": signed("ci v1 a")},
			[]*policy.Policy{compiled(t, "some", requires("ci", "2 of ci qa dev"))},
			[]policy.Outcome{
				{Policy: "some", Mode: enforce, Reason: v1alpha1.ReasonNotSigned, Missing: []string{"2 of 3"}},
			},
		},
		"met although another denies": {
			app, roots{"acme-notary": signed("ci v1 a")}, []*policy.Policy{both, compiled(t, "ci", requires("ci"))},
			[]policy.Outcome{
				{Policy: "both", Mode: enforce, Reason: v1alpha1.ReasonNotSigned, Missing: []string{"qa"}}, met("ci"),
			},
		},
		"each for a digest of its own": {
			app, roots{"acme-notary": signed("ci v1 a", "qa v1 b")},
			[]*policy.Policy{
				compiled(t, "ci", requires("ci")), compiled(t, "qa", requires("qa")),
				compiled(t, "free", unsignedAllowed),
			},
			[]policy.Outcome{
				{Policy: "ci", Mode: enforce, Reason: v1alpha1.ReasonDigestsDiffer},
				{Policy: "free", Mode: enforce, Verdict: policy.Admitted, Reason: v1alpha1.ReasonAllowedUnsigned},
				{Policy: "qa", Mode: enforce, Reason: v1alpha1.ReasonDigestsDiffer},
			},
		},
		"two digests that count": {
			app, roots{"acme-notary": signed("ci v1 a", "qa v1 a", "ci v1 b", "qa v1 b")}, []*policy.Policy{both},
			[]policy.Outcome{{Policy: "both", Mode: enforce, Reason: v1alpha1.ReasonAmbiguous}},
		},
		"could not check": {
			app, roots{"acme-notary": unreachable}, []*policy.Policy{both},
			[]policy.Outcome{
				{
					Policy: "both", Mode: enforce, Verdict: policy.CouldNotCheck, Reason: v1alpha1.ReasonUnreachable,
					Missing: []string{"ci", "qa"},
				},
			},
		},
		"not loaded": {
			app, roots{"acme-notary": policy.ErrNotLoaded}, []*policy.Policy{both},
			[]policy.Outcome{
				{Policy: "both", Mode: enforce, Verdict: policy.CouldNotCheck, Reason: v1alpha1.ReasonNotLoaded},
			},
		},
		"trust root missing": {
			app, roots{}, []*policy.Policy{both},
			[]policy.Outcome{
				{
					Policy: "both", Mode: enforce, Verdict: policy.CouldNotCheck,
					Reason: v1alpha1.ReasonTrustRootNotFound,
				},
			},
		},
		"spec that cannot be read": {
			app, roots{}, []*policy.Policy{broken(t, "broken", images("?"))},
			[]policy.Outcome{
				{Policy: "broken", Mode: enforce, Verdict: policy.CouldNotCheck, Reason: v1alpha1.ReasonInvalidSpec},
			},
		},
		"modes that advise": {
			app, roots{"acme-notary": signed("ci v1 a")},
			[]*policy.Policy{
				compiled(t, "ci", requires("ci")), compiled(t, "warn", mode(warn)), compiled(t, "audit", mode(audit)),
			},
			[]policy.Outcome{
				{Policy: "audit", Mode: audit, Reason: v1alpha1.ReasonNotSigned, Missing: []string{"qa"}}, met("ci"),
				{Policy: "warn", Mode: warn, Reason: v1alpha1.ReasonNotSigned, Missing: []string{"qa"}},
			},
		},
		"not covered":  {"registry.example.com/other:v1", roots{}, []*policy.Policy{both}, nil},
		"not readable": {"A B", roots{}, []*policy.Policy{both}, nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := decide(tc.image, tc.roots, tc.policies...).Outcomes
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(policy.Outcome{}, "Roots")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, o := range got {
				if want := []string{"acme-notary"}; o.Policy != "free" && !slices.Equal(o.Roots, want) {
					t.Errorf("policy %s names the trust roots %q, want %q", o.Policy, o.Roots, want)
				}
			}
		})
	}
}

func TestOutcomesAgreeWithTheVerdict(t *testing.T) {
	inWorlds(t, 1000, func(_ *rand.Rand, w world) bool {
		d := w.decide(t)
		if len(d.Outcomes) != len(w.specs) {
			t.Errorf("%d outcomes of %d policies", len(d.Outcomes), len(w.specs))
		}
		met := true
		for _, o := range d.Outcomes {
			if o.Reason == "" || o.Mode != w.specs[o.Policy].Mode {
				t.Errorf("outcome %+v", o)
			}
			met = met && (o.Verdict == policy.Admitted || o.Mode != v1alpha1.ModeEnforce)
		}
		if met != (d.Verdict == policy.Admitted) {
			t.Errorf("verdict %d, outcomes %+v", d.Verdict, d.Outcomes)
		}
		return true
	})
}

func TestConsults(t *testing.T) {
	ref, err := imageref.Parse(app)
	if err != nil {
		t.Fatal(err)
	}
	set := policy.NewSet(policy.UncoveredAllow, []*policy.Policy{
		compiled(t, "a", from("y", "x")), compiled(t, "b", from("y")), compiled(t, "free", from("z"), unsignedAllowed),
		compiled(t, "elsewhere", from("other"), images("registry.example.com/other")),
		broken(t, "broken", from("broken"), requires("2 of ci")),
	})
	if diff := cmp.Diff([]string{"x", "y"}, set.Consults(ref, nil)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
