package running

import (
	"slices"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/compliance"
)

// Compliance holds the leader's last evaluation of the running workloads. The zero value is ready
// for use, by one writer and any number of readers.
type Compliance struct {
	current  atomic.Pointer[evaluated]
	readers  []func(*compliance.Result)
	policies requests.Trigger // wakes the reconciler of ImagePolicies
}

// Load returns the last result, which is shared and must not be changed. It is nil on a replica
// that does not lead, and before the first evaluation.
func (c *Compliance) Load() *compliance.Result {
	if e := c.current.Load(); e != nil {
		return e.result
	}
	return nil
}

// OnResult registers notify, which publish calls with each new result. notify must not block. Call
// OnResult before the manager starts.
func (c *Compliance) OnResult(notify func(*compliance.Result)) {
	c.readers = append(slices.Clip(c.readers), notify)
}

// publish stores an evaluation as the current one, and requeues the policies whose state changed.
func (c *Compliance) publish(e *evaluated) {
	was := c.current.Swap(e)
	known := map[string]state(nil)
	if was != nil {
		known = was.states
	}
	for _, notify := range c.readers {
		notify(e.result)
	}
	for name, is := range e.states {
		if old, ok := known[name]; !ok || !equality.Semantic.DeepEqual(old, is) {
			c.policies.Notify(name)
		}
	}
}

// Changed requests a reconcile of each ImagePolicy whose state changed.
func (c *Compliance) Changed() source.Source { return c.policies.Source() }

// Describe sets the part of the status about running workloads. Until this version of the policy is
// evaluated, the status of an earlier version or leader stays.
func (c *Compliance) Describe(p *v1alpha1.ImagePolicy) {
	found := c.state(p.Name, status.Version(p))
	if found == nil {
		return
	}
	p.Status.Workloads, p.Status.Violations, p.Status.BreakGlass = &found.Workloads, found.Violations, found.BreakGlass
	is := status.Condition(p, v1alpha1.ConditionCompliant, found.Reason, found.Message, false)
	is.Status = found.Compliant
	meta.SetStatusCondition(&p.Status.Conditions, is)
}

// state returns the state of a policy in the given version, or nil if that version is not evaluated
// yet.
func (c *Compliance) state(policy, version string) *state {
	e := c.current.Load()
	if e == nil {
		return nil
	}
	if s, ok := e.states[policy]; ok && s.Version == version {
		return &s
	}
	return nil
}

// evaluated is one evaluation, with the resulting state of each policy.
type evaluated struct {
	result *compliance.Result
	states map[string]state
}

// state is the result of an evaluation for one policy.
type state struct {
	// Version is the evaluated version of the policy.
	Version    string
	Workloads  v1alpha1.WorkloadCounts
	Violations []v1alpha1.Violation
	BreakGlass []v1alpha1.BreakGlass
	Compliant  metav1.ConditionStatus
	Reason     string
	Message    string
}
