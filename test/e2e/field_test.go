package e2e

import (
	"testing"
)

// TestField has what users of such a gate report from the field.
func TestField(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	t.Run("controllers that compare their Pods", b.testComparing) // the last, since it edits the policy
}
