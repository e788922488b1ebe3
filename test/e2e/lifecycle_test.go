package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// testManagerDown checks that without a manager only exempt namespaces admit Pods. Break-glass does
// not help: there is no manager to warn, count and record.
func (b *bed) testManagerDown(t *testing.T) {
	b.namespaceFor(t, exempted, nil)
	b.breakGlass(t, "=INC-2")
	b.awaitAdmitted(t, "break-glass", emergency, registry+"/acme/unsigned:v1")
	must(t, b.manager.Stop())
	for _, namespace := range []string{"kube-system", "kube-public", "kube-node-lease", operator.Namespace, exempted} {
		t.Run("exempt "+namespace, func(t *testing.T) {
			b.serviceAccount(t, namespace)
			p := pod(namespace, registry+"/acme/unsigned:v1")
			b.admitted(t, p)
			must(t, b.Delete(t.Context(), p))
		})
	}
	for _, namespace := range []string{"default", "sandbox", production, emergency} {
		t.Run("shut "+namespace, func(t *testing.T) {
			b.serviceAccount(t, namespace)
			refused(t, b.Create(t.Context(), pod(namespace, "docker.io/library/nginx:1")),
				http.StatusInternalServerError, "failed calling webhook")
		})
	}
	t.Run("the way out", b.testWayOut)
}

// testWayOut deletes both webhook configurations as docs/break-glass.md says. Then it restores them
// for the next tests.
func (b *bed) testWayOut(t *testing.T) {
	mutating, validating := &admissionv1.MutatingWebhookConfiguration{}, &admissionv1.ValidatingWebhookConfiguration{}
	for _, o := range []client.Object{mutating, validating} {
		must(t, b.Get(t.Context(), client.ObjectKey{Name: "countersign"}, o))
		o.SetResourceVersion("")
		o.SetUID("")
	}
	if got := *validating.Webhooks[0].SideEffects; got != admissionv1.SideEffectClassNoneOnDryRun {
		t.Errorf("got side effects %s, want NoneOnDryRun: break-glass writes events", got)
	}
	out, err := b.kube.RunKubectl(t.Context(), "", "delete",
		"mutatingwebhookconfigurations,validatingwebhookconfigurations", "countersign")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const unsigned = registry + "/acme/unsigned:v1"
	b.awaitAdmitted(t, "an unsigned Pod", production, unsigned)
	b.create(t, mutating)
	b.create(t, validating)
	poll.Await(t, "the gate to be shut again", func() error {
		if b.Create(t.Context(), pod(production, unsigned), client.DryRunAll) == nil {
			return errors.New("still admitted")
		}
		return nil
	})
}

// testManagerBack starts another manager, on other ports, in a cluster that had one before.
func (b *bed) testManagerBack(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	b.sign(t, gun, "v1", 1, "ci", "qa")
	operator.Run(t, b.kube)
	b.awaitAdmitted(t, "a signed Pod", production, gun+":v1")
	b.denied(t, pod(production, gun+":unsigned"), http.StatusForbidden, `role "ci" has not signed`)

	// Without its CRDs the manager admits everything. It enforces policies again soon after the
	// CRDs are back.
	b.deleteCRDs(t)
	b.awaitAdmitted(t, "an unsigned Pod", production, gun+":unsigned")
	_, err := envtest.InstallCRDs(b.kube.Config,
		envtest.CRDInstallOptions{Paths: []string{"../../config/crd"}, ErrorIfPathMissing: true})
	must(t, err)
	for _, o := range []client.Object{
		b.trustRoot("acme-notary"), b.policy("production", registry+"/acme/**", "acme-notary", "ci", "qa"),
	} {
		// The API server may list a kind a moment before it serves it.
		poll.Await(t, "the creation of "+o.GetName(), func() error { return b.Create(t.Context(), o) })
	}
	b.awaitDenied(t, "the gate to be shut again", production, gun+":unsigned")
	b.ready(t, &v1alpha1.ImagePolicy{}, "production", metav1.ConditionTrue, v1alpha1.ReasonInForce)
}

// testUninstalled deletes the owner of the webhook configurations while no manager runs. Then no
// webhook may block workloads.
func (b *bed) testUninstalled(t *testing.T) {
	must(t,
		b.Delete(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "countersign-webhook-owner"}}))
	b.awaitAdmitted(t, "an unsigned Pod", production, registry+"/acme/unsigned:v1")
}

func (b *bed) deleteCRDs(t *testing.T) {
	t.Helper()
	for _, name := range []string{"imagepolicies.countersign.dev", "trustroots.countersign.dev"} {
		crd := &unstructured.Unstructured{}
		crd.SetName(name)
		crd.SetGroupVersionKind(schema.GroupVersionKind{
			Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition",
		})
		must(t, b.Delete(t.Context(), crd))
		poll.Await(t, "the deletion of "+name, func() error {
			if err := b.Get(t.Context(), client.ObjectKeyFromObject(crd), crd); !apierrors.IsNotFound(err) {
				return fmt.Errorf("got %w, want not found", err)
			}
			return nil
		})
	}
	kubeserver.AwaitKindsGone(t, b.kube)
}
