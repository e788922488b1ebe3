package policy_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const app = "registry.example.com/acme/app:v1"

// digest returns a digest that consists of one letter.
func digest(letter string) string { return "sha256:" + strings.Repeat(letter, 64) }

// held is the evidence of one repository.
type held struct {
	statements []trust.Statement
	notAfter   time.Time
	grace      time.Duration
}

// signed returns evidence with statements such as "ci v1 a": ci signed digest a as v1. With the tag
// "-" the statement has no tag, as in formats that sign only digests.
func signed(statements ...string) *held {
	h := &held{}
	for _, s := range statements {
		f := strings.Fields(s)
		h.statements = append(h.statements, trust.Statement{
			Role: f[0], Tag: strings.Trim(f[1], "-"), Digest: digest(f[2]),
		})
	}
	h.sort()
	return h
}

func (h *held) sort() {
	slices.SortFunc(h.statements, func(a, b trust.Statement) int {
		return strings.Compare(a.Digest+" "+a.Role+" "+a.Tag, b.Digest+" "+b.Role+" "+b.Tag)
	})
}

func (h *held) until(t time.Time) *held {
	h.notAfter = t
	return h
}

// lasting sets the expiry of every statement of a role.
func (h *held) lasting(role string, t time.Time) *held {
	for i := range h.statements {
		if h.statements[i].Role == role {
			h.statements[i].NotAfter = t
		}
	}
	return h
}

func (*held) Hints(string) []string { return nil }

func (h *held) Statements(tag, digest string) []trust.Statement {
	return h.where(func(s trust.Statement) bool {
		return (tag == "" || s.Tag == "" || s.Tag == tag) && (digest == "" || s.Digest == digest)
	})
}

func (*held) Rejected([]string, string, string) []trust.Rejection { return nil }

func (*held) Signed() bool { return true }

func (*held) Faults() []*trust.Fault { return nil }

func (h *held) where(holds func(trust.Statement) bool) []trust.Statement {
	return slices.DeleteFunc(slices.Clone(h.statements), func(s trust.Statement) bool { return !holds(s) })
}

func (h *held) Expiry() (time.Time, string) {
	return h.notAfter, "timestamp.json of registry.example.com/acme/app"
}

// roots has trust roots by name: their evidence, an error of Evidence, or unusable. A root without
// an entry does not exist.
type roots map[string]any

type unusable string

func (r roots) Usable(root string) error {
	switch v := r[root].(type) {
	case nil:
		return trust.NewFault(v1alpha1.ReasonTrustRootNotFound, "TrustRoot %q does not exist", root)
	case unusable:
		return trust.NewFault(v1alpha1.ReasonTrustRootNotReady, "TrustRoot %q is not ready: %s", root, string(v))
	}
	return nil
}

func (r roots) Subject(root string, image imageref.Ref) trust.Subject {
	if m, ok := r[root].(mapped); ok {
		return trust.Subject{Repository: m.as}
	}
	return trust.Subject{Repository: image.Repository()}
}

func (roots) Tenant(trust.Key, string) (trust.Key, bool) { return trust.Key{}, false }

func (r roots) Evidence(about trust.Key) (trust.Evidence, time.Duration, error) {
	root := about.Root
	switch v := r[root].(type) {
	case mapped:
		return roots{root: v.answer}.Evidence(about)
	case explained:
		return v, 0, nil
	case *held:
		return v, v.grace, nil
	case trust.Unsigned:
		return v, 0, nil
	case error:
		return nil, 0, v
	case nothing:
		return nil, 0, nil
	}
	return nil, 0, fmt.Errorf("got a call of Evidence for %s, which is not usable", root)
}

// mapped is the evidence of a root that looks up a repository under another name.
type mapped struct {
	as     string
	answer any
}

// explained is evidence with rejected signatures.
type explained struct {
	*held
	rejected []trust.Rejection
	asked    *[]string // receives the arguments of each call, unless nil
}

func (e explained) Rejected(roles []string, tag, digest string) []trust.Rejection {
	if e.asked != nil {
		*e.asked = append(*e.asked, fmt.Sprintf("%s %q %q", strings.Join(roles, ","), tag, digest))
	}
	return e.rejected
}

// nothing makes Evidence return neither evidence nor an error.
type nothing struct{}

var unreachable = trust.NewFault(v1alpha1.ReasonUnreachable, "get https://notary.example.com: connection refused")

// edit changes a spec.
type edit func(*v1alpha1.ImagePolicySpec)

func images(patterns ...v1alpha1.ImagePattern) edit {
	return func(s *v1alpha1.ImagePolicySpec) { s.Images = patterns }
}

func from(roots ...v1alpha1.ObjectName) edit {
	return func(s *v1alpha1.ImagePolicySpec) { s.TrustRoots = roots }
}

// requires returns an edit that sets requirements, such as "qa" or "2 of a b c".
func requires(requirements ...string) edit {
	return func(s *v1alpha1.ImagePolicySpec) {
		s.RequiredRoles = nil
		for _, text := range requirements {
			r := v1alpha1.RoleRequirement{Role: v1alpha1.RoleName(text)}
			if f := strings.Fields(text); len(f) > 2 {
				var need int32
				if _, err := fmt.Sscan(f[0], &need); err != nil {
					panic(err)
				}
				r = v1alpha1.RoleRequirement{Threshold: ptr.To(need)}
				for _, role := range f[2:] {
					r.AnyOf = append(r.AnyOf, v1alpha1.RoleName(role))
				}
			}
			s.RequiredRoles = append(s.RequiredRoles, r)
		}
	}
}

func mode(m v1alpha1.PolicyMode) edit { return func(s *v1alpha1.ImagePolicySpec) { s.Mode = m } }

func help(text string) edit { return func(s *v1alpha1.ImagePolicySpec) { s.Help = text } }

func pin(p v1alpha1.PinDigests) edit { return func(s *v1alpha1.ImagePolicySpec) { s.PinDigests = p } }

func unsignedAllowed(s *v1alpha1.ImagePolicySpec) {
	s.RequiredRoles, s.TrustRoots, s.AllowUnsigned = nil, nil, ptr.To(true)
}

// spec returns the spec of a policy that needs ci and qa from the root acme-notary, edited.
func spec(edits ...edit) *v1alpha1.ImagePolicySpec {
	s := &v1alpha1.ImagePolicySpec{
		Images:     []v1alpha1.ImagePattern{"registry.example.com/acme/**"},
		TrustRoots: []v1alpha1.ObjectName{"acme-notary"},
		Mode:       v1alpha1.ModeEnforce,
		PinDigests: v1alpha1.PinPods,
	}
	requires("ci", "qa")(s)
	for _, e := range edits {
		e(s)
	}
	return s
}

func compiled(tb testing.TB, name string, edits ...edit) *policy.Policy {
	tb.Helper()
	p, err := policy.Compile(name, spec(edits...))
	if err != nil {
		tb.Fatalf("compile %s: %v", name, err)
	}
	return p
}

// broken returns a policy from a spec that does not compile.
func broken(tb testing.TB, name string, edits ...edit) *policy.Policy {
	tb.Helper()
	p, err := policy.Compile(name, spec(edits...))
	if err == nil {
		tb.Fatalf("compile %s: no error", name)
	}
	return p
}

func decide(image string, r roots, policies ...*policy.Policy) policy.Decision {
	return policy.NewSet(policy.UncoveredAllow, policies).Decide(policy.Request{Image: image, Now: now}, r)
}

var errUntyped = errors.New("something else")
