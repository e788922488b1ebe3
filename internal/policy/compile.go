package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
)

// Policy is a compiled ImagePolicy. It is immutable.
type Policy struct {
	name         string
	mode         v1alpha1.PolicyMode
	pin          v1alpha1.PinDigests
	help         string // on one line
	images       []imageref.Pattern
	except       imageref.Index
	everything   bool // every image of every registry is covered
	selector     labels.Selector
	roots        []string
	requirements []requirement
	roles        []string // of all requirements
	invalid      error    // the error of Compile; the policy then denies its scope
}

// requirement is met when at least need of its roles have signed. A single role is one of one.
type requirement struct {
	roles []string
	need  int
	anyOf bool
}

// Compile compiles the spec of an ImagePolicy. It always returns a policy. Where it also returns an
// error, which names the field, the policy denies its scope, and its scope is as wide as the spec
// could mean: an invalid pattern covers every image, an invalid selector selects every namespace,
// and an invalid exception excepts nothing. Compile repeats the checks of the CRD, since an object
// may be older than its CRD.
func Compile(name string, spec *v1alpha1.ImagePolicySpec) (*Policy, error) {
	p := &Policy{name: name, mode: v1alpha1.ModeEnforce, pin: v1alpha1.PinPods, selector: labels.Everything()}
	if spec == nil {
		spec = &v1alpha1.ImagePolicySpec{}
	}
	p.help = cleanTo(spec.Help, maxHelp)
	p.invalid = joinErrors(
		p.compileScope(spec),
		p.compileMode(spec),
		p.compileRoots(spec),
		p.compileRequirements(spec),
	)
	return p, p.invalid
}

// everything is the pattern of every image. It replaces an invalid pattern.
const everything = "*/**"

func (p *Policy) compileScope(spec *v1alpha1.ImagePolicySpec) error {
	var errs []error
	for i, s := range spec.Images {
		pattern, err := imageref.ParsePattern(string(s))
		if err != nil {
			errs = append(errs, fmt.Errorf("spec.images[%d]: %w", i, err))
			continue
		}
		p.images = append(p.images, pattern)
	}
	if len(spec.Images) == 0 {
		errs = append(errs, errors.New("spec.images: name at least one pattern"))
	}
	if len(errs) > 0 {
		all, err := imageref.ParsePattern(everything)
		p.images, errs = append(p.images, all), append(errs, err)
	}
	p.everything = len(spec.ExceptImages) == 0 &&
		slices.ContainsFunc(p.images, func(p imageref.Pattern) bool { return p.String() == everything })
	for i, s := range spec.ExceptImages {
		pattern, err := imageref.ParsePattern(string(s))
		if err != nil {
			errs = append(errs, fmt.Errorf("spec.exceptImages[%d]: %w", i, err))
			continue
		}
		p.except.Add(pattern, i)
	}
	if spec.NamespaceSelector != nil {
		selector, err := compileSelector(spec.NamespaceSelector)
		if err != nil {
			errs = append(errs, err)
		} else {
			p.selector = selector
		}
	}
	return joinErrors(errs...)
}

func (p *Policy) compileMode(spec *v1alpha1.ImagePolicySpec) error {
	var errs []error
	switch spec.Mode {
	case v1alpha1.ModeEnforce, v1alpha1.ModeWarn, v1alpha1.ModeAudit:
		p.mode = spec.Mode
	case "":
	default:
		errs = append(errs, fmt.Errorf("spec.mode: %q is none of Enforce, Warn and Audit", spec.Mode))
	}
	switch spec.PinDigests {
	case v1alpha1.PinPods, v1alpha1.PinAll, v1alpha1.PinNone:
		p.pin = spec.PinDigests
	case "":
	default:
		errs = append(errs, fmt.Errorf("spec.pinDigests: %q is none of Pods, All and None", spec.PinDigests))
	}
	return joinErrors(errs...)
}

func (p *Policy) compileRoots(spec *v1alpha1.ImagePolicySpec) error {
	for i, root := range spec.TrustRoots {
		if root == "" {
			return fmt.Errorf("spec.trustRoots[%d]: name a TrustRoot", i)
		}
		if !slices.Contains(p.roots, string(root)) {
			p.roots = append(p.roots, string(root))
		}
	}
	if len(p.roots) == 0 && len(spec.RequiredRoles) > 0 {
		return errors.New("spec.trustRoots: name at least one TrustRoot")
	}
	return nil
}

