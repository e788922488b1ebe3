package publication

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

// A client certificate that cannot be used is InvalidKey, and nothing of its key is told.
func TestUnusableClientCertificateIsNamed(t *testing.T) {
	tr := root()
	tr.Spec.Notary.ClientCertificateSecretRef = &v1alpha1.SecretReference{Name: "reader"}
	certificate := v1alpha1.KeySource{Kind: "Secret", Name: "reader", Key: "tls.crt"}
	key := v1alpha1.KeySource{Kind: "Secret", Name: "reader", Key: "tls.key"}
	p := &Publisher{Formats: trustFormats()}
	built := p.build(tr, trust.Material{certificate: "x", key: "s3cret"}, nil)
	if f := built.Fault; f == nil || f.Reason != v1alpha1.ReasonInvalidKey ||
		!strings.Contains(f.Error(), "clientCertificateSecretRef (Secret reader)") ||
		strings.Contains(f.Error(), "s3cret") {
		t.Errorf("fault = %v", f)
	}
	if all := p.refers(&tr.Spec); len(all) != 2 {
		t.Errorf("watches %v, want certificate and key", all)
	}
}

// What of the material does not count, and which pins were of no use so far, is told by a condition
// that stays True: a pin may be kept on purpose while a root is rotated, and the message says so.
func TestReadyNamesWhatDoesNotCount(t *testing.T) {
	s := statusOf(root(), &store.Root{Notes: []string{"f: skipped one"}},
		store.Status{Unanchored: []string{"a", "b", "c", "d"}})
	ready := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
	if ready.Status != metav1.ConditionTrue || ready.Reason != v1alpha1.ReasonPinned {
		t.Errorf("Ready is %s, %s", ready.Status, ready.Reason)
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
