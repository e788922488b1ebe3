package certificate

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/controllers/gate"
	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/internal/certs"
	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/testenv/controlplane"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

const webhookHost = "countersign-webhook.countersign-system.svc"

// certificateBed is an API server with the operator's namespace.
type certificateBed struct {
	*controlplane.Plane
	store *store.Store
}

// TestServingCertificate keeps the certificate and the webhook configurations on a real API server.
func TestServingCertificate(t *testing.T) {
	b := &certificateBed{store: store.New(store.Options{})}
	b.store.MarkPrimed()
	b.Plane = controlplane.Run(t,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operator.Namespace}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: gate.OwnerName}},
		&discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: operator.Namespace, GenerateName: gate.ServiceName + "-",
				Labels: map[string]string{discoveryv1.LabelServiceName: gate.ServiceName},
			},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints: []discoveryv1.Endpoint{
				{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}},
			},
		},
	)
	t.Run("mounted", b.testMounted)
	t.Run("certificate fails", b.testCertificateFails)
	t.Run("another leader meanwhile", b.testAnotherLeader)
	t.Run("only the leader writes", b.testOnlyTheLeaderWrites)
}

func (b *certificateBed) reconciler(c client.Client, authority gate.CertificateAuthority) *gate.Reconciler {
	return &gate.Reconciler{
		Client: c, Live: b, Store: b.store, Namespace: operator.Namespace, Certificate: authority,
		Exempt: flags.Exempt{Names: []string{"kube-system"}}, MutatePath: "/mutate", ValidatePath: "/validate",
		Clock: clock.RealClock{},
	}
}

// configured returns the bundles of both configurations.
func (b *certificateBed) configured(t *testing.T) [][]byte {
	t.Helper()
	mutating, validating := &admissionv1.MutatingWebhookConfiguration{}, &admissionv1.ValidatingWebhookConfiguration{}
	for _, o := range []client.Object{mutating, validating} {
		if err := b.Get(t.Context(), client.ObjectKey{Name: gate.ConfigurationName},
			o); client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
	}
	bundles := make([][]byte, 2)
	if len(mutating.Webhooks) > 0 {
		bundles[0] = mutating.Webhooks[0].ClientConfig.CABundle
	}
	if len(validating.Webhooks) > 0 {
		bundles[1] = validating.Webhooks[0].ClientConfig.CABundle
	}
	return bundles
}

// made returns the Secret that an operator made so long ago.
func (b *certificateBed) made(t *testing.T, ago time.Duration) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operator.Namespace, Name: certs.SecretName}}
	if err := client.IgnoreNotFound(b.Delete(t.Context(), secret)); err != nil {
		t.Fatal(err)
	}
	past := &certs.Own{
		Client: b, Namespace: operator.Namespace, Host: webhookHost,
		Clock: clocktesting.NewFakePassiveClock(time.Now().Add(-ago)),
	}
	if _, _, err := past.CABundle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Get(t.Context(), client.ObjectKeyFromObject(secret), secret); err != nil {
		t.Fatal(err)
	}
	return secret
}

