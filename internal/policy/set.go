package policy

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
)

// Set is all policies of a cluster, indexed by the images that they cover. It is immutable and safe
// for concurrent use.
type Set struct {
	uncovered  Uncovered
	shortNames ShortNames
	policies   []*Policy // sorted by name; the index holds positions in it
	index      imageref.Index
}

// NewSet returns the set of the given policies. Their order does not matter. uncovered says what
// happens to an image that none of them covers. Short names are read as ShortNamesDockerIO says;
// ReadShortNames changes that.
func NewSet(uncovered Uncovered, policies []*Policy) *Set {
	return (&Set{uncovered: uncovered, shortNames: ShortNamesDockerIO}).With(policies)
}

// With returns a set of other policies that treats uncovered images and short names as s does.
func (s *Set) With(policies []*Policy) *Set {
	other := &Set{uncovered: s.uncovered, shortNames: s.shortNames, policies: slices.Clone(policies)}
	slices.SortStableFunc(other.policies, func(a, b *Policy) int { return strings.Compare(a.name, b.name) })
	for i, p := range other.policies {
		for _, pattern := range p.images {
			other.index.Add(pattern, i)
		}
	}
	return other
}

// ReadShortNames returns a set of the same policies that reads short names as given. Any other
// value than the constants counts as ShortNamesDeny.
func (s *Set) ReadShortNames(as ShortNames) *Set {
	other := *s
	other.shortNames = as
	return &other
}

// Distrusts reports whether the set decides on an image by ShortNamesDeny: whatever its patterns
// and signatures.
func (s *Set) Distrusts(image imageref.Ref) bool {
	return image.Short && s.shortNames != ShortNamesDockerIO
}

// covering appends the policies that cover an image to into, by name.
func (s *Set) covering(image imageref.Ref, namespace labels.Set, into []*Policy) []*Policy {
	var found [32]int
	for _, i := range s.index.Find(image, found[:0]) {
		if p := s.policies[i]; p.selector.Matches(namespace) && !p.except.Matches(image) {
			into = append(into, p)
		}
	}
	return into
}

// Covering returns the policies that cover an image in a namespace of the given labels, by name.
func (s *Set) Covering(image imageref.Ref, namespace labels.Set) []*Policy {
	return s.covering(image, namespace, nil)
}

// Consults returns the trust roots that an image is checked against in a namespace, sorted and
// without repetition.
func (s *Set) Consults(image imageref.Ref, namespace labels.Set) []string {
	if s.Distrusts(image) {
		return nil
	}
	var roots []string
	for _, p := range s.covering(image, namespace, nil) {
		if p.invalid == nil && len(p.requirements) > 0 {
			roots = append(roots, p.roots...)
		}
	}
	slices.Sort(roots)
	return slices.Compact(roots)
}

// All returns all policies, by name.
func (s *Set) All() []*Policy { return slices.Clone(s.policies) }

// HoldsIn reports whether a policy holds in a namespace of the given labels.
func (p *Policy) HoldsIn(namespace labels.Set) bool { return p.selector.Matches(namespace) }

// HoldingIn returns the policies that hold in a namespace of the given labels, by name, whatever
// images they cover.
func (s *Set) HoldingIn(namespace labels.Set) []*Policy {
	var all []*Policy
	for _, p := range s.policies {
		if p.selector.Matches(namespace) {
			all = append(all, p)
		}
	}
	return all
}

// Decide decides whether an image may run in a namespace. It reads evidence only of the trust roots
// of the policies that cover the image. Its time and its allocations do not depend on the number of
// other policies. It formats text only for denials, warnings and audits. For a short name under
// ShortNamesDeny alone it looks at every policy, and at no evidence.
func (s *Set) Decide(req Request, roots Roots) Decision {
	image, err := imageref.Parse(req.Image)
	if err != nil {
		return s.decideUnreadable(req, err)
	}
	if s.Distrusts(image) {
		return s.decideShort(req, image)
	}
	var buffer [8]*Policy
	covering := s.covering(image, req.NamespaceLabels, buffer[:0])
	if len(covering) == 0 {
		return s.decideUncovered(req, image)
	}
	e := newEvaluation(image, &req, roots)
	var decide [8]*Policy
	enforcing := decide[:0]
	for _, p := range covering {
		if p.enforces() {
			enforcing = append(enforcing, p)
		}
	}
	e.lookUpAll(covering)
	d := e.enforce(req.Image, enforcing)
	d.Outcomes = make([]Outcome, len(covering))
	e.setOutcomes(covering, &d)
	if len(enforcing) < len(covering) {
		e.advise(req.Image, covering, &d)
	}
	d.NotLoaded = e.notLoaded(covering, enforcing, &d)
	return d
}

func (s *Set) decideUncovered(req Request, image imageref.Ref) Decision {
	d := Decision{Verdict: Admitted, Image: image}
	switch s.uncovered {
	case UncoveredAllow:
	case UncoveredWarn:
		d.Warnings = []string{line(req.Image, part{text: "no ImagePolicy covers it"})}
	default:
		d.Verdict = Denied
		d.Message = line(req.Image, part{
			text: "no ImagePolicy covers it, and what none covers is denied here (--uncovered-images)",
		})
	}
	return d
}

// enforces reports whether the policy can deny. Every mode but Warn and Audit can.
func (p *Policy) enforces() bool {
	return p.mode != v1alpha1.ModeWarn && p.mode != v1alpha1.ModeAudit
}
