package requests

import (
	"errors"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
)

func TestSettle(t *testing.T) {
	of := schema.GroupResource{Group: "countersign.dev", Resource: "imagepolicies"}
	cases := map[string]struct {
		err   error
		again bool
	}{
		"written": {nil, false},
		"a conflict": {
			fmt.Errorf("writing: %w", apierrors.NewConflict(of, "production", errors.New("changed"))), true,
		},
		"made a moment ago": {fmt.Errorf("writing: %w", apierrors.NewAlreadyExists(of, "production")), true},
		"refused":           {apierrors.NewForbidden(of, "production", errors.New("no")), false},
		"no answer":         {errors.New("connection refused"), false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			result, err := Settle(ctrl.Result{}, c.err)
			if (result.RequeueAfter > 0) != c.again || (err != nil) != (c.err != nil && !c.again) {
				t.Errorf("requeue after %s, error %v; want a requeue: %t", result.RequeueAfter, err, c.again)
			}
		})
	}
}
