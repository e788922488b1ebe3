package trustroot

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
)

// trustFormats are the formats that a TrustRoot can have.
func trustFormats() []trust.Format { return []trust.Format{notary.Format{}} }

func root() *v1alpha1.TrustRoot {
	return &v1alpha1.TrustRoot{
		ObjectMeta: metav1.ObjectMeta{Name: "acme"},
		Spec: v1alpha1.TrustRootSpec{Notary: &v1alpha1.NotarySpec{
			Server: "https://notary.example.com",
			Root:   v1alpha1.NotaryRoot{KeyIDs: []v1alpha1.KeyID{v1alpha1.KeyID(strings.Repeat("a", 64))}},
		}},
	}
}

// An unusable client certificate has the reason InvalidKey, and the message does not contain its
// key.
func TestUnusableClientCertificateIsNamed(t *testing.T) {
	tr := root()
	tr.Spec.Notary.ClientCertificateSecretRef = &v1alpha1.SecretReference{Name: "reader"}
	certificate := v1alpha1.KeySource{Kind: "Secret", Name: "reader", Key: "tls.crt"}
	key := v1alpha1.KeySource{Kind: "Secret", Name: "reader", Key: "tls.key"}
	p := &Builder{Formats: trustFormats()}
	built := p.Build(tr, Material{Content: trust.Material{certificate: "x", key: "s3cret"}})
	if f := built.Fault; f == nil || f.Reason != v1alpha1.ReasonInvalidKey ||
		!strings.Contains(f.Error(), "clientCertificateSecretRef (Secret reader)") ||
		strings.Contains(f.Error(), "s3cret") {
		t.Errorf("fault = %v, want InvalidKey, with the Secret and without the key", f)
	}
	if all := p.Refers(&tr.Spec); len(all) != 2 {
		t.Errorf("refers to %v, want certificate and key", all)
	}
}

// The message about a missing Secret does not name an entry that the Secret need not have.
func TestMissingObjectIsNamed(t *testing.T) {
	p := &Builder{Reader: fake.NewClientBuilder().Build(), Namespace: "countersign-system"}
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
	p := &Builder{
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
			got, err := p.Gather(t.Context(), root())
			if test.fault != "" {
				f := got.Missing
				if f == nil || f.Reason != v1alpha1.ReasonReferenceNotFound || !strings.Contains(f.Error(), test.fault) {
					t.Errorf("got %v, %v; want a fault ReferenceNotFound with %q", f, err, test.fault)
				}
				return
			}
			if diff := cmp.Diff(trust.Material{present.KeySource: "reader"}, got.Content); diff != "" || err != nil {
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

// A prefix that no repository name begins with would never apply, without a notice. So it is an
// error.
func TestIdentityRemapIsNormalised(t *testing.T) {
	cases := map[string]struct{ prefix, signedPrefix, want string }{
		"as it is read": {"mirror.example.com/", "docker.io/", ""},
		"with a path":   {"mirror.example.com:5000/hub/", "docker.io/library/", ""},
		"as written":    {"mirror.example.com:443/", "registry.example.com:443/", ""},
		"old name of hub": {
			"mirror.example.com/", "index.docker.io/",
			`spec.identityRemap[0].signedPrefix: "index.docker.io/" is the same as "docker.io/"`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tr := root()
			tr.Spec.IdentityRemap = []v1alpha1.IdentityRemap{{Prefix: c.prefix, SignedPrefix: c.signedPrefix}}
			built := (&Builder{Formats: trustFormats()}).Build(tr, Material{})
			switch {
			case c.want == "" && (built.Fault != nil || built.Verifier == nil):
				t.Errorf("fault = %v, want none", built.Fault)
			case c.want != "" &&
				(built.Verifier != nil || built.Fault == nil || built.Fault.Reason != v1alpha1.ReasonInvalidSpec ||
					!strings.Contains(built.Fault.Error(), c.want)):
				t.Errorf("fault = %v, want %q", built.Fault, c.want)
			}
		})
	}
}

func TestGraceIsBuilt(t *testing.T) {
	tr := root()
	tr.Spec.ExpiredGrace = metav1.Duration{Duration: 48 * time.Hour}
	if built := (&Builder{Formats: trustFormats()}).Build(tr, Material{}); built.Fault != nil ||
		built.ExpiredGrace != 48*time.Hour {
		t.Errorf("grace %s, fault %v; want 48h and none", built.ExpiredGrace, built.Fault)
	}
}
