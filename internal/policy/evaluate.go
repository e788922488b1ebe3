package policy

import (
	"errors"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// evaluation is what is known about one image while it is decided on.
type evaluation struct {
	image   imageref.Ref
	now     time.Time
	roots   Roots
	sources []source
}

// source is one trust root, as it answered for the image's repository.
type source struct {
	root     string
	unusable error          // the TrustRoot is missing or not Ready
	asked    bool           // for evidence: exactly one of the following is then set
	unloaded bool           // nobody has asked for the repository yet
	fault    error          // could not be checked
	evidence trust.Evidence // verified, and not expired by more than the grace
	grace    time.Duration
}

// consult asks each trust root of the policy that was not asked yet. Where nothing is required no evidence is needed,
// and that of a policy which denies in any case is not looked at.
func (e *evaluation) consult(p *Policy) {
	if p.invalid != nil {
		return
	}
	for _, root := range p.roots {
		s := e.source(root)
		if s == nil {
			e.sources = append(e.sources, source{root: root, unusable: e.roots.Usable(root)})
			s = &e.sources[len(e.sources)-1]
		}
		if len(p.requirements) > 0 && !s.asked && s.unusable == nil {
			e.ask(s)
		}
	}
}

func (e *evaluation) ask(s *source) {
	s.asked = true
	evidence, grace, err := e.roots.Evidence(s.root, e.image)
	s.grace = max(grace, 0)
	switch {
	case errors.Is(err, ErrNotLoaded):
		s.unloaded = true
		return
	case err != nil:
		s.fault = err
		return
	case evidence == nil:
		s.fault = errors.New("it gave no answer about this repository; try again, and look into the operator's log")
		return
	}
	if notAfter, file := evidence.Expiry(); e.past(s, notAfter) {
		s.fault = trust.NewFault(v1alpha1.ReasonMetadataExpired,
			"%s expired at %s%s; it must be signed anew", file, notAfter.UTC().Format(time.RFC3339), graceOver(s))
		return
	}
	s.evidence = evidence
}

func (e *evaluation) source(root string) *source {
	for i := range e.sources {
		if e.sources[i].root == root {
			return &e.sources[i]
		}
	}
	return nil
}

// past reports whether a time of expiry has come, and the grace of the source after it. As in TUF, what expires now has
// expired. Zero never comes.
func (e *evaluation) past(s *source, notAfter time.Time) bool {
	return !notAfter.IsZero() && !e.now.Before(notAfter.Add(s.grace))
}

// about returns the statements of one source that may speak for the image: those about its tag, or where it has none those
// about its digest, under any tag.
func (e *evaluation) about(s *source) []trust.Statement {
	switch {
	case s == nil || s.evidence == nil:
		return nil
	case e.image.Tag != "":
		return s.evidence.Tag(e.image.Tag)
	}
	return s.evidence.Digest(e.image.Digest)
}

// signed reports whether a trust root of the policy proves that the role has signed the digest: for the image's tag,
// where it has one, unless the format signs digests alone.
func (e *evaluation) signed(p *Policy, role, digest string) bool {
	for _, root := range p.roots {
		s := e.source(root)
		for _, st := range e.about(s) {
			if st.Role == role && st.Digest == digest && !e.past(s, st.NotAfter) {
				return true
			}
		}
		if e.image.Tag == "" || s == nil || s.evidence == nil {
			continue
		}
		for _, st := range s.evidence.Digest(digest) {
			if st.Tag == "" && st.Role == role && st.Digest == digest && !e.past(s, st.NotAfter) {
				return true
			}
		}
	}
	return false
}

// count returns how many distinct roles of a requirement have signed the digest.
func (e *evaluation) count(p *Policy, r requirement, digest string) int {
	n := 0
	for _, role := range r.roles {
		if e.signed(p, role, digest) {
			n++
		}
	}
	return n
}

// meets reports whether the digest meets every requirement of every one of the policies.
func (e *evaluation) meets(policies []*Policy, digest string) bool {
	for _, p := range policies {
		for _, r := range p.requirements {
			if e.count(p, r, digest) < r.need {
				return false
			}
		}
	}
	return true
}

// choice is which digest of the image meets the policies.
type choice struct {
	digest string
	rival  string // a second digest, that the same root proves as well: then neither may run
	root   string // that root
}

// choose finds the digest that meets all of the policies: the image's own, or that of its tag on which the first root
// that has any acceptable digest is unambiguous.
func (e *evaluation) choose(policies []*Policy) choice {
	if e.image.Digest != "" {
		if e.meets(policies, e.image.Digest) {
			return choice{digest: e.image.Digest}
		}
		return choice{}
	}
	for _, p := range policies {
		for _, root := range p.roots {
			// A root of several policies is looked at again, and comes to nothing again.
			if c := e.chooseFrom(e.source(root), policies); c.digest != "" {
				return c
			}
		}
	}
	return choice{}
}

func (e *evaluation) chooseFrom(s *source, policies []*Policy) choice {
	var c choice
	for _, st := range e.about(s) {
		if st.Digest == c.digest || e.past(s, st.NotAfter) || !imageref.ValidDigest(st.Digest) ||
			!speaksFor(policies, s.root, st.Role) || !e.meets(policies, st.Digest) {
			continue
		}
		if c.digest != "" {
			c.rival = st.Digest
			return c
		}
		c = choice{digest: st.Digest, root: s.root}
	}
	return c
}

// speaksFor reports whether any of the policies takes the word of the root for the role.
func speaksFor(policies []*Policy, root, role string) bool {
	for _, p := range policies {
		if slices.Contains(p.roots, root) && slices.Contains(p.roles, role) {
			return true
		}
	}
	return false
}
