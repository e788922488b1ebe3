package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/internal/trust"
)

// Bounds of the text about signatures that do not count, for one trust root.
const (
	maxRejected      = 4
	maxRejectionText = 400
)

// rejections lists, for each trust root of the policy, the signatures that exist or were expected
// and prove no missing role.
func (e *evaluation) rejections(p *Policy) string {
	var texts []string
	for _, root := range p.roots {
		s := e.under(root)
		all := e.rejected(p, s)
		if len(all) == 0 {
			continue
		}
		said := make([]string, 0, maxRejected)
		for _, r := range all[:min(len(all), maxRejected)] {
			said = append(said, cleanTo(r.Sentence(short), maxRejectionText))
		}
		text := strings.Join(said, "; ")
		if more := len(all) - maxRejected; more > 0 {
			text += fmt.Sprintf("; and %d more", more)
		}
		texts = append(texts, fmt.Sprintf("%s (TrustRoot %q)", text, root))
	}
	return join(texts...)
}

// rejected returns the rejections of the image under a trust root, for the policy's unmet roles.
func (e *evaluation) rejected(p *Policy, s *rootEvidence) []trust.Rejection {
	if s == nil {
		return nil
	}
	roles := e.unmetRoles(p)
	var all []trust.Rejection
	for i := range s.lookups {
		if a := &s.lookups[i]; a.evidence != nil {
			all = append(all, a.evidence.Rejected(roles, e.image.Tag, e.image.Digest)...)
		}
	}
	return all
}

// unmetRoles returns the roles that have not signed, from the requirements that a digest of the
// image does not meet.
func (e *evaluation) unmetRoles(p *Policy) []string {
	digests := e.candidates([]*Policy{p})
	if len(digests) == 0 {
		digests = []string{""}
	}
	var roles []string
	for _, r := range p.requirements {
		for _, digest := range digests {
			if e.count(p, r, digest) >= r.need {
				continue
			}
			for _, role := range r.roles {
				if !slices.Contains(roles, role) && !e.signed(p, role, digest) {
					roles = append(roles, role)
				}
			}
		}
	}
	return roles
}

// explainUnsigned says that no role has signed, for the trust roots without a statement. none is
// the text where nothing more is known.
func (e *evaluation) explainUnsigned(p *Policy, none string, silent []*rootEvidence) string {
	var phrases []string
	by := map[string][]*rootEvidence{}
	for _, s := range silent {
		phrase := none
		if s.unsigned() {
			phrase = "no trust data for this repository"
		} else if e.uncounted(p, s) {
			phrase = none + " that count"
		}
		if by[phrase] == nil {
			phrases = append(phrases, phrase)
		}
		by[phrase] = append(by[phrase], s)
	}
	texts := make([]string, 0, len(phrases))
	for _, phrase := range phrases {
		texts = append(texts, fmt.Sprintf("%s (%s)", phrase, rootNames(by[phrase])))
	}
	return strings.Join(texts, ", ")
}

// uncounted reports whether a trust root knows signatures that do not count: on the image, or in a
// file that as a whole does not count.
func (e *evaluation) uncounted(p *Policy, s *rootEvidence) bool {
	ofOne := *p
	ofOne.roots = []string{s.root}
	return e.expired(&ofOne) != "" ||
		slices.ContainsFunc(e.rejected(p, s), func(r trust.Rejection) bool { return r.Digest != "" || r.Void })
}

func rootNames(sources []*rootEvidence) string {
	names := make([]string, 0, len(sources))
	for _, s := range sources {
		names = append(names, fmt.Sprintf("TrustRoot %q", s.root))
	}
	return list(names)
}

// unsigned reports whether no look-up under the trust root found any signatures in the repository.
// A look-up of one tag or digest says nothing about the others.
func (s *rootEvidence) unsigned() bool {
	return !slices.ContainsFunc(s.lookups, func(a lookup) bool {
		_, unsigned := a.evidence.(trust.Unsigned)
		return !unsigned || a.subject.Tag != "" || a.subject.Digest != ""
	})
}

// lookedUp names the repository as the trust roots of the policy looked it up, where the workload
// has another name.
func (e *evaluation) lookedUp(p *Policy) string {
	var texts []string
	for _, root := range p.roots {
		s := e.under(root)
		if s == nil {
			continue
		}
		for i := range s.lookups {
			name := s.lookups[i].subject.Name()
			text := fmt.Sprintf("looked up as %s (TrustRoot %q)", quote(name, maxImageText), root)
			if (e.image.Short || name != cmp.Or(e.image.Written, e.image.Repository())) &&
				!slices.Contains(texts, text) {
				texts = append(texts, text)
			}
		}
	}
	return list(texts)
}
