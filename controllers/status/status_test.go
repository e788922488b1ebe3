package status

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

func TestTurned(t *testing.T) {
	condition := func(kind string, status metav1.ConditionStatus, reason string) *metav1.Condition {
		return &metav1.Condition{Type: kind, Status: status, Reason: reason}
	}
	const ready, expiring = v1alpha1.ConditionReady, v1alpha1.ConditionExpiring
	cases := map[string]struct {
		old, is *metav1.Condition
		want    bool
	}{
		"first, and good":      {nil, condition(ready, metav1.ConditionTrue, v1alpha1.ReasonPinned), true},
		"first, and not known": {nil, condition(ready, metav1.ConditionUnknown, v1alpha1.ReasonPinned), false},
		"as before": {
			condition(ready, metav1.ConditionTrue, v1alpha1.ReasonPinned),
			condition(ready, metav1.ConditionTrue, v1alpha1.ReasonPinned), false,
		},
		"another reason": {
			condition(ready, metav1.ConditionFalse, v1alpha1.ReasonInvalidSpec),
			condition(ready, metav1.ConditionFalse, v1alpha1.ReasonInvalidKey), true,
		},
		"nothing to warn of, ever": {
			nil, condition(expiring, metav1.ConditionFalse, v1alpha1.ReasonNothingExpiresSoon), false,
		},
		"to be warned of from then": {nil, condition(expiring, metav1.ConditionTrue, v1alpha1.ReasonExpiresSoon), true},
		"nothing to warn of again": {
			condition(expiring, metav1.ConditionTrue, v1alpha1.ReasonExpiresSoon),
			condition(expiring, metav1.ConditionFalse, v1alpha1.ReasonNothingExpiresSoon), true,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := turned(c.old, *c.is); got != c.want {
				t.Errorf("worth an event: %t, want %t", got, c.want)
			}
		})
	}
}

// Most conditions warn where they are False, and Expiring where it is True.
func TestWarns(t *testing.T) {
	for kind, warning := range map[string]metav1.ConditionStatus{
		v1alpha1.ConditionReady: metav1.ConditionFalse, v1alpha1.ConditionFresh: metav1.ConditionFalse,
		v1alpha1.ConditionCompliant: metav1.ConditionFalse, v1alpha1.ConditionExpiring: metav1.ConditionTrue,
	} {
		for _, status := range []metav1.ConditionStatus{
			metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown,
		} {
			if got := warns(metav1.Condition{Type: kind, Status: status}); got != (status == warning) {
				t.Errorf("%s=%s warns: %v", kind, status, got)
			}
		}
	}
}