func (p *Policy) compileRequirements(spec *v1alpha1.ImagePolicySpec) error {
	allowUnsigned := spec.AllowUnsigned != nil && *spec.AllowUnsigned
	switch {
	case allowUnsigned && spec.RequiredRoles == nil:
		return nil
	case spec.AllowUnsigned != nil || spec.RequiredRoles == nil:
		return errors.New("spec: set exactly one of requiredRoles, not empty, and allowUnsigned, to true")
	case len(spec.RequiredRoles) == 0:
		return errors.New("spec.requiredRoles: require at least one role")
	}
	var errs []error
	for i, r := range spec.RequiredRoles {
		compiled, err := compileRequirement(r)
		if err != nil {
			errs = append(errs, fmt.Errorf("spec.requiredRoles[%d]%w", i, err))
			continue
		}
		p.requirements = append(p.requirements, compiled)
		for _, role := range compiled.roles {
			if !slices.Contains(p.roles, role) {
				p.roles = append(p.roles, role)
			}
		}
	}
	return joinErrors(errs...)
}

func compileRequirement(r v1alpha1.RoleRequirement) (requirement, error) {
	if (r.Role != "") == (r.AnyOf != nil) {
		return requirement{}, errors.New(": set exactly one of role and anyOf")
	}
	if r.Role != "" {
		if r.Threshold != nil {
			return requirement{}, errors.New(".threshold: goes with anyOf; a single role is always required")
		}
		return requirement{roles: []string{string(r.Role)}, need: 1}, nil
	}
	c := requirement{need: 1, anyOf: true}
	for i, role := range r.AnyOf {
		if role == "" {
			return requirement{}, fmt.Errorf(".anyOf[%d]: name a role", i)
		}
		if !slices.Contains(c.roles, string(role)) {
			c.roles = append(c.roles, string(role))
		}
	}
	if r.Threshold != nil {
		c.need = int(*r.Threshold)
	}
	if c.need < 1 || c.need > len(c.roles) {
		return requirement{}, fmt.Errorf(".threshold: %d is not from 1 to the number of distinct roles in anyOf, %d",
			c.need, len(c.roles))
	}
	return c, nil
}

// Name returns the name of the ImagePolicy.
func (p *Policy) Name() string { return p.name }

// Mode returns the mode of the policy.
func (p *Policy) Mode() v1alpha1.PolicyMode { return p.mode }

// Ready returns nil where the policy can be evaluated: its spec is valid, and every trust root that
// it names is usable. Otherwise the policy denies its scope, for the reason of the error.
func (p *Policy) Ready(roots Roots) error {
	if p.invalid != nil {
		return p.invalid
	}
	for _, root := range p.roots {
		if err := roots.Usable(root); err != nil {
			return err
		}
	}
	return nil
}

// Roles returns the requirements for a column: "ci,qa,2 of 3". It is "none" where nothing is
// required, and empty where the spec is invalid.
func (p *Policy) Roles() string {
	if len(p.requirements) == 0 && p.invalid == nil {
		return "none"
	}
	short := make([]string, 0, len(p.requirements))
	for _, r := range p.requirements {
		short = append(short, r.short())
	}
	return strings.Join(short, ",")
}

// TrustRoots returns the names of the trust roots, for a column: "acme-notary,acme-tuf".
func (p *Policy) TrustRoots() string { return strings.Join(p.roots, ",") }

func (r requirement) short() string {
	if r.anyOf {
		return fmt.Sprintf("%d of %d", r.need, len(r.roles))
	}
	return r.roles[0]
}

// fieldErrors joins errors about fields of one spec on one line, for a condition and for denials.
type fieldErrors []error

func (e fieldErrors) Error() string {
	texts := make([]string, 0, len(e))
	for _, err := range e {
		texts = append(texts, withheld(err.Error()))
	}
	return strings.Join(texts, "; ")
}

func (e fieldErrors) Unwrap() []error { return e }

func joinErrors(errs ...error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 0 {
		return nil
	}
	return fieldErrors(errs)
}
