package e2e

import (
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

func (b *bed) testTrustRootMissing(t *testing.T) {
	b.create(t, b.policy("orphan", registry+"/orphan/**", "not-there", "ci"))
	message := b.ready(t, &v1alpha1.ImagePolicy{}, "orphan", metav1.ConditionFalse, v1alpha1.ReasonTrustRootNotFound)
	if !strings.Contains(message, `"not-there"`) {
		t.Errorf("got message %q, want it to name the trust root", message)
	}
	b.denied(t, pod(production, registry+"/orphan/app:v1"), http.StatusServiceUnavailable, `ImagePolicy "orphan"`,
		`TrustRoot "not-there" does not exist`)
	b.event(t, "ImagePolicy", "orphan", v1alpha1.ReasonTrustRootNotFound)
	root := b.trustRoot("not-there")
	b.create(t, root)
	b.ready(t, &v1alpha1.ImagePolicy{}, "orphan", metav1.ConditionTrue, v1alpha1.ReasonInForce)
	b.denied(t, pod(production, registry+"/orphan/app:v1"), http.StatusForbidden, `role "ci" has not signed`)
	must(t, b.Delete(t.Context(), root))
	b.ready(t, &v1alpha1.ImagePolicy{}, "orphan", metav1.ConditionFalse, v1alpha1.ReasonTrustRootNotFound)
}

func (b *bed) testTrustRootBroken(t *testing.T) {
	root := b.trustRoot("broken")
	root.Spec.Notary.Root.Keys = []v1alpha1.PEM{"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}
	b.create(t, root)
	message := b.ready(t, &v1alpha1.TrustRoot{}, "broken", metav1.ConditionFalse, v1alpha1.ReasonInvalidKey)
	if !strings.Contains(message, "spec.notary.root.keys[0]") {
		t.Errorf("got message %q, want it to name the field", message)
	}
	b.create(t, b.policy("on-broken", registry+"/broken/**", "broken", "ci"))
	b.ready(t, &v1alpha1.ImagePolicy{}, "on-broken", metav1.ConditionFalse, v1alpha1.ReasonTrustRootNotReady)
	b.denied(t, pod(production, registry+"/broken/app:v1"), http.StatusServiceUnavailable, `TrustRoot "broken"`)
}

// testServerFaults checks that a trust root reports the fault of its server before any request for
// an image.
func (b *bed) testServerFaults(t *testing.T) {
	html := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html><body>It works!</body></html>")
	}))
	defer html.Close()
	cases := map[string]struct {
		spoil  func(*v1alpha1.NotarySpec)
		reason string
	}{
		"wrong-ca": {
			func(n *v1alpha1.NotarySpec) { n.CABundle = v1alpha1.PEMBundle(b.pin.CertificatePEM) },
			v1alpha1.ReasonTLSNotTrusted,
		},
		"html": {
			func(n *v1alpha1.NotarySpec) { n.Server, n.CABundle = html.URL, bundleOf(html) },
			v1alpha1.ReasonUnexpectedAnswer,
		},
		"unreachable": {func(n *v1alpha1.NotarySpec) { n.Server = "https://127.0.0.1:1" }, v1alpha1.ReasonUnreachable},
		"link-local": {
			func(n *v1alpha1.NotarySpec) { n.Server = "https://169.254.169.254" }, v1alpha1.ReasonAddressRefused,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			root := b.trustRoot(name)
			c.spoil(root.Spec.Notary)
			b.create(t, root)
			t.Log(b.condition(t, root, name, v1alpha1.ConditionFresh, metav1.ConditionFalse, c.reason))
			b.create(t, b.policy(name, registry+"/"+name+"/**", name, "ci"))
			b.ready(t, &v1alpha1.ImagePolicy{}, name, metav1.ConditionTrue, v1alpha1.ReasonInForce)
			b.denied(t, pod(production, registry+"/"+name+"/app:v1"), http.StatusServiceUnavailable,
				`TrustRoot "`+name+`"`)
		})
	}
}

func (b *bed) testKeyMaterialElsewhere(t *testing.T) {
	root := b.trustRoot("elsewhere")
	root.Spec.Notary.Root = v1alpha1.NotaryRoot{
		KeysFrom: []v1alpha1.KeySource{{Kind: "ConfigMap", Name: "root-keys", Key: "acme.pem"}},
	}
	b.create(t, root)
	message := b.ready(t, root, "elsewhere", metav1.ConditionFalse, v1alpha1.ReasonReferenceNotFound)
	if !strings.Contains(message, "ConfigMap countersign-system/root-keys does not exist") {
		t.Errorf("got message %q, want it to say that the ConfigMap does not exist", message)
	}
	b.create(t, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "countersign-system", Name: "root-keys"},
		Data:       map[string]string{"acme.pem": string(b.pin.PublicKeyPEM)},
	})
	b.ready(t, root, "elsewhere", metav1.ConditionTrue, v1alpha1.ReasonPinned)
	if got := root.Status.RootFingerprints; len(got) != 1 || got[0] != b.pin.KeyID {
		t.Errorf("got fingerprints %q, want the canonical key ID %q", got, b.pin.KeyID)
	}
}

