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
			if d.OlderAnswer = e.onOlderAnswer(image, c); d.OlderAnswer != "" {
				d.Warnings = append(d.Warnings, d.OlderAnswer)
			}
			return d
		}
	}
	if blocked || e.inconclusive(policies, c) {
		d.Verdict = CouldNotCheck
	}
	d.Message = line(image, e.explain(policies, c)...)
	candidates := e.candidates(policies)
	for _, p := range policies {
		if c.rival == "" && !e.blocked(p) && !e.unmetForSome(p, candidates) {
			continue // it holds, whatever newer evidence would say
		}
		for _, root := range p.roots {
			d.Consulted = e.appendKeys(root, d.Consulted, func(a *lookup) bool {
				return !a.unloaded() && a.relevant(candidates)
			})
		}
	}
	d.Consulted = sorted(d.Consulted)
	return d
}

// notLoaded returns the subjects that must be fetched before the decision is final. An admitted
// image with a digest needs none. An admitted tag does, in mode Enforce: evidence that is not
// loaded may name another digest, or meet the policies for a second digest of an earlier trust
// root. A policy needs nothing about digests that only trust roots of other policies name.
func (e *evaluation) notLoaded(covering, enforcing []*Policy, d *Decision) []trust.Key {
	var keys []trust.Key
	for i, p := range covering {
		settled, policies := d.Outcomes[i].Verdict == Admitted, covering[i:i+1]
		if p.enforces() {
			settled, policies = d.Verdict == Admitted && e.image.Digest != "", enforcing
		}
		if settled || len(p.requirements) == 0 {
			continue
		}
		for _, root := range p.roots {
			keys = e.appendKeys(root, keys, func(a *lookup) bool {
				return a.unloaded() && (a.subject.Digest == d.Digest || a.relevant(e.candidates(policies)))
			})
		}
	}
	return sorted(keys)
}

// appendKeys appends the keys of a trust root's look-ups that fulfil a condition.
func (e *evaluation) appendKeys(root string, to []trust.Key, holds func(*lookup) bool) []trust.Key {
	if s := e.under(root); s != nil {
		for i := range s.lookups {
			a := &s.lookups[i]
			if !holds(a) {
				continue
			}
			if a.evidence != nil && a.subject.Tenant != "" { // the trust root may be able to read it now
				to = append(to, trust.Key{Root: root, Subject: a.shared()})
			}
			to = append(to, trust.Key{Root: root, Subject: a.subject})
		}
	}
	return to
}

func sorted(keys []trust.Key) []trust.Key {
	slices.SortFunc(keys, trust.Key.Compare)
	return slices.Compact(keys)
}

// advise evaluates the policies in mode Warn and Audit, each by itself: for the digest that was
// decided, or else as if it decided alone. It never changes the verdict.
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
		if d.Outcomes[i], c = on.evaluateAlone(p); d.Outcomes[i].Verdict == Admitted {
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

// setOutcomes sets the outcome of each policy in mode Enforce. A policy that holds by itself is met
// although another denies, unless each holds for a different digest.
func (e *evaluation) setOutcomes(covering []*Policy, d *Decision) {
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
		*o, _ = e.evaluateAlone(p)
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

// evaluateAlone evaluates one policy by itself, and returns the digest that met it.
func (e *evaluation) evaluateAlone(p *Policy) (Outcome, choice) {
	o := Outcome{Policy: p.name, Mode: p.mode, Roots: p.roots}
	if e.blocked(p) {
		o.Verdict, o.Reason = CouldNotCheck, e.blockedReason(p)
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
	case e.inconclusive(policies, c):
		o.Verdict, o.Reason = CouldNotCheck, e.inconclusiveReason(p)
	case c.rival != "":
		o.Reason = v1alpha1.ReasonAmbiguous
	default:
		o.Reason = v1alpha1.ReasonNotSigned
	}
	if c.rival == "" && !e.nothingLoaded(p) {
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

// missing lists the unmet requirements of the image's digest, or of that digest of its tag which
// has the fewest.
func (e *evaluation) missing(p *Policy) []string {
	var fewest []string
	for i, digest := range append(e.candidates([]*Policy{p}), "") {
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

// blockedReason returns the reason why the policy cannot be evaluated.
func (e *evaluation) blockedReason(p *Policy) string {
	if p.invalid != nil {
		return v1alpha1.ReasonInvalidSpec
	}
	for _, root := range p.roots {
		switch s := e.under(root); {
		case s == nil:
		case s.unusable != nil:
			return trust.AsFault(s.unusable, v1alpha1.ReasonTrustRootNotReady).Reason
		}
	}
	return v1alpha1.ReasonTrustRootNotReady
}

// inconclusiveReason returns the reason of the first trust root that could not be checked.
func (e *evaluation) inconclusiveReason(p *Policy) string {
	for _, root := range p.roots {
		s := e.under(root)
		if s == nil {
			continue
		}
		for i := range s.lookups {
			switch a := &s.lookups[i]; {
			case a.unloaded():
				return v1alpha1.ReasonNotLoaded
			case a.fault != nil:
				return trust.AsFault(a.fault, v1alpha1.ReasonUnexpectedAnswer).Reason
			case a.older != nil:
				return a.older.Reason
			case len(a.evidence.Faults()) > 0:
				return a.evidence.Faults()[0].Reason
			}
		}
	}
	return v1alpha1.ReasonUnexpectedAnswer
}

// blocked reports whether the policy cannot be evaluated: its spec is invalid, or one of its trust
// roots is unusable. It then denies, whatever its other trust roots prove.
func (e *evaluation) blocked(p *Policy) bool {
	if p.invalid != nil {
		return true
	}
	for _, root := range p.roots {
		if s := e.under(root); s == nil || s.unusable != nil {
			return true
		}
	}
	return false
}

// inconclusive reports whether a denial may rest on evidence that could not be checked or is not
// loaded: such evidence could prove a missing role, or name a digest before c and its rival.
func (e *evaluation) inconclusive(policies []*Policy, c choice) bool {
	candidates := e.candidates(policies)
	return slices.ContainsFunc(policies, func(p *Policy) bool {
		return e.incomplete(p, candidates) && (c.rival != "" || e.unmetForSome(p, candidates))
	})
}

// unmetForSome reports whether the policy is unmet for one of the digests that an image may mean,
// or no such digest is known.
func (e *evaluation) unmetForSome(p *Policy, candidates []string) bool {
	return len(p.requirements) > 0 && (len(candidates) == 0 ||
		slices.ContainsFunc(candidates, func(digest string) bool { return !e.meets([]*Policy{p}, digest) }))
}

// incomplete reports whether the policy requires roles, and any of its trust roots could not be
// checked in full: for the digests that the image may mean, or for the signatures on those.
func (e *evaluation) incomplete(p *Policy, candidates []string) bool {
	if len(p.requirements) == 0 {
		return false
	}
	return slices.ContainsFunc(p.roots, func(root string) bool {
		s := e.under(root)
		return s != nil && slices.ContainsFunc(s.lookups, func(a lookup) bool {
			return a.relevant(candidates) && !a.conclusive()
		})
	})
}

// strongestPin returns the strongest pinDigests of the policies that require signatures; empty
// where none does.
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
