package publication

import (
	"bytes"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

func TestEpochOf(t *testing.T) {
	long := string(bytes.Repeat([]byte("a"), 300))
	for name, test := range map[string]struct{ asked, handled, want string }{
		"never asked": {"", "", ""}, "asked": {"1", "", "1"}, "handled": {"1", "1", "1"},
		"asked again": {"2", "1", "2"},
		"taken away":  {"", "2", "2"},
	} {
		tr := &v1alpha1.TrustRoot{
			ObjectMeta: metav1.ObjectMeta{
				Annotations: map[string]string{v1alpha1.AnnotationForgetVersions: test.asked},
			},
		}
		tr.Status.LastHandledForgetVersions = test.handled
		if got := epochOf(tr); got != test.want {
			t.Errorf("%s: epoch %q, want %q", name, got, test.want)
		}
	}
	tr := &v1alpha1.TrustRoot{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1alpha1.AnnotationForgetVersions: long}},
	}
	if got := epochOf(tr); len(got) > maxEpoch || got == "" {
		t.Errorf("the epoch of a long value has %d bytes", len(got))
	}
}
