package policy

import (
	"slices"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// enforce decides for the policies in mode Enforce, all of which must hold.
func (e *evaluation) enforce(image string, policies []*Policy) Decision {
	d := Decision{Image: e.image, Pin: strongestPin(policies)}
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
			d.Verdict, d.Digest = Admitted, c.digest
			d.Warnings = e.onGrace(image, policies, c.digest)
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
		var c choice
		if d.Outcomes[i], c = on.alone(p); d.Outcomes[i].Verdict == Admitted {
			continue
		}
		text := line(image, on.explain(covering[i:i+1], c)...)
		if p.mode == v1alpha1.ModeWarn {
			d.Warnings = append(d.Warnings, text)
		} else {
			d.Audits = append(d.Audits, text)
		}
	}
}

// settle fills in how each policy in mode Enforce was met. A policy that holds by itself is met although another denies, unless
// each holds for a digest of its own.
func (e *evaluation) settle(covering []*Policy, d *Decision) {
	denies, required := false, false
	for i, p := range covering {
		if !p.enforces() {
			continue
		}
		o := &d.Outcomes[i]
		if d.Verdict == Admitted {
			*o = p.met()
			continue
		}
		*o, _ = e.alone(p)
		required = required || len(p.requirements) > 0
		denies = denies || o.Verdict != Admitted
	}
	if d.Verdict == Admitted || denies || !required {
		return
	}
	for i, p := range covering {
		if p.enforces() && len(p.requirements) > 0 {
			d.Outcomes[i].Verdict, d.Outcomes[i].Reason = d.Verdict, v1alpha1.ReasonDigestsDiffer
		}
	}
}

// alone judges one policy by itself, and says which digest it was met for.
func (e *evaluation) alone(p *Policy) (Outcome, choice) {
	o := Outcome{Policy: p.name, Mode: p.mode, Roots: p.roots}
	if e.blocked(p) {
		o.Verdict, o.Reason = CouldNotCheck, e.whyBlocked(p)
		return o, choice{}
	}
	if len(p.requirements) == 0 {
		return p.met(), choice{}
	}
	policies := []*Policy{p}
	c := e.choose(policies)
	switch {
	case c.unique():
		return p.met(), c
	case e.faulty(policies):
		o.Verdict, o.Reason = CouldNotCheck, e.whyFaulty(p)
	case c.rival != "":
		o.Reason = v1alpha1.ReasonAmbiguous
	default:
		o.Reason = v1alpha1.ReasonNotSigned
	}
	if c.rival == "" {
		o.Missing = e.missing(p)
	}
	return o, c
}

// met is the outcome of a policy that holds.
func (p *Policy) met() Outcome {
	o := Outcome{Policy: p.name, Mode: p.mode, Roots: p.roots, Verdict: Admitted, Reason: v1alpha1.ReasonSigned}
	if len(p.requirements) == 0 {
		o.Reason = v1alpha1.ReasonAllowedUnsigned
	}
	return o
}

// missing lists the requirements that are not met, of the image's digest, or of that digest of its tag which lacks the fewest.
func (e *evaluation) missing(p *Policy) []string {
	var fewest []string
	for i, digest := range append(e.candidates(p), "") {
		var missing []string
		for _, r := range p.requirements {
			if e.count(p, r, digest) < r.need {
				missing = append(missing, r.short())
			}
		}
		if i == 0 || len(missing) < len(fewest) {
			fewest = missing
		}
	}
	return fewest
}

// whyBlocked is the reason for which the policy cannot be evaluated.
func (e *evaluation) whyBlocked(p *Policy) string {
	if p.invalid != nil {
		return v1alpha1.ReasonInvalidSpec
	}
	for _, root := range p.roots {
		switch s := e.source(root); {
		case s == nil:
		case s.unusable != nil:
			return trust.AsFault(s.unusable, v1alpha1.ReasonTrustRootNotReady).Reason
		case s.unloaded:
			return v1alpha1.ReasonNotLoaded
		}
	}
	return v1alpha1.ReasonTrustRootNotReady
}

// whyFaulty is the reason of the first trust root that could not be checked.
func (e *evaluation) whyFaulty(p *Policy) string {
	for _, root := range p.roots {
		if s := e.source(root); s != nil && s.fault != nil {
			return trust.AsFault(s.fault, v1alpha1.ReasonUnexpectedAnswer).Reason
		}
	}
	return v1alpha1.ReasonUnexpectedAnswer
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

// strongestPin returns the strongest pinDigests of the policies that require signatures; empty where none does.
func strongestPin(policies []*Policy) (pin v1alpha1.PinDigests) {
	for _, p := range policies {
		switch {
		case len(p.requirements) == 0:
		case p.pin == v1alpha1.PinAll:
			return v1alpha1.PinAll
		case p.pin == v1alpha1.PinPods || pin == "":
			pin = p.pin
		}
	}
	return pin
}
