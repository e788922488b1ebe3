package controllers

import (
	"context"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// Gate is whether the API server calls the webhook, as the leader last saw it. The zero value has
// seen nothing yet and is ready for use, by one writer and any number of readers. A replica that
// does not lead never sees anything.
type Gate struct {
	current  atomic.Pointer[gateState]
	policies Changes // wakes the reconciler of ImagePolicies
}

// gateState is the condition Gated, without what belongs to one policy.
type gateState struct {
	gated           bool
	reason, message string
}

// Gated reports whether both webhook configurations are as they must be. known is false where
// nothing was seen yet.
func (g *Gate) Gated() (gated, known bool) {
	if s := g.load(); s != nil {
		return s.gated, true
	}
	return false, false
}

func (g *Gate) load() *gateState {
	if g == nil {
		return nil
	}
	return g.current.Load()
}

// publish makes a state the current one. Where that is a change it is logged, and all policies are
// woken: policies are their names in the store, read after the call. A policy that is published
// later reads the new state by itself.
func (g *Gate) publish(ctx context.Context, s gateState, policies func() []string) {
	if g == nil {
		return
	}
	if was := g.current.Swap(&s); was != nil && *was == s {
		return
	}
	ctrl.LoggerFrom(ctx).Info("Observed the gate", "gated", s.gated, "reason", s.reason, "message", s.message)
	for _, name := range policies() {
		g.policies.Notify(name)
	}
}

// condition returns the condition Gated of a policy. Until this replica has seen the gate, what an
// earlier leader has written stands: a new leader raises no false alarm.
func (g *Gate) condition(p *v1alpha1.ImagePolicy) metav1.Condition {
	s := g.load()
	if s != nil {
		return condition(p, v1alpha1.ConditionGated, s.reason, s.message, s.gated)
	}
	if was := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionGated); was != nil {
		return *was
	}
	unknown := condition(p, v1alpha1.ConditionGated, v1alpha1.ReasonGateNotObserved,
		"the leader has not looked at the webhook configurations yet", false)
	unknown.Status = metav1.ConditionUnknown
	return unknown
}

// behind returns the condition Ready of a policy whose own is ready, with what the gate says: a
// policy that nobody is held to is not Ready.
func behind(gated metav1.Condition, p *v1alpha1.ImagePolicy, ready metav1.Condition) metav1.Condition {
	asItWas := meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case gated.Status == metav1.ConditionTrue || ready.Status != metav1.ConditionTrue:
		return ready
	case gated.Status == metav1.ConditionUnknown && asItWas:
		return ready
	}
	ready.Status, ready.Reason, ready.Message = gated.Status, gated.Reason, gated.Message
	return ready
}
