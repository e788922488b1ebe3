package policy

import (
	"errors"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// evaluation holds the evidence about one image while it is decided on: first the digests that the
// image may mean, then the signatures on each.
type evaluation struct {
	image   imageref.Ref
	now     time.Time
	arrived time.Time
	failed  map[trust.Key]error // as in Request
	report  bool
	// namespace is that of Request.
	namespace string
	roots     Roots
	evidence  []rootEvidence
}

// newEvaluation returns an evaluation of an image without evidence yet.
func newEvaluation(image imageref.Ref, req *Request, roots Roots) evaluation {
	e := evaluation{
		image: image, now: req.Now, arrived: req.Arrived, failed: req.Failed, report: req.Report, roots: roots,
		namespace: req.Namespace,
	}
	if e.arrived.IsZero() {
		e.arrived = e.now
	}
	return e
}

// rootEvidence is the evidence of one trust root about the image.
type rootEvidence struct {
	root     string
	unusable error // the TrustRoot is missing or not Ready
	needed   bool  // for evidence
	lookups  []lookup
	// live and expired are the statements about the image's tag, or where it has none about its
	// digest under any tag. hints are the digests that its tag may mean.
	live, expired []trust.Statement
	hints         []string
}

// lookup is the result of one look-up of a subject under a trust root. Exactly one of fault and
// evidence is set, and neither where the subject was never fetched or its answer is too old.
type lookup struct {
	subject  trust.Subject
	fault    error          // could not be checked
	evidence trust.Evidence // verified, and not expired by more than the grace
	grace    time.Duration
	// older says why no newer answer could be fetched. Evidence is then an older one, on which no
	// denial may rest.
	older *trust.Fault
	// outdated says that there is an answer, which is too old.
	outdated bool
}

func (a *lookup) unloaded() bool { return a.fault == nil && a.evidence == nil }

// relevant reports whether the look-up is about one of the candidates, or about which digests are
// candidates.
func (a *lookup) relevant(candidates []string) bool {
	return a.subject.Digest == "" || slices.Contains(candidates, a.subject.Digest)
}

// lookUpAll looks up which digests the image may mean, once for each trust root of the policies,
// and then the signatures on each of the digests.
func (e *evaluation) lookUpAll(covering []*Policy) {
	e.evidence = make([]rootEvidence, 0, len(covering[0].roots)) // most policies name the same
	for _, p := range covering {
		e.addRoots(p)
	}
	e.lookUpEach(e.image)
	if e.image.Digest != "" {
		return
	}
	for _, digest := range e.candidates(covering) {
		named := e.image
		named.Digest = digest
		e.lookUpEach(named)
	}
}

// addRoots adds the trust roots of the policy. A policy that requires nothing needs no evidence,
// and neither does one that denies in any case.
func (e *evaluation) addRoots(p *Policy) {
	if p.invalid != nil {
		return
	}
	for _, root := range p.roots {
		s := e.under(root)
		if s == nil {
			e.evidence = append(e.evidence, rootEvidence{root: root, unusable: e.roots.Usable(root)})
			s = &e.evidence[len(e.evidence)-1]
		}
		s.needed = s.needed || len(p.requirements) > 0 && s.unusable == nil
	}
}

// lookUpEach looks up the image, or one of its digests, under each trust root.
func (e *evaluation) lookUpEach(about imageref.Ref) {
	for i := range e.evidence {
		if s := &e.evidence[i]; s.needed {
			e.lookUp(s, about)
		}
	}
}

// lookUp looks up an image under one trust root, unless its subject was looked up already.
func (e *evaluation) lookUp(s *rootEvidence, about imageref.Ref) {
	subject := e.roots.Subject(s.root, about)
	if slices.ContainsFunc(s.lookups, func(a lookup) bool { return a.shared() == subject }) {
		return
	}
	k := trust.Key{Root: s.root, Subject: subject}
	a := e.read(k)
	if a.evidence == nil && e.lookUpTenant(s, k, &a) {
		return
	}
	e.add(s, &a)
}

func (e *evaluation) add(s *rootEvidence, a *lookup) {
	s.lookups = append(s.lookups, *a)
	e.collect(s, a)
}

// read returns the look-up of a subject.
func (e *evaluation) read(k trust.Key) lookup {
	a := lookup{subject: k.Subject}
	evidence, grace, err := e.roots.Evidence(k)
	a.grace = max(grace, 0)
	switch {
	case errors.Is(err, ErrNotLoaded):
	case err != nil:
		a.fault = err
	case evidence == nil:
		a.fault = errors.New("it gave no answer about this repository; try again, and look into the operator's log")
	default:
		a.evidence = evidence
		if notAfter, file := evidence.Expiry(); e.past(notAfter, a.grace) {
			a.evidence, a.fault = nil, trust.NewFault(v1alpha1.ReasonMetadataExpired,
				"%s expired at %s%s; it must be signed anew", file, notAfter.UTC().Format(time.RFC3339),
				graceOver(a.grace))
		}
		if answer, ok := evidence.(trust.Answer); ok {
			e.judgeAge(&a, answer, k.Root)
		}
	}
	return a
}

// judgeAge drops an answer that is too old for the request. An older one stays where the request
// has failed to fetch a newer one, because the server could not be queried.
func (e *evaluation) judgeAge(a *lookup, answer trust.Answer, root string) {
	if e.report {
		if a.outdated = !e.now.Before(answer.Ends()); a.outdated {
			a.evidence = nil
		}
		return
	}
	if trust.Timely(answer, e.arrived) {
		return
	}
	f, failed := errors.AsType[*trust.Fault](e.failed[trust.Key{Root: root, Subject: a.subject}])
	if failed && f.Unavailable() && e.now.Before(answer.Usable()) {
		a.older = f
		return
	}
	a.evidence, a.outdated = nil, true
}

// conclusive reports whether a denial may rest on the look-up.
func (a *lookup) conclusive() bool {
	return a.evidence != nil && a.older == nil && len(a.evidence.Faults()) == 0
}

// collect adds the statements and hints of a look-up to those of its trust root.
func (e *evaluation) collect(s *rootEvidence, a *lookup) {
	if a.evidence == nil {
		return
	}
	digest := ""
	if e.image.Tag == "" {
		digest = e.image.Digest
	}
	statements := a.evidence.Statements(e.image.Tag, digest)
	if tagOnly := func(st trust.Statement) bool { return st.TagOnly }; e.image.Tag == "" && !e.report &&
		slices.ContainsFunc(statements, tagOnly) {
		statements = slices.DeleteFunc(slices.Clone(statements), tagOnly) // the evidence shares them
	}
	expired := 0
	for i := range statements {
		if e.past(statements[i].NotAfter, a.grace) {
			expired++
		}
	}
	switch {
	case expired == 0 && s.live == nil:
		s.live = slices.Clip(statements)
	default:
		for _, st := range statements {
			if e.past(st.NotAfter, a.grace) {
				s.expired = append(s.expired, st)
			} else {
				s.live = append(s.live, st)
			}
		}
	}
	if e.image.Digest == "" {
		s.hints = append(s.hints, a.evidence.Hints(e.image.Tag)...)
	}
}

func (e *evaluation) under(root string) *rootEvidence {
	for i := range e.evidence {
		if e.evidence[i].root == root {
			return &e.evidence[i]
		}
	}
	return nil
}

// past reports whether an expiry time, extended by a grace, has passed. As in TUF, what expires now
// has expired. The zero time never passes.
func (e *evaluation) past(notAfter time.Time, grace time.Duration) bool {
	return !notAfter.IsZero() && !e.now.Before(notAfter.Add(grace))
}

// candidates returns the digests that the image may mean, sorted: its own; or those that roles of
// the policies have signed for its tag, and the hints.
func (e *evaluation) candidates(policies []*Policy) []string {
	if e.image.Digest != "" {
		return []string{e.image.Digest}
	}
	var digests []string
	for i := range e.evidence {
		s := &e.evidence[i]
		if !slices.ContainsFunc(policies, func(p *Policy) bool { return slices.Contains(p.roots, s.root) }) {
			continue
		}
		for n := range s.live {
			if st := &s.live[n]; e.names(st) && accept(policies, s.root, st.Role) &&
				!slices.Contains(digests, st.Digest) && imageref.ValidDigest(st.Digest) {
				digests = append(digests, st.Digest)
			}
		}
		for _, digest := range s.hints {
			if !slices.Contains(digests, digest) && imageref.ValidDigest(digest) {
				digests = append(digests, digest)
			}
		}
	}
	slices.Sort(digests)
	return digests
}

// names reports whether a statement is about the image's tag, and so names a digest for it. A
// statement without a tag does not.
func (e *evaluation) names(st *trust.Statement) bool { return st.Tag != "" && st.Tag == e.image.Tag }

// signed reports whether a trust root of the policy proves that the role has signed the digest.
func (e *evaluation) signed(p *Policy, role, digest string) bool {
	for _, root := range p.roots {
		s := e.under(root)
		if s == nil {
			continue
		}
		for i := range s.live {
			if st := &s.live[i]; st.Role == role && st.Digest == digest {
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

// choice is the digest of the image that meets the policies.
type choice struct {
	digest string
	rival  string // a second digest that the same root proves as well: then neither may run
	root   string // the trust root that proves it
}

// unique reports whether exactly one digest was found.
func (c choice) unique() bool { return c.digest != "" && c.rival == "" }

// choose returns the digest that meets all of the policies: the image's own; or for a tag the only
// acceptable digest of the first root that names any.
func (e *evaluation) choose(policies []*Policy) choice {
	if e.image.Digest != "" {
		if e.meets(policies, e.image.Digest) {
			return choice{digest: e.image.Digest}
		}
		return choice{}
	}
	for root := range rootsInOrder(policies) {
		if c := e.chooseFrom(e.under(root), policies); c.digest != "" {
			return c
		}
	}
	return choice{}
}

// chooseFrom returns the acceptable digest among those that a trust root names: by statements of
// roles that the policies require from it, or by hints.
func (e *evaluation) chooseFrom(s *rootEvidence, policies []*Policy) choice {
	var c choice
	if s == nil {
		return c
	}
	try := func(digest string) {
		if digest == c.digest || c.rival != "" || !imageref.ValidDigest(digest) || !e.meets(policies, digest) {
			return
		}
		if c.digest != "" {
			c.rival = digest
			return
		}
		c = choice{digest: digest, root: s.root}
	}
	for i := range s.live {
		if st := &s.live[i]; e.names(st) && accept(policies, s.root, st.Role) {
			try(st.Digest)
		}
	}
	for _, digest := range s.hints {
		try(digest)
	}
	return c
}

// accept reports whether any of the policies accepts the root's statements about the role.
func accept(policies []*Policy, root, role string) bool {
	for _, p := range policies {
		if slices.Contains(p.roots, root) && slices.Contains(p.roles, role) {
			return true
		}
	}
	return false
}

// rootsInOrder yields the trust roots of the policies in the order in which they decide. It yields
// a root of several policies several times.
func rootsInOrder(policies []*Policy) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, p := range policies {
			for _, root := range p.roots {
				if !yield(root) {
					return
				}
			}
		}
	}
}
