package install

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/cosign"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

const pullPassword = "s3cret-passw0rd"

// tenants is a bed with a registry that requires a password. Only pull secrets of the namespace
// shop have it.
type tenants struct {
	*bed
	images *distribution.Server
	cosign *cosign.Client
}

// testPullSecrets installs the component pull-secrets. The operator must read an image with the
// pull secrets of a namespace, with the rights of the component alone, and admit it there only.
func (b *bed) testPullSecrets(t *testing.T) {
	with := *b
	with.manifest = render(t, "pull-secrets")
	with.install(t)
	defer with.uninstall(t)
	deployment := find(t, objects(t, with.manifest), "Deployment", "countersign-manager")
	containers, _, err := unstructured.NestedSlice(deployment.Object, "spec", "template", "spec", "containers")
	must(t, err)
	args, _, err := unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
	must(t, err)
	if !slices.Contains(args, "--use-pull-secrets") {
		t.Errorf("got the flags %q of the component, want --use-pull-secrets among them", args)
	}
	with.manager(t, "--use-pull-secrets")
	b.serviceAccountIn(t, "lab")
	login := distribution.Options{Username: "reader", Password: pullPassword}
	c := &tenants{bed: &with, images: distribution.Run(t, login)}
	c.cosign = cosign.NewClient(t, c.images.CA)
	must(t, c.cosign.Login(c.images.Host, "reader", pullPassword))
	c.publish(t)
	defer c.pullSecret(t)()

	image, digest := c.push(t, "v1")
	lab := podWith("lab", image, "pull")
	poll.Await(t, "the policy to deny what it cannot check", func() error {
		return refusedAsUnread(c.Create(t.Context(), lab, client.DryRunAll), "lab", digest)
	})
	shop := podWith(covered, image, "pull")
	must(t, c.Create(t.Context(), shop, client.DryRunAll))
	if got, want := shop.Spec.Containers[0].Image, image+"@"+digest; got != want {
		t.Errorf("got image %s, want it pinned to %s", got, want)
	}
	for _, p := range []*corev1.Pod{lab, podWith("lab", image)} { // also while the evidence of shop is held
		must(t, refusedAsUnread(c.Create(t.Context(), p, client.DryRunAll), "lab", digest))
	}

	// The API server gives a Pod the pull secrets of its service account, but not a template.
	image, _ = c.push(t, "v2")
	must(t, c.Create(t.Context(), deploymentBy("builder", image), client.DryRunAll))
}

// serviceAccountIn creates a namespace if it is missing, and waits for its default ServiceAccount.
func (b *bed) serviceAccountIn(t *testing.T, namespace string) {
	t.Helper()
	must(t, client.IgnoreAlreadyExists(
		b.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})))
	b.serviceAccount(t, namespace)
}

// publish creates a trust root with the keys of ci and qa, without credentials, and a policy.
func (c *tenants) publish(t *testing.T) {
	t.Helper()
	root := &v1alpha1.TrustRoot{ObjectMeta: metav1.ObjectMeta{Name: "acme-sigstore"}, Spec: v1alpha1.TrustRootSpec{
		Registries: []v1alpha1.Registry{{Host: c.images.Host, CABundle: v1alpha1.RegistryCABundle(c.images.CA.PEM)}},
		Sigstore:   &v1alpha1.SigstoreSpec{},
	}}
	policy := &v1alpha1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Name: "tenants"}, Spec: v1alpha1.ImagePolicySpec{
		Images:     []v1alpha1.ImagePattern{v1alpha1.ImagePattern(c.images.Host + "/**")},
		TrustRoots: []v1alpha1.ObjectName{"acme-sigstore"},
	}}
	for _, role := range []v1alpha1.RoleName{"ci", "qa"} {
		public, err := c.cosign.GenerateKey(t.Context(), string(role))
		must(t, err)
		root.Spec.Sigstore.Roles = append(root.Spec.Sigstore.Roles, v1alpha1.SigstoreRole{
			Name: role, Keys: []v1alpha1.PEM{v1alpha1.PEM(public)},
		})
		policy.Spec.RequiredRoles = append(policy.Spec.RequiredRoles, v1alpha1.RoleRequirement{Role: role})
	}
	must(t, c.Create(t.Context(), root))
	must(t, c.Create(t.Context(), policy))
}

// pullSecret creates the pull secret in the namespace shop, and a service account that names it. It
// returns a function that deletes both.
func (c *tenants) pullSecret(t *testing.T) (remove func()) {
	t.Helper()
	made := []client.Object{
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: covered, Name: "pull"}, Type: corev1.SecretTypeDockerConfigJson,
			Data: map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil,
				`{"auths": {%q: {"username": "reader", "password": %q}}}`, c.images.Host, pullPassword)},
		},
		&corev1.ServiceAccount{
			ObjectMeta:       metav1.ObjectMeta{Namespace: covered, Name: "builder"},
			ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}},
		},
	}
	for _, o := range made {
		must(t, c.Create(t.Context(), o))
	}
	return func() {
		for _, o := range made {
			must(t, c.Delete(t.Context(), o))
		}
	}
}

// push pushes an image under a tag, and signs it as ci and qa.
func (c *tenants) push(t *testing.T, tag string) (image, digest string) {
	t.Helper()
	ref, err := name.NewTag(c.images.Host + "/acme/app:" + tag)
	must(t, err)
	made, err := random.Image(64, 1)
	must(t, err)
	must(t, remote.Write(ref, made, c.images.Options(t.Context())...))
	hash, err := made.Digest()
	must(t, err)
	for _, role := range []string{"ci", "qa"} {
		must(t, c.cosign.Sign(t.Context(), ref.Context().Digest(hash.String()).Name(), role, cosign.BundleLayout))
	}
	return ref.Name(), hash.String()
}

func podWith(namespace, image string, secrets ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "p-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}},
	}
	for _, s := range secrets {
		p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: s})
	}
	return p
}

// deploymentBy returns a Deployment in the namespace shop, which names a service account and no
// pull secret.
func deploymentBy(account, image string) *appsv1.Deployment {
	labels := map[string]string{"app": "x"}
	spec := podWith(covered, image).Spec
	spec.ServiceAccountName = account
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: covered, GenerateName: "d-"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec},
		},
	}
}

// refusedAsUnread returns nil if an image was denied because no pull secret of a namespace could
// read it. The denial must not tell its digest or the password.
func refusedAsUnread(err error, namespace, digest string) error {
	if !apierrors.IsServiceUnavailable(err) {
		return fmt.Errorf("got %w, want a denial with status 503", err)
	}
	for _, part := range []string{
		"could not check", fmt.Sprintf("no pull secret of namespace %q could read it", namespace),
	} {
		if !strings.Contains(err.Error(), part) {
			return fmt.Errorf("got %w, want %q in it", err, part)
		}
	}
	_, hash, _ := strings.Cut(digest, ":")
	for _, secret := range []string{hash[:12], pullPassword} {
		if strings.Contains(err.Error(), secret) {
			return fmt.Errorf("got %w, want no %q in it", err, secret)
		}
	}
	return nil
}
