package controllers

import (
	"strings"
	"testing"

	"k8s.io/utils/clock"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/store"
)

func TestLineEndsAfterCredentials(t *testing.T) {
	for value, want := range map[string]string{"pw": "pw", "pw\n": "pw", "pw\r\n": "pw", "p\nw\n": "p\nw", " pw ": " pw "} {
		if got := oneLine(value); got != want {
			t.Errorf("%q is read as %q, want %q", value, got, want)
		}
	}
}

// A client certificate that cannot be used is InvalidKey, and nothing of its key is told.
func TestUnusableClientCertificateIsNamed(t *testing.T) {
	tr := root()
	tr.Spec.Notary.ClientCertificateSecretRef = &v1alpha1.SecretReference{Name: "reader"}
	certificate, key := clientCertificate(tr.Spec.Notary.ClientCertificateSecretRef)
	built := RootBuilder{Clock: clock.RealClock{}}.build(tr, keyMaterial{certificate: "x", key: "s3cret"})
	if f := built.Fault; f == nil || f.Reason != v1alpha1.ReasonInvalidKey || !strings.Contains(f.Error(), "clientCertificateSecretRef (Secret reader)") || strings.Contains(f.Error(), "s3cret") {
		t.Errorf("fault = %v", f)
	}
	if all := sources(&tr.Spec); len(all) != 2 {
		t.Errorf("watches %v, want certificate and key", all)
	}
}

func TestReadyNamesWhatDoesNotCount(t *testing.T) {
	got := pinnedMessage(&store.Root{Notes: []string{"f: skipped one"}}, store.Status{Unanchored: []string{"a", "b", "c", "d"}})
	for _, words := range []string{"f: skipped one", "pinned key a, b, c", "and 1 more"} {
		if !strings.Contains(got, words) {
			t.Errorf("%q does not say %q", got, words)
		}
	}
}
