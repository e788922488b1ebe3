package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// onGrace warns where the policies hold for the digest only because the grace of a trust root is not over yet.
func (e *evaluation) onGrace(image string, policies []*Policy, digest string) []string {
	if !slices.ContainsFunc(e.sources, func(s source) bool { return s.grace > 0 }) {
		return nil
	}
	strict := *e
	strict.sources = slices.Clone(e.sources)
	for i := range strict.sources {
		s := &strict.sources[i]
		s.grace = 0
		if s.evidence == nil {
			continue
		}
		if notAfter, _ := s.evidence.Expiry(); e.past(s, notAfter) {
			s.evidence = nil
		}
	}
	if strict.meets(policies, digest) {
		return nil
	}
	var parts []part
	for i := range e.sources {
		if text := e.graceOf(&e.sources[i], digest); text != "" {
			parts = append(parts, part{text: text})
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return strings.Compare(a.text, b.text) })
	return []string{line(image, parts...)}
}

// graceOf says what of a source has expired and is used all the same; empty where nothing is.
func (e *evaluation) graceOf(s *source, digest string) string {
	if s.evidence == nil || s.grace == 0 {
		return ""
	}
	ended := *s
	ended.grace = 0
	notAfter, what := s.evidence.Expiry()
	if !e.past(&ended, notAfter) {
		notAfter = time.Time{}
		for _, st := range slices.Concat(e.about(s), s.evidence.Digest(digest)) {
			if st.Digest == digest && e.past(&ended, st.NotAfter) && !e.past(s, st.NotAfter) && (notAfter.IsZero() || st.NotAfter.Before(notAfter)) {
				notAfter, what = st.NotAfter, "the signature of "+roleText(st.Role)
			}
		}
	}
	if notAfter.IsZero() {
		return ""
	}
	return fmt.Sprintf("admitted on spec.expiredGrace of TrustRoot %q, until %s: %s expired at %s, and the signing server could not be asked for newer signatures",
		s.root, notAfter.Add(s.grace).UTC().Format(time.RFC3339), clean(what), notAfter.UTC().Format(time.RFC3339))
}

// graceOver says that a grace did not help.
func graceOver(s *source) string {
	if s.grace == 0 {
		return ""
	}
	return fmt.Sprintf(", more than spec.expiredGrace (%s) ago", s.grace)
}
