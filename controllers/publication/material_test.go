package publication

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

// An unusable client certificate has the reason InvalidKey, and the message does not contain its
// key.
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
		t.Errorf("fault = %v, want InvalidKey, with the Secret and without the key", f)
	}
	if all := p.refers(&tr.Spec); len(all) != 2 {
		t.Errorf("refers to %v, want certificate and key", all)
	}
}

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

// The message about a missing Secret does not name an entry that the Secret need not have.
func TestMissingObjectIsNamed(t *testing.T) {
	p := &Publisher{Reader: fake.NewClientBuilder().Build(), Namespace: "countersign-system"}
	entry := v1alpha1.KeySource{Kind: "Secret", Name: "pull", Key: ".dockerconfigjson"}
	for want, source := range map[string]trust.Reference{
		`Secret countersign-system/pull does not exist; the trust root refers to it`: {
			KeySource: entry, Optional: true,
		},
		`Secret countersign-system/pull does not exist; the trust root refers to its entry ".dockerconfigjson"`: {
			KeySource: entry,
		},
	} {
		if _, _, err := p.read(t.Context(), source); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// An object may lack an optional entry, and the material then lacks it too. Any other missing entry
// is a fault that names it, and so is a missing object.
func TestOptionalEntry(t *testing.T) {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "countersign-system", Name: "pull"},
		Data:       map[string][]byte{"username": []byte("reader")},
	}
	p := &Publisher{
		Reader:    fake.NewClientBuilder().WithObjects(secret).Build(),
		Namespace: "countersign-system",
	}
	entry := func(name, key string, optional bool) trust.Reference {
		return trust.Reference{
			KeySource: v1alpha1.KeySource{Kind: "Secret", Name: v1alpha1.ObjectName(name), Key: key},
			Optional:  optional,
		}
	}
	for name, test := range map[string]struct {
		missing trust.Reference
		fault   string // none: there is no fault
	}{
		"an optional entry": {entry("pull", "password", true), ""},
		"a required entry":  {entry("pull", "password", false), `has no entry "password"`},
		"an optional entry of no object": {
			entry("gone", "password", true), "Secret countersign-system/gone does not exist",
		},
	} {
		t.Run(name, func(t *testing.T) {
			present := entry("pull", "username", true)
			p.Formats = []trust.Format{referring{all: []trust.Reference{present, test.missing}}}
			got, err := p.gather(t.Context(), root())
			if test.fault != "" {
				f, ok := errors.AsType[*trust.Fault](err)
				if !ok || f.Reason != v1alpha1.ReasonReferenceNotFound || !strings.Contains(f.Error(), test.fault) {
					t.Errorf("got %v, want a fault ReferenceNotFound with %q", err, test.fault)
				}
				return
			}
			if diff := cmp.Diff(trust.Material{present.KeySource: "reader"}, got); diff != "" || err != nil {
				t.Errorf("got the error %v, want none; material (-want +got):\n%s", err, diff)
			}
		})
	}
}

// referring is a format whose TrustRoots refer to entries.
type referring struct {
	trust.Format
	all []trust.Reference
}

func (referring) Of(*v1alpha1.TrustRootSpec) bool { return true }

func (f referring) Refers(*v1alpha1.TrustRootSpec) []trust.Reference { return f.all }
