package running

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/status"
)

// Until a new leader has evaluated what runs, or a policy that was edited, the status of before
// stays: it must not say that nothing violates the policy.
func TestStatusStaysUntilTheFirstEvaluation(t *testing.T) {
	before := v1alpha1.ImagePolicyStatus{
		Workloads:  &v1alpha1.WorkloadCounts{Covered: 3, Violating: 2},
		Violations: []v1alpha1.Violation{{Namespace: "shop", Kind: "Deployment", Name: "web"}},
		Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionCompliant, Status: metav1.ConditionFalse, Reason: "Violated",
		}},
	}
	p := &v1alpha1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Name: "production", UID: "1", Generation: 2}}
	p.Status = *before.DeepCopy()
	var c Compliance
	c.Describe(p)
	if diff := cmp.Diff(before, p.Status); diff != "" {
		t.Errorf("before the first evaluation, the status has changed (-want +got):\n%s", diff)
	}
	earlier := p.DeepCopy()
	earlier.Generation = 1
	none := state{Version: status.Version(earlier), Compliant: metav1.ConditionTrue, Reason: "AllSigned"}
	c.publish(&evaluated{states: map[string]state{"production": none}})
	c.Describe(p)
	if diff := cmp.Diff(before, p.Status); diff != "" {
		t.Errorf("after the evaluation of an earlier version, the status has changed (-want +got):\n%s", diff)
	}
	none.Version = status.Version(p)
	c.publish(&evaluated{states: map[string]state{"production": none}})
	c.Describe(p)
	if p.Status.Workloads.Violating != 0 || len(p.Status.Violations) != 0 {
		t.Errorf("after its evaluation, got %+v, want no violation", p.Status)
	}
}
