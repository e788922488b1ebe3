package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// onGrace returns a warning where the policies hold for the digest only thanks to the grace of a
// trust root.
func (e *evaluation) onGrace(image string, policies []*Policy, digest string) []string {
	strict, graced := e.strict()
	if !graced || strict.meets(policies, digest) {
		return nil
	}
	var parts []part
	for i := range e.evidence {
		s := &e.evidence[i]
		for n := range s.lookups {
			if text := e.graceOf(s.root, &s.lookups[n], digest); text != "" {
				parts = append(parts, part{text: text})
			}
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return strings.Compare(a.text, b.text) })
	return []string{line(image, parts...)}
}

// strict returns the evaluation without any grace, and whether a grace applies at all.
func (e *evaluation) strict() (strict *evaluation, graced bool) {
	for i := range e.evidence {
		graced = graced || slices.ContainsFunc(e.evidence[i].lookups, func(a lookup) bool { return a.grace > 0 })
	}
	if !graced {
		return nil, false
	}
	s := *e
	s.evidence = slices.Clone(e.evidence)
	for i := range s.evidence {
		one := &s.evidence[i]
		one.lookups, one.live, one.expired, one.hints = slices.Clone(one.lookups), nil, nil, nil
		for n := range one.lookups {
			a := &one.lookups[n]
			a.grace = 0
			if a.evidence == nil {
				continue
			}
			if notAfter, _ := a.evidence.Expiry(); e.past(notAfter, 0) {
				a.evidence = nil
			}
			s.collect(one, a)
		}
	}
	return &s, true
}

// graceOf says which evidence of a look-up has expired and is used on the grace; empty: none.
func (e *evaluation) graceOf(root string, a *lookup, digest string) string {
	if a.evidence == nil || a.grace == 0 {
		return ""
	}
	notAfter, what := a.evidence.Expiry()
	if !e.past(notAfter, 0) {
		notAfter = time.Time{}
		for _, st := range a.evidence.Statements(e.image.Tag, digest) {
			if e.past(st.NotAfter, 0) && !e.past(st.NotAfter, a.grace) &&
				(notAfter.IsZero() || st.NotAfter.Before(notAfter)) {
				notAfter, what = st.NotAfter, "the signature of "+roleText(st.Role)
			}
		}
	}
	if notAfter.IsZero() {
		return ""
	}
	return fmt.Sprintf(
		"admitted on spec.expiredGrace of TrustRoot %q, until %s: %s expired at %s, and the signing server could not "+
			"be asked for newer signatures",
		root, notAfter.Add(a.grace).UTC().Format(time.RFC3339), clean(what), notAfter.UTC().Format(time.RFC3339))
}

// graceOver says that the grace is over as well; empty where there is none.
func graceOver(grace time.Duration) string {
	if grace == 0 {
		return ""
	}
	return fmt.Sprintf(", more than spec.expiredGrace (%s) ago", grace)
}