// testCredentials uses a Notary server that requires tokens. The token service has its own host and
// requires a password. The first Secret holds a wrong password.
func (b *bed) testCredentials(t *testing.T) {
	auth := &notaryserver.Auth{Username: "reader", Password: "right"}
	guarded := notaryserver.Run(t, notaryserver.Options{Auth: auth})
	signer := notaryserver.RunClient(t, guarded)
	gun := registry + "/guarded/app"
	_, err := signer.CreateRepository(t.Context(), gun, "ci")
	must(t, err)
	must(t, signer.AddHash(t.Context(), gun, "v1", 512, strings.Repeat("5", 64), "targets/ci"))
	pin, err := signer.Root(gun)
	must(t, err)

	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: operator.Namespace, Name: "notary-reader"},
		Type:       corev1.SecretTypeBasicAuth,
		StringData: map[string]string{"username": auth.Username, "password": "wrong"},
	}
	b.create(t, secret)
	root := b.trustRoot("guarded")
	root.Spec.Notary.Server, root.Spec.Notary.CABundle = guarded.URL, v1alpha1.PEMBundle(guarded.CA.PEM)
	root.Spec.Notary.Root.KeyIDs = []v1alpha1.KeyID{v1alpha1.KeyID(pin.KeyID)}
	root.Spec.Notary.TokenServices = []string{guarded.TokenService}
	root.Spec.Notary.CredentialsSecretRef = &v1alpha1.SecretReference{Name: "notary-reader"}
	b.create(t, root)
	b.create(t, b.policy("guarded", registry+"/guarded/**", "guarded", "ci"))
	message := b.condition(t, root, "guarded", v1alpha1.ConditionFresh, metav1.ConditionFalse,
		v1alpha1.ReasonUnauthorized)
	if strings.Contains(message, "wrong") {
		t.Errorf("got message %q, want it without the password", message)
	}
	b.ready(t, &v1alpha1.ImagePolicy{}, "guarded", metav1.ConditionTrue, v1alpha1.ReasonInForce)
	b.denied(t, pod(production, gun+":v1"), http.StatusServiceUnavailable, `TrustRoot "guarded"`)

	secret.StringData = map[string]string{"password": auth.Password}
	must(t, b.Update(t.Context(), secret))
	b.awaitAdmitted(t, "the corrected Secret", production, gun+":v1")
}

// testClientCertificate uses a Notary server that requires a client certificate of its CA. The
// first Secret holds a certificate of another CA. The manager must use the corrected Secret.
func (b *bed) testClientCertificate(t *testing.T) {
	guarded := notaryserver.Run(t, notaryserver.Options{ClientCertificates: true})
	signer := notaryserver.RunClient(t, guarded)
	gun := registry + "/mutual/app"
	_, err := signer.CreateRepository(t.Context(), gun, "ci")
	must(t, err)
	must(t, signer.AddHash(t.Context(), gun, "v1", 512, strings.Repeat("5", 64), "targets/ci"))
	pin, err := signer.Root(gun)
	must(t, err)

	stranger, err := tlstest.NewCA("stranger")
	must(t, err)
	data := func(ca *tlstest.CA) map[string][]byte {
		cert, err := ca.Issue(pkix.Name{CommonName: "countersign"})
		must(t, err)
		return map[string][]byte{corev1.TLSCertKey: cert.CertPEM, corev1.TLSPrivateKeyKey: cert.KeyPEM}
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: operator.Namespace, Name: "notary-client"},
		Type:       corev1.SecretTypeTLS,
		Data:       data(stranger),
	}
	b.create(t, secret)
	root := b.trustRoot("mutual")
	root.Spec.Notary.Server, root.Spec.Notary.CABundle = guarded.URL, v1alpha1.PEMBundle(guarded.CA.PEM)
	root.Spec.Notary.Root.KeyIDs = []v1alpha1.KeyID{v1alpha1.KeyID(pin.KeyID)}
	root.Spec.Notary.ClientCertificateSecretRef = &v1alpha1.SecretReference{Name: "notary-client"}
	b.create(t, root)
	b.create(t, b.policy("mutual", registry+"/mutual/**", "mutual", "ci"))
	b.ready(t, &v1alpha1.ImagePolicy{}, "mutual", metav1.ConditionTrue, v1alpha1.ReasonInForce)
	b.denied(t, pod(production, gun+":v1"), http.StatusServiceUnavailable, `TrustRoot "mutual"`,
		"clientCertificateSecretRef")

	secret.Data = data(guarded.CA)
	must(t, b.Update(t.Context(), secret))
	b.awaitAdmitted(t, "the corrected Secret", production, gun+":v1")
	b.denied(t, pod(production, gun+":v2"), http.StatusForbidden, "has not signed")
}
