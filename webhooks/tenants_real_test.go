package webhooks

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/pullsecrets"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/testenv/controlplane"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/test/digests"
)

const registryPassword = "s3cret-passw0rd"

// tenantsBench is a gate in front of a registry that lets in one user, whose password only pull
// secrets have. The namespaces shop and lab are those of an API server.
type tenantsBench struct {
	*bench
	plane      *controlplane.Plane
	server     *distribution.Server
	repository string
}

func newTenantsBench(t *testing.T) *tenantsBench {
	t.Helper()
	return newTenantsBenchOf(t, distribution.Options{Username: "reader", Password: registryPassword})
}

func newTenantsBenchOf(t *testing.T, options distribution.Options) *tenantsBench {
	t.Helper()
	b := &tenantsBench{
		plane:  controlplane.Run(t, namespaceOf("shop"), namespaceOf("lab")),
		server: distribution.Run(t, options),
	}
	b.repository = b.server.Host + "/acme/app"
	b.restart(t)
	return b
}

func namespaceOf(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// restart makes a new gate, which knows nothing.
func (b *tenantsBench) restart(t *testing.T) {
	t.Helper()
	b.bench = newBench(t, requireBoth(func(s *v1alpha1.ImagePolicySpec) {
		s.Images = []v1alpha1.ImagePattern{v1alpha1.ImagePattern(b.server.Host + "/**")}
		s.TrustRoots = []v1alpha1.ObjectName{"digests"}
	}))
	b.PullSecrets = pullsecrets.New(b.plane, b.clock)
	b.publish(t, "", "")
}

// publish publishes the trust root, with credentials of its own.
func (b *tenantsBench) publish(t *testing.T, username, password string) {
	t.Helper()
	settings := registry.Config{CABundle: string(b.server.CA.PEM), Username: username, Password: password}
	if b.server.Tokens != nil {
		settings.TokenServices = []string{b.server.Tokens.Host}
	}
	images, err := registry.NewImages(registry.ImagesConfig{
		Registries: map[string]registry.Config{b.server.Host: settings}, Hosts: registry.NewHosts(b.clock.Now),
	})
	if err != nil {
		t.Fatal(err)
	}
	root := digests.NewRoot(images, time.Hour, b.clock.Now)
	root.Keychain = b.PullSecrets
	b.Store.PutRoot("digests", store.Root{Verifier: root, Version: username})
	b.Tracker.Reset("digests", 24*time.Hour)
}

// push pushes an image under a tag, signed by some roles, and returns its digest.
func (b *tenantsBench) push(t *testing.T, tag string, roles ...string) string {
	t.Helper()
	ref, err := name.NewTag(b.repository + ":" + tag)
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image, b.server.Options(t.Context())...); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	b.sign(t, digest.String(), roles...)
	return digest.String()
}

func (b *tenantsBench) sign(t *testing.T, digest string, roles ...string) {
	t.Helper()
	ref, err := name.NewDigest(b.repository + "@" + digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range roles {
		if err := digests.Sign(ref, role, b.server.Options(t.Context())...); err != nil {
			t.Fatal(err)
		}
	}
}

// secret returns a pull secret of the user "reader" for the registry.
func (b *tenantsBench) secret(namespace, name, password string) *corev1.Secret {
	return b.secretOf(namespace, name, "reader", password)
}

func (b *tenantsBench) secretOf(namespace, name, username, password string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil,
			`{"auths": {%q: {"username": %q, "password": %q}}}`, b.server.Host, username, password)},
	}
}

func specOf(image, account string, secrets ...string) corev1.PodSpec {
	spec := corev1.PodSpec{
		Containers: []corev1.Container{{Name: "app", Image: image}}, ServiceAccountName: account,
	}
	for _, s := range secrets {
		spec.ImagePullSecrets = append(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: s})
	}
	return spec
}

func podIn(namespace string, spec corev1.PodSpec) request {
	return request{kind: "Pod", namespace: namespace, object: &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "app"}, Spec: spec,
	}}
}

func (b *tenantsBench) keyOf(tenant, digest string) trust.Key {
	return trust.Key{Root: "digests", Subject: trust.Subject{
		Repository: b.repository, Pulled: b.repository, Digest: digest, Tenant: tenant,
	}}
}

// wantSilent checks that neither the mutation nor the denial of a request tells a digest.
func (b *tenantsBench) wantSilent(t *testing.T, r request, digest string) {
	t.Helper()
	got := b.send(t, MutatePath, r.review(t))
	if len(got.Patch) > 0 || strings.Contains(fmt.Sprint(got), digest[:20]) {
		t.Errorf("the mutation told %s: %s %v", digest, got.Patch, got.Warnings)
	}
	denied := b.validate(t, r)
	if denied.Allowed || strings.Contains(denied.Result.Message, digest[7:20]) {
		t.Errorf("the answer told %s: %+v", digest, denied.Result)
	}
}

