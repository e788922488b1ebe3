package policy_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

// answer is the answer of a registry about a tag.
type answer struct {
	trust.Unsigned
	digests             []string
	given               time.Time
	fresh, usable, ends time.Duration // from given
}

func (a *answer) Hints(string) []string { return a.digests }
func (a *answer) Given() time.Time      { return a.given }
func (a *answer) Fresh() time.Time      { return a.given.Add(a.fresh) }
func (a *answer) Usable() time.Time     { return a.given.Add(a.usable) }
func (a *answer) Ends() time.Time       { return a.given.Add(a.ends) }

// answered returns the answer that a tag means digest a, which was given some time before now, and
// counts for 10 s.
func answered(ago time.Duration) *answer {
	return &answer{
		digests: []string{digest("a")}, given: now.Add(-ago), fresh: 10 * time.Second, usable: 24 * time.Hour,
		ends: 24 * time.Hour,
	}
}

// byDigest has the evidence of one trust root that signs digests, by tag or digest.
type byDigest map[string]trust.Evidence

func (byDigest) Usable(string) error { return nil }

func (byDigest) Subject(_ string, image imageref.Ref) trust.Subject {
	if image.Digest != "" {
		return trust.Subject{Repository: image.Name(), Digest: image.Digest}
	}
	return trust.Subject{Repository: image.Name(), Tag: image.Tag}
}

func (byDigest) Tenant(trust.Key, string) (trust.Key, bool) { return trust.Key{}, false }

func (r byDigest) Evidence(about trust.Key) (trust.Evidence, time.Duration, error) {
	if e := r[about.Tag+about.Digest]; e != nil {
		return e, 0, nil
	}
	return nil, 0, policy.ErrNotLoaded
}

var tagKey = trust.Key{
	Root: "acme-notary", Subject: trust.Subject{Repository: "registry.example.com/acme/app", Tag: "v1"},
}

// decideTag decides on the tag, whose digest both roles have signed.
func decideTag(t *testing.T, a *answer, change func(*policy.Request)) policy.Decision {
	t.Helper()
	request := policy.Request{Image: app, Now: now, Arrived: now}
	if change != nil {
		change(&request)
	}
	set := policy.NewSet(policy.UncoveredAllow, []*policy.Policy{compiled(t, "production")})
	return set.Decide(request, byDigest{"v1": a, digest("a"): signed("ci - a", "qa - a")})
}

// failing returns the change of a request that has failed to fetch a newer answer.
func failing(err error) func(*policy.Request) {
	return func(r *policy.Request) { r.Failed = map[trust.Key]error{tagKey: err} }
}

// TestThreatAnswerOlderThanTheDecision decides by answers of several ages, about a digest that is
// signed: an answer that is too old never counts.
func TestThreatAnswerOlderThanTheDecision(t *testing.T) {
	always := func(a *answer) *answer {
		a.fresh, a.usable = 0, 0
		return a
	}
	for name, test := range map[string]struct {
		answer *answer
		change func(*policy.Request)
		counts bool
	}{
		"fresh":                                 {answer: answered(9 * time.Second), counts: true},
		"no longer fresh":                       {answer: answered(10 * time.Second)},
		"fresh when the request arrived":        {answered(12 * time.Second), arrivedBefore(3 * time.Second), true},
		"not fresh when the request arrived":    {answered(13 * time.Second), arrivedBefore(3 * time.Second), false},
		"always queried, given for the request": {always(answered(time.Second)), arrivedBefore(time.Second), true},
		"always queried, given before":          {always(answered(time.Second)), nil, false},
		"no time of arrival": {
			answered(time.Minute), func(r *policy.Request) { r.Arrived = time.Time{} }, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := decideTag(t, test.answer, test.change)
			if !test.counts {
				wantTooOld(t, d)
				return
			}
			if d.Verdict != policy.Admitted || d.Digest != digest("a") || len(d.Warnings) > 0 || len(d.NotLoaded) > 0 {
				t.Errorf("got %+v, want it admitted without a warning", d)
			}
		})
	}
}

// arrivedBefore returns the change of a request that arrived some time ago.
func arrivedBefore(ago time.Duration) func(*policy.Request) {
	return func(r *policy.Request) { r.Arrived = now.Add(-ago) }
}

func wantTooOld(t *testing.T, d policy.Decision) {
	t.Helper()
	if d.Verdict != policy.CouldNotCheck || !slices.Equal(d.NotLoaded, []trust.Key{tagKey}) ||
		!strings.Contains(d.Message, `the registry's answer about the tag under TrustRoot "acme-notary" is too old`) {
		t.Errorf("got %+v, want that it could not be checked, and the tag to be fetched", d)
	}
}