// testMounted tests that the configurations follow ca.crt in a folder, and retain the previous CA
// for a while.
func (b *certificateBed) testMounted(t *testing.T) {
	dir := t.TempDir()
	mount := func(ago time.Duration) []byte {
		data := b.made(t, ago).Data
		for name, content := range data {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return data["ca.crt"]
	}
	want := slices.Concat(mount(time.Hour), b.configured(t)[0])
	mounted, err := certs.NewMounted(dir, clock.RealClock{})
	if err != nil {
		t.Fatal(err)
	}
	r := b.reconciler(b, mounted)
	for range 2 {
		result, err := r.Reconcile(t.Context(), ctrl.Request{})
		if err != nil || result.RequeueAfter <= 0 || result.RequeueAfter > time.Minute {
			t.Fatalf("Reconcile = %v, %v; want a requeue", result, err)
		}
		for _, got := range b.configured(t) {
			if !bytes.Equal(got, want) {
				t.Errorf("a configuration holds %q, want %q", got, want)
			}
		}
		want = slices.Concat(mount(2*time.Hour), want)
	}
}

// faulty is a certificate that cannot be read.
type faulty struct{}

func (faulty) CABundle(context.Context, ...[]byte) ([]byte, time.Duration, error) {
	return nil, 0, errors.New("no Secret today")
}

// testCertificateFails tests that a manipulated configuration is restored while the certificate
// fails.
func (b *certificateBed) testCertificateFails(t *testing.T) {
	before := b.configured(t)
	c := &admissionv1.ValidatingWebhookConfiguration{}
	if err := b.Get(t.Context(), client.ObjectKey{Name: gate.ConfigurationName}, c); err != nil {
		t.Fatal(err)
	}
	c.Webhooks = nil
	if err := b.Update(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := b.reconciler(b, faulty{}).Reconcile(t.Context(), ctrl.Request{}); err == nil {
		t.Error("Reconcile returned no error, want the fault of the certificate")
	}
	for i, got := range b.configured(t) {
		if len(got) == 0 || !bytes.Equal(got, before[0]) {
			t.Errorf("configuration %d holds %q", i, got)
		}
	}
}

// overtaken is a leader that lost its lease and does not know it yet: while it reads the Secret,
// the next leader writes the configurations.
type overtaken struct {
	*certificateBed
	bundle, newer []byte
}

func (o *overtaken) CABundle(ctx context.Context, _ ...[]byte) ([]byte, time.Duration, error) {
	c := &admissionv1.MutatingWebhookConfiguration{}
	if err := o.Get(ctx, client.ObjectKey{Name: gate.ConfigurationName}, c); err != nil {
		return nil, 0, err
	}
	c.Webhooks[0].ClientConfig.CABundle = o.newer
	return o.bundle, time.Minute, o.Update(ctx, c)
}

func (b *certificateBed) testAnotherLeader(t *testing.T) {
	first := b.configured(t)[0]
	if len(first) == 0 {
		t.Fatal("nothing is configured")
	}
	newer := b.made(t, time.Hour).Data["ca.crt"]
	late := &overtaken{certificateBed: b, bundle: b.made(t, 2*time.Hour).Data["ca.crt"], newer: newer}
	result, err := b.reconciler(b, late).Reconcile(t.Context(), ctrl.Request{})
	if err != nil || result.RequeueAfter != requests.ConflictRetry {
		t.Errorf("result = %v, error = %v, want a retry after the conflict", result, err)
	}
	if !bytes.Equal(b.configured(t)[0], newer) {
		t.Error("the bundle of the next leader was overwritten")
	}
}

// testOnlyTheLeaderWrites runs a replica while another leads and the certificate is due, and then
// makes it the leader.
func (b *certificateBed) testOnlyTheLeaderWrites(t *testing.T) {
	first := b.made(t, 61*24*time.Hour)
	lease := b.HoldLease(t, operator.Namespace, "leader")
	mgr := b.NewManager(t, nil, ctrl.Options{
		LeaderElection: true, LeaderElectionID: lease.Name, LeaderElectionNamespace: lease.Namespace,
		LeaderElectionReleaseOnCancel: true,
	})
	own := &certs.Own{Client: b, Namespace: operator.Namespace, Host: webhookHost, Clock: clock.RealClock{}}
	err := errors.Join(
		(&Reconciler{Client: mgr.GetClient(), Certificate: own}).SetupWithManager(mgr),
		b.reconciler(mgr.GetClient(), own).SetupWithManager(mgr),
	)
	if err != nil {
		t.Fatal(err)
	}
	controlplane.Start(t, mgr)
	poll.AwaitTrue(t, "the certificate on a replica that does not lead", func() bool { return serves(own, first) })

	second := b.made(t, 62*24*time.Hour)
	second.Annotations = map[string]string{
		"countersign.dev/trusted-since": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339),
	}
	if err := b.Update(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	poll.AwaitTrue(t, "the certificate that replaced it", func() bool { return serves(own, second) })
	now := &corev1.Secret{}
	if err := b.Get(t.Context(), client.ObjectKeyFromObject(second), now); err != nil {
		t.Fatal(err)
	}
	if now.ResourceVersion != second.ResourceVersion {
		t.Error("a replica that does not lead has written the Secret")
	}

	if err := b.Delete(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	poll.AwaitTrue(t, "the next certificate, once it leads", func() bool {
		return b.Get(t.Context(), client.ObjectKeyFromObject(second), now) == nil &&
			!bytes.Equal(now.Data["tls.crt"], second.Data["tls.crt"]) &&
			now.Annotations["countersign.dev/trusted-since"] != ""
	})
	for i, got := range b.configured(t) {
		if !bytes.Equal(got, now.Data["ca.crt"]) || !bytes.Contains(got, second.Data["ca.crt"]) {
			t.Errorf("configuration %d does not hold the old CA and the new one", i)
		}
	}
	if !serves(own, second) {
		t.Error("the new certificate is served before API servers know it")
	}
}

// serves reports whether the serving certificate is the one in a Secret.
func serves(own *certs.Own, secret *corev1.Secret) bool {
	c, err := own.GetCertificate(nil)
	return err == nil &&
		bytes.Contains(secret.Data["tls.crt"],
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))
}
