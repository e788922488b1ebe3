// Package install applies the rendered installation to a real API server, as a user would, and
// deletes it again. The manager runs outside of the cluster, with a token of the installed
// ServiceAccount. So it has the rights of the installation, and no others.
package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/kustomize"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

const (
	image     = "registry.example.com/countersign/countersign:v0.1.0"
	covered   = "shop"
	unsigned  = "registry.example.com/acme/app:v1"
	forbidden = "is forbidden"
)

// bed is an empty cluster with a manifest to install in it.
type bed struct {
	client.Client
	kube     *kubeserver.Server
	binary   string
	manifest string
}

// TestMain discards the logs of controller-runtime's clients. The process has one logger and the
// tests run in parallel, so no single test may set it.
func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// newBed starts a cluster without our CRDs.
func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{kube: kubeserver.Run(t, kubeserver.Options{ControllerManager: true, WithoutCRDs: true})}
	scheme := runtime.NewScheme()
	must(t, clientgoscheme.AddToScheme(scheme))
	must(t, v1alpha1.AddToScheme(scheme))
	c, err := client.New(b.kube.Config, client.Options{Scheme: scheme})
	must(t, err)
	b.Client = c
	b.binary, err = operator.Build(t.Context(), t.TempDir(), true)
	must(t, err)
	b.manifest = render(t)
	must(t, b.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: covered}}))
	b.serviceAccount(t, covered)
	return b
}

// serviceAccount waits for the default ServiceAccount of a namespace. Pods need it.
func (b *bed) serviceAccount(t *testing.T, namespace string) {
	t.Helper()
	poll.Await(t, "the service account of "+namespace, func() error {
		return b.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "default"}, &corev1.ServiceAccount{})
	})
}

// render returns the manifest of the installation with components.
func render(t *testing.T, components ...string) string {
	t.Helper()
	text, err := kustomize.Render(t.Context(), os.Stderr, kustomize.Overlay{Image: image, Components: components})
	must(t, err)
	return string(text)
}

// objects returns the objects of a manifest in their order.
func objects(t *testing.T, manifest string) []*unstructured.Unstructured {
	t.Helper()
	var all []*unstructured.Unstructured
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader([]byte(manifest)), 4096); ; {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(o); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
}

// install applies the manifest with kubectl.
func (b *bed) install(t *testing.T) {
	t.Helper()
	out, err := b.kube.RunKubectl(t.Context(), b.manifest, "apply", "-f", "-")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// manager runs a manager until the test ends. Its rights may be deleted before it stops.
func (b *bed) manager(t *testing.T, args ...string) *operator.Manager {
	t.Helper()
	return operator.RunWith(t, b.kube, operator.Options{Binary: b.binary, Args: args, MayMissRights: true})
}

// policy creates a policy that no image can meet, because its trust root is missing, and waits
// until it is in force.
func (b *bed) policy(t *testing.T) {
	t.Helper()
	must(t, b.Create(t.Context(), everything()))
	poll.Await(t, "the gate to be shut", func() error { return b.shut(t, covered) })
}

// everything returns a policy for every image of a registry.
func everything() *v1alpha1.ImagePolicy {
	return &v1alpha1.ImagePolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "everything"},
		Spec: v1alpha1.ImagePolicySpec{
			Images: []v1alpha1.ImagePattern{"registry.example.com/**"}, TrustRoots: []v1alpha1.ObjectName{"missing"},
			RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}},
		},
	}
}

// open returns nil if a Pod that meets no policy is admitted.
func (b *bed) open(t *testing.T, namespace string) error {
	t.Helper()
	return b.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "p-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: unsigned}}},
	}, client.DryRunAll)
}

// shut returns nil if such a Pod is denied: by our webhook, or because the webhook does not
// respond.
func (b *bed) shut(t *testing.T, namespace string) error {
	t.Helper()
	err := b.open(t, namespace)
	if err != nil &&
		(strings.Contains(err.Error(), `webhook "validate.countersign.dev"`) ||
			strings.Contains(err.Error(), `webhook "mutate.countersign.dev"`)) {
		return nil
	}
	return fmt.Errorf("got %w, want a denial by the webhook", err)
}

// configurations returns the types of our webhook configurations that exist.
func (b *bed) configurations(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, o := range []client.Object{
		&admissionv1.MutatingWebhookConfiguration{}, &admissionv1.ValidatingWebhookConfiguration{},
	} {
		switch err := b.Get(t.Context(), client.ObjectKey{Name: "countersign"}, o); {
		case err == nil:
			found = append(found, fmt.Sprintf("%T", o))
		case !apierrors.IsNotFound(err):
			t.Fatal(err)
		}
	}
	return found
}

// uninstalled waits until no object of a manifest and no webhook configuration exists, and Pods are
// admitted.
func (b *bed) uninstalled(t *testing.T, manifest string) {
	t.Helper()
	poll.Await(t, "everything to be gone", func() error {
		for _, o := range objects(t, manifest) {
			if err := b.Get(t.Context(), client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
				return fmt.Errorf("%s %s: got %w, want not found", o.GetKind(), o.GetName(), err)
			}
		}
		return nil
	})
	poll.Await(t, "the webhook configurations to be gone", func() error {
		if found := b.configurations(t); len(found) > 0 {
			return fmt.Errorf("got %v, want none", found)
		}
		return nil
	})
	kubeserver.AwaitKindsGone(t, b.kube)
	poll.Await(t, "the API server to call no webhook", func() error { return b.open(t, covered) })
}

// find returns the object with a kind and name.
func find(t *testing.T, all []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	t.Helper()
	i := slices.IndexFunc(all, func(o *unstructured.Unstructured) bool {
		return o.GetKind() == kind && o.GetName() == name
	})
	if i < 0 {
		t.Fatalf("got no %s %s in the manifest, want one", kind, name)
	}
	return all[i]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