// TestThreatTagFrozenByRefusals decides by an older answer after a request for a newer one has
// failed: it counts only if the registry could not be queried, and for a day.
func TestThreatTagFrozenByRefusals(t *testing.T) {
	refused := trust.NewFault(v1alpha1.ReasonServerError, "status 400")
	refused.Refused = true
	for name, test := range map[string]struct {
		answer *answer
		err    error
		counts bool
	}{
		"unreachable":          {answered(time.Hour), trust.NewFault(v1alpha1.ReasonUnreachable, "no route"), true},
		"no response in time":  {answered(time.Hour), trust.NewFault(v1alpha1.ReasonTimeout, "no route"), true},
		"429 or 5xx":           {answered(time.Hour), trust.NewFault(v1alpha1.ReasonServerError, "no route"), true},
		"within another fault": {answered(time.Hour), errors.Join(unreachable), true},
		"nearly a day old":     {answered(24*time.Hour - time.Second), unreachable, true},
		"a day old":            {answered(24 * time.Hour), unreachable, false},
		"nothing failed":       {answer: answered(time.Hour)},
		"another 4xx":          {answered(time.Hour), refused, false},
		"another 4xx, wrapped": {answered(time.Hour), refused.Within("in context: %w", refused), false},
		"unauthorized":         {answered(time.Hour), trust.NewFault(v1alpha1.ReasonUnauthorized, "403"), false},
		"certificate":          {answered(time.Hour), trust.NewFault(v1alpha1.ReasonTLSNotTrusted, "expired"), false},
		"address":              {answered(time.Hour), trust.NewFault(v1alpha1.ReasonAddressRefused, "metadata"), false},
		"no registry":          {answered(time.Hour), trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "HTML"), false},
		"too large":            {answered(time.Hour), trust.NewFault(v1alpha1.ReasonTooLarge, "5 MiB"), false},
		"untyped":              {answered(time.Hour), errUntyped, false},
		"no such tag before":   {&answer{given: now.Add(-time.Hour), ends: 24 * time.Hour}, unreachable, false},
		"always queried": {
			&answer{digests: []string{digest("a")}, given: now.Add(-time.Second)}, unreachable, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := decideTag(t, test.answer, failing(test.err))
			if !test.counts {
				wantTooOld(t, d)
				return
			}
			if d.Verdict != policy.Admitted || d.Digest != digest("a") || len(d.NotLoaded) > 0 {
				t.Fatalf("got %+v, want it admitted", d)
			}
			if !slices.Equal(d.Warnings, []string{d.OlderAnswer}) {
				t.Errorf("got the warnings %q, want the one of the older answer, %q", d.Warnings, d.OlderAnswer)
			}
		})
	}
}

func TestWarningOfAnOlderAnswer(t *testing.T) {
	d := decideTag(t, answered(time.Hour), failing(unreachable))
	const want = `image "registry.example.com/acme/app:v1": admitted for the digest that its registry named for the ` +
		`tag "v1" at 2026-03-01T11:00:00Z (TrustRoot "acme-notary"): the registry could not be queried again: ` +
		`get https://notary.example.com: connection refused`
	if d.OlderAnswer != want {
		t.Errorf("got %q, want %q", d.OlderAnswer, want)
	}
	if d := decideTag(t, answered(time.Second), failing(unreachable)); d.Verdict != policy.Admitted ||
		d.OlderAnswer != "" {
		t.Errorf("got %+v, want no warning with an answer that is fresh", d)
	}
}

// The tag may have moved to a signed digest: no denial rests on an older answer.
func TestThreatDenialByAnOlderAnswer(t *testing.T) {
	set := policy.NewSet(policy.UncoveredAllow, []*policy.Policy{compiled(t, "production")})
	request := policy.Request{Image: app, Now: now, Arrived: now}
	failing(unreachable)(&request)
	evidence := byDigest{"v1": answered(time.Hour), digest("a"): signed("ci - a")}
	d := set.Decide(request, evidence)
	if d.Verdict != policy.CouldNotCheck || d.Outcomes[0].Reason != v1alpha1.ReasonUnreachable ||
		!strings.Contains(d.Message, "connection refused") || !slices.Contains(d.Consulted, tagKey) {
		t.Errorf("got %+v, want that it could not be checked because the registry is unreachable", d)
	}
	evidence["v1"] = answered(time.Second)
	if d := set.Decide(request, evidence); d.Verdict != policy.Denied {
		t.Errorf("got %+v with a fresh answer, want a denial", d)
	}
}

// A report fetches nothing: the answer counts until it ends, whatever the interval.
func TestReportUsesAnOldAnswer(t *testing.T) {
	report := func(r *policy.Request) { r.Report = true }
	always := answered(time.Hour)
	always.fresh, always.usable = 0, 0
	for name, test := range map[string]struct {
		answer *answer
		counts bool
	}{
		"an hour old":    {answered(time.Hour), true},
		"always queried": {always, true},
		"a day old":      {answered(24 * time.Hour), false},
	} {
		t.Run(name, func(t *testing.T) {
			d := decideTag(t, test.answer, report)
			if admitted := d.Verdict == policy.Admitted; admitted != test.counts || len(d.Warnings) > 0 {
				t.Errorf("got %+v, want admitted %t, without a warning", d, test.counts)
			}
		})
	}
}

// An older answer costs the decision from memory no allocation: only its warning does.
func TestAllocationsOfAnswers(t *testing.T) {
	set := policy.NewSet(policy.UncoveredAllow, []*policy.Policy{compiled(t, "production")})
	roots := byDigest{"v1": answered(time.Second), digest("a"): signed("ci - a", "qa - a")}
	without := byDigest{"v1": ageless{answered(time.Second)}, digest("a"): signed("ci - a", "qa - a")}
	allocations := func(roots policy.Roots) float64 {
		return testing.AllocsPerRun(100, func() {
			if d := set.Decide(policy.Request{Image: app, Now: now}, roots); d.Verdict != policy.Admitted {
				t.Fatal(d.Message)
			}
		})
	}
	if with, want := allocations(roots), allocations(without); with > want+1 { // see the race detector above
		t.Errorf("got %v allocations with an answer, want %v", with, want)
	}
}

// ageless is an answer that does not age.
type ageless struct{ trust.Evidence }
