package attestation

import (
	"fmt"
	"time"
)

// maxType bounds the type of a predicate, in bytes.
const maxType = 1024

// Spec is how attestations prove a role.
type Spec struct {
	// PredicateType is the type of the predicate, compared exactly.
	PredicateType string
	// Conditions are CEL expressions, all of which must be true of the statement. They have the
	// variables statement and predicate. None: the type alone counts.
	Conditions []string
	// MaxAge is how long ago the attestation may have been verified to exist. Zero: any time, even
	// an unknown one.
	MaxAge time.Duration
}

// Rule is a compiled Spec. It is immutable and safe for concurrent use.
type Rule struct {
	predicateType string
	conditions    []*condition
	maxAge        time.Duration
}

// Compile compiles a Spec. field is its path in the spec, as
// "spec.sigstore.roles[0].attestation", with which each error begins.
func Compile(field string, spec Spec) (*Rule, error) {
	switch t := spec.PredicateType; {
	case t == "":
		return nil, fmt.Errorf("%s.predicateType: is empty", field)
	case len(t) > maxType:
		return nil, fmt.Errorf("%s.predicateType: is longer than %d bytes", field, maxType)
	case t == SignatureType:
		return nil, fmt.Errorf("%s.predicateType: is the type of signatures: remove attestation", field)
	case spec.MaxAge < 0:
		return nil, fmt.Errorf("%s.maxAge: must not be negative", field)
	case len(spec.Conditions) > MaxConditions:
		return nil, fmt.Errorf("%s.conditions: at most %d may be listed", field, MaxConditions)
	}
	r := &Rule{predicateType: spec.PredicateType, maxAge: spec.MaxAge}
	if len(spec.Conditions) == 0 {
		return r, nil
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("%s.conditions: %w", field, err)
	}
	for i, source := range spec.Conditions {
		c, err := compile(env, i, source)
		if err != nil {
			return nil, fmt.Errorf("%s.conditions[%d]: %w", field, i, err)
		}
		r.conditions = append(r.conditions, c)
	}
	return r, nil
}

// unmet returns why a statement of the type does not meet the conditions, as the rest of a sentence
// that begins with the attestation; empty if it does. It spends of the budget what the conditions
// cost.
func (r *Rule) unmet(payload []byte, budget *uint64) string {
	s, err := parse(payload, r.predicateType)
	if err != nil {
		return err.Error()
	}
	for _, c := range r.conditions {
		if *budget == 0 {
			return fmt.Sprintf("does not meet %s: the attestations are too many or too large to evaluate it", c)
		}
		why, cost := c.evaluate(s)
		*budget -= min(cost, *budget)
		if why != "" {
			return why
		}
	}
	return ""
}