// TestThreatPullSecretsOfANamespace has a registry that lets in nobody but who has a pull secret.
func TestThreatPullSecretsOfANamespace(t *testing.T) {
	b := newTenantsBench(t)
	digest := b.push(t, "v1", "ci", "qa")
	b.plane.Make(t, b.secret("shop", "pull", registryPassword))
	b.plane.Make(t, b.secret("lab", "pull", "wrong"))
	b.plane.Make(t, &corev1.ServiceAccount{
		ObjectMeta:       metav1.ObjectMeta{Namespace: "shop", Name: "builder"},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}},
	})
	shop := podIn("shop", specOf(b.repository+":v1", "", "pull"))
	lab := podIn("lab", specOf(b.repository+":v1", "", "pull"))
	refusal := []string{
		"the registry wants a user name and password", `no pull secret of namespace "lab" could read it`,
		`access was refused (status 401) with Secret "pull"`,
	}

	// Before and after the evidence of shop is held, lab gets the refusal of the registry alone.
	wantDenied(t, b.validate(t, lab), 503, refusal...)
	stored, got := b.admit(t, shop)
	wantAdmitted(t, got)
	wantImage(t, stored, b.repository+":v1@"+digest)
	b.clock.Step(2 * time.Second)
	wantDenied(t, b.validate(t, lab), 503, refusal...)
	b.wantSilent(t, lab, digest)
	named := b.validate(t, podIn("lab", specOf(b.repository+"@"+digest, "")))
	wantDenied(t, named, 503, refusal...)
	if strings.Contains(named.Result.Message, "signed by") {
		t.Errorf("got the message %q, want no word of who signed", named.Result.Message)
	}
	for range 3 {
		b.clock.Step(2 * time.Second)
		_, got = b.admit(t, shop)
		wantAdmitted(t, got)
	}
	for _, secret := range []string{registryPassword, "reader"} {
		if text := b.validate(t, lab).Result.Message; strings.Contains(text, secret) {
			t.Errorf("got %q in the message %q", secret, text)
		}
	}

	// A template, by its service account.
	template := &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{
		Spec: specOf(b.repository+":v1", "builder"),
	}}}
	b.restart(t)
	wantAdmitted(t, b.validate(t, request{kind: "Deployment", namespace: "shop", object: template}))

	// Once lab has the password, it is admitted by its own evidence.
	b.clock.Step(6 * time.Second)
	if err := b.plane.Update(t.Context(), b.secret("lab", "pull", registryPassword)); err != nil {
		t.Fatal(err)
	}
	_, got = b.admit(t, lab)
	wantAdmitted(t, got)
}

// What a namespace's pull secrets read is a verdict, and it is read anew before a denial.
func TestDenialOfATenant(t *testing.T) {
	b := newTenantsBench(t)
	digest := b.push(t, "v1", "ci")
	b.plane.Make(t, b.secret("shop", "pull", registryPassword))
	shop := podIn("shop", specOf(b.repository+":v1", "", "pull"))
	for range 2 {
		b.clock.Step(2 * time.Second)
		wantDenied(t, b.validate(t, shop), 403, `role "qa" has not signed `+digest[:15])
	}
	b.sign(t, digest, "qa")
	b.clock.Step(2 * time.Second)
	_, got := b.admit(t, shop)
	wantAdmitted(t, got)

	// The trust root gets credentials that work: they count for all, and the pull secret is not
	// needed any more.
	if err := b.plane.Delete(t.Context(), b.secret("shop", "pull", "")); err != nil {
		t.Fatal(err)
	}
	b.publish(t, "reader", registryPassword)
	b.push(t, "v2", "ci")
	b.clock.Step(2 * time.Minute)
	wantDenied(t, b.validate(t, podIn("shop", specOf(b.repository+":v2", "", "pull"))), 403, `role "qa" has not signed`)
	_, got = b.admit(t, podIn("lab", specOf(b.repository+":v1", "")))
	wantAdmitted(t, got)
}

