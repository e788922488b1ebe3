package controllers

import (
	"errors"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

func TestSettle(t *testing.T) {
	of := schema.GroupResource{Group: "countersign.dev", Resource: "imagepolicies"}
	cases := map[string]struct {
		err   error
		again bool
	}{
		"written":             {nil, false},
		"a conflict":          {fmt.Errorf("writing: %w", apierrors.NewConflict(of, "production", errors.New("changed"))), true},
		"made a moment ago":   {fmt.Errorf("writing: %w", apierrors.NewAlreadyExists(of, "production")), true},
		"refused":             {apierrors.NewForbidden(of, "production", errors.New("no")), false},
		"nobody has answered": {errors.New("connection refused"), false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			result, err := settle(ctrl.Result{}, c.err)
			if (result.RequeueAfter > 0) != c.again || (err != nil) != (c.err != nil && !c.again) {
				t.Errorf("again after %s, error %v", result.RequeueAfter, err)
			}
		})
	}
}

func TestTurned(t *testing.T) {
	condition := func(kind string, status metav1.ConditionStatus, reason string) *metav1.Condition {
		return &metav1.Condition{Type: kind, Status: status, Reason: reason}
	}
	const ready, expiring = v1alpha1.ConditionReady, v1alpha1.ConditionExpiring
	cases := map[string]struct {
		old, is *metav1.Condition
		want    bool
	}{
		"first, and good":           {nil, condition(ready, metav1.ConditionTrue, v1alpha1.ReasonPinned), true},
		"first, and not known":      {nil, condition(ready, metav1.ConditionUnknown, v1alpha1.ReasonPinned), false},
		"as before":                 {condition(ready, metav1.ConditionTrue, v1alpha1.ReasonPinned), condition(ready, metav1.ConditionTrue, v1alpha1.ReasonPinned), false},
		"another reason":            {condition(ready, metav1.ConditionFalse, v1alpha1.ReasonInvalidSpec), condition(ready, metav1.ConditionFalse, v1alpha1.ReasonInvalidKey), true},
		"nothing to warn of, ever":  {nil, condition(expiring, metav1.ConditionFalse, v1alpha1.ReasonNothingExpiresSoon), false},
		"to be warned of from then": {nil, condition(expiring, metav1.ConditionTrue, v1alpha1.ReasonExpiresSoon), true},
		"nothing to warn of again":  {condition(expiring, metav1.ConditionTrue, v1alpha1.ReasonExpiresSoon), condition(expiring, metav1.ConditionFalse, v1alpha1.ReasonNothingExpiresSoon), true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := turned(c.old, *c.is); got != c.want {
				t.Errorf("worth an event: %t, want %t", got, c.want)
			}
		})
	}
}
