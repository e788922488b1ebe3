package publication

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/store"
)

// Condition Ready names ignored material and unused pins, and stays True: a pin may be kept on
// purpose while a root is rotated.
func TestReadyNamesWhatDoesNotCount(t *testing.T) {
	s := statusOf(root(), &store.Root{Notes: []string{"f: skipped one"}},
		store.Status{Unanchored: []string{"a", "b", "c", "d"}})
	ready := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
	if ready.Status != metav1.ConditionTrue || ready.Reason != v1alpha1.ReasonPinned {
		t.Errorf("Ready is %s, %s; want True, Pinned", ready.Status, ready.Reason)
	}
	got := ready.Message
	for _, words := range []string{
		"f: skipped one", "no root in use carries the pinned key a, b, c", "and 1 more", "not asked for yet",
		"before or after a rotation",
	} {
		if !strings.Contains(got, words) {
			t.Errorf("%q does not say %q", got, words)
		}
	}
}