// A namespace whose pull secrets are refused loses its evidence: otherwise it could keep that by
// withdrawing its own pull secret before a signature is removed.
func TestThreatWithdrawnPullSecret(t *testing.T) {
	b := newTenantsBench(t)
	digest := b.push(t, "v1", "ci", "qa")
	b.plane.Make(t, b.secret("shop", "pull", registryPassword))
	byDigest := podIn("shop", specOf(b.repository+"@"+digest, "", "pull"))
	_, got := b.admit(t, byDigest)
	wantAdmitted(t, got)
	for _, step := range []struct { // in this order: the second deletes what the first updates
		what     string
		withdraw func() error
	}{
		{"another password", func() error { return b.plane.Update(t.Context(), b.secret("shop", "pull", "wrong")) }},
		{"no secret", func() error { return b.plane.Delete(t.Context(), b.secret("shop", "pull", "")) }},
	} {
		if err := step.withdraw(); err != nil {
			t.Fatal(err)
		}
		b.clock.Step(2 * time.Minute)
		if err := b.Tracker.Renew(t.Context(), b.keyOf("shop", digest), b.clock.Now()); err == nil {
			t.Fatalf("%s: the refresh succeeded", step.what)
		}
		wantDenied(t, b.validate(t, byDigest), 503, `no pull secret of namespace "shop" could read it`)
	}
	b.plane.Make(t, b.secret("shop", "pull", registryPassword))
	b.clock.Step(2 * time.Minute)
	_, got = b.admit(t, byDigest)
	wantAdmitted(t, got)

	// An outage of the registry is no refusal.
	if err := b.server.Stop(); err != nil {
		t.Fatal(err)
	}
	b.clock.Step(2 * time.Minute)
	if err := b.Tracker.Renew(t.Context(), b.keyOf("shop", digest), b.clock.Now()); err == nil {
		t.Fatal("the refresh succeeded, want a fault: the registry is stopped")
	}
	_, got = b.admit(t, byDigest)
	wantAdmitted(t, got)
}

// After a restart the evidence of a namespace is read with the pull secrets of the Pods that run
// there, without a request, and it counts from records while the registry is down.
func TestTenantAfterARestart(t *testing.T) {
	b := newTenantsBench(t)
	digest := b.push(t, "v1", "ci", "qa")
	b.plane.Make(t, b.secret("shop", "pull", registryPassword))
	b.plane.Make(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "default"}})
	running := podIn("shop", specOf(b.repository+":v1", "", "pull"))
	if pod, ok := running.object.(*corev1.Pod); ok {
		b.plane.Make(t, pod)
	}
	if err := b.Tracker.Ensure(t.Context(), b.keyOf("shop", digest)); err != nil {
		t.Fatalf("got %v, want the pull secret of the Pod that runs", err)
	}
	if err := b.Tracker.Ensure(t.Context(), b.keyOf("lab", digest)); err == nil {
		t.Error("the evidence of lab was read, want a refusal: nothing runs there")
	}
	_, got := b.admit(t, running)
	wantAdmitted(t, got)

	root := b.Store.Load().Root("digests")
	keeper, ok := root.Verifier.(trust.Keeper)
	if !ok {
		t.Fatal("the trust root keeps no records")
	}
	repository := b.keyOf("", "").InRepository()
	packed, err := keeper.Pack(b.Store.Load().Verified(repository))
	if err != nil {
		t.Fatal(err)
	}
	b.restart(t)
	if err := b.Tracker.Restore(repository, b.Store.Load().Root("digests"), packed); err != nil {
		t.Fatal(err)
	}
	if err := b.server.Stop(); err != nil {
		t.Fatal(err)
	}
	b.Deadline = 2 * time.Second
	_, got = b.admit(t, podIn("shop", specOf(b.repository+"@"+digest, "", "pull")))
	wantAdmitted(t, got)
	wantDenied(t, b.validate(t, podIn("lab", specOf(b.repository+"@"+digest, "", "pull"))), 503)
}

// Without the flag no Secret is read, and no namespace has evidence of its own.
func TestThreatNoPullSecretsWithoutTheFlag(t *testing.T) {
	b := newTenantsBench(t)
	digest := b.push(t, "v1", "ci", "qa")
	b.plane.Make(t, b.secret("shop", "pull", registryPassword))
	var off *pullsecrets.Finder
	b.PullSecrets = off
	images, err := registry.NewImages(registry.ImagesConfig{
		Registries: map[string]registry.Config{b.server.Host: {CABundle: string(b.server.CA.PEM)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	root := digests.NewRoot(images, time.Hour, b.clock.Now)
	root.Keychain = off.Keychain()
	b.Store.PutRoot("digests", store.Root{Verifier: root, Version: "off"})
	got := b.validate(t, podIn("shop", specOf(b.repository+":v1", "", "pull")))
	wantDenied(t, got, 503, "the registry wants a user name and password")
	if strings.Contains(got.Result.Message, "pull secret") {
		t.Errorf("got the message %q, want nothing of pull secrets", got.Result.Message)
	}
	if err := b.Tracker.Ensure(t.Context(), b.keyOf("shop", digest)); err == nil ||
		!strings.Contains(err.Error(), "--use-pull-secrets") {
		t.Errorf("got %v, want a fault: pull secrets are not in use", err)
	}
}
