package policy

import (
	"slices"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// enforce decides for the policies in mode Enforce, all of which must hold.
func (e *evaluation) enforce(image string, policies []*Policy) Decision {
	d := Decision{Image: e.image}
	blocked, required := false, false
	for _, p := range policies {
		blocked = blocked || e.blocked(p)
		required = required || len(p.requirements) > 0
	}
	if !blocked && !required {
		d.Verdict = Admitted
		return d
	}
	var c choice
	if !blocked {
		if c = e.choose(policies); c.unique() {
			d.Verdict, d.Digest, d.Pin = Admitted, c.digest, strongestPin(policies)
			return d
		}
	}
	if blocked || e.faulty(policies) {
		d.Verdict = CouldNotCheck
	}
	d.Message = line(image, e.explain(policies, c)...)
	d.Consulted = e.rootsWhere(policies, func(s *source) bool { return s.asked && !s.unloaded })
	return d
}

// advise evaluates the policies in mode Warn and Audit, each by itself: on the digest that was decided, or where none
// was, by the rules of the decision. Whatever it finds, the verdict stays.
func (e *evaluation) advise(image string, covering []*Policy, d *Decision) {
	on := *e
	if d.Digest != "" {
		on.image.Digest = d.Digest
	}
	for i, p := range covering {
		if p.enforces() {
			continue
		}
		alone := covering[i : i+1]
		var c choice
		if !on.blocked(p) {
			if len(p.requirements) == 0 {
				continue
			}
			if c = on.choose(alone); c.unique() {
				continue
			}
		}
		text := line(image, on.explain(alone, c)...)
		if p.mode == v1alpha1.ModeWarn {
			d.Warnings = append(d.Warnings, text)
		} else {
			d.Audits = append(d.Audits, text)
		}
	}
}

// blocked reports whether the policy cannot be evaluated: it cannot be read, or one of its trust roots is not there
// to be asked or is yet to be loaded. It then denies, whatever its other trust roots say.
func (e *evaluation) blocked(p *Policy) bool {
	if p.invalid != nil {
		return true
	}
	for _, root := range p.roots {
		if s := e.source(root); s == nil || s.unusable != nil || s.unloaded && len(p.requirements) > 0 {
			return true
		}
	}
	return false
}

// faulty reports whether any trust root that the policies need could not be checked. What is missing may then be there.
func (e *evaluation) faulty(policies []*Policy) bool {
	for _, p := range policies {
		for _, root := range p.roots {
			if s := e.source(root); s != nil && s.fault != nil && len(p.requirements) > 0 {
				return true
			}
		}
	}
	return false
}

// rootsWhere returns the names of the policies' trust roots that fulfil a condition, sorted and without repetition.
func (e *evaluation) rootsWhere(policies []*Policy, holds func(*source) bool) []string {
	var names []string
	for _, p := range policies {
		for _, root := range p.roots {
			if s := e.source(root); s != nil && holds(s) {
				names = append(names, root)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// unique reports whether exactly one digest was found.
func (c choice) unique() bool { return c.digest != "" && c.rival == "" }

// strongestPin returns the strongest pinDigests of the policies that require signatures.
func strongestPin(policies []*Policy) v1alpha1.PinDigests {
	pin := v1alpha1.PinNone
	for _, p := range policies {
		switch {
		case len(p.requirements) == 0:
		case p.pin == v1alpha1.PinAll:
			return v1alpha1.PinAll
		case p.pin == v1alpha1.PinPods:
			pin = v1alpha1.PinPods
		}
	}
	return pin
}
