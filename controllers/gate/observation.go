package gate

import (
	"context"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/controllers/status"
)

// Observation is whether the API server calls the webhook, as the leader last saw it. The zero
// value has seen nothing yet and is ready for use, by one writer and any number of readers. A
// replica that does not lead sees nothing.
type Observation struct {
	current  atomic.Pointer[state]
	policies requests.Trigger // wakes the reconciler of ImagePolicies
}

// state is the condition Gated without the fields of one policy.
type state struct {
	gated           bool
	reason, message string
}

// Gated reports whether both webhook configurations are as they must be. known is false before the
// first observation.
func (g *Observation) Gated() (gated, known bool) {
	if s := g.load(); s != nil {
		return s.gated, true
	}
	return false, false
}

func (g *Observation) load() *state {
	if g == nil {
		return nil
	}
	return g.current.Load()
}

// Changed wakes the reconciler of ImagePolicies when the state has changed.
func (g *Observation) Changed() source.Source { return g.policies.Source() }

// publish replaces the state. A change is logged and wakes every policy. policies returns the names
// of the policies in the store, and is called after the replacement: a policy that is published
// later reads the new state by itself.
func (g *Observation) publish(ctx context.Context, s state, policies func() []string) {
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

// Condition returns the condition Gated of a policy. Before the first observation it is the
// condition that an earlier leader wrote, so that a new leader raises no false alarm.
func (g *Observation) Condition(p *v1alpha1.ImagePolicy) metav1.Condition {
	s := g.load()
	if s != nil {
		return status.Condition(p, v1alpha1.ConditionGated, s.reason, s.message, s.gated)
	}
	if was := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionGated); was != nil {
		return *was
	}
	unknown := status.Condition(p, v1alpha1.ConditionGated, v1alpha1.ReasonGateNotObserved,
		"the leader has not looked at the webhook configurations yet", false)
	unknown.Status = metav1.ConditionUnknown
	return unknown
}
