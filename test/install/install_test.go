package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// TestInstall tests an installation in one cluster. Each subtest leaves the cluster empty.
func TestInstall(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	t.Run("applied", b.testApplied)
	t.Run("before its CRDs", b.testBeforeCRDs)
	t.Run("first endpoint", b.testFirstEndpoint)
	t.Run("adopted", b.testAdopted)
	t.Run("rights", b.testRights)
	t.Run("restricted", b.testRestricted)
	t.Run("pull secrets", b.testPullSecrets)
	t.Run("metrics", b.testMetrics)
	t.Run("no OpenShift", b.testNoOpenShift)
	t.Run("beside others", b.testBesideOthers)
}

// testApplied checks that an applied manifest leads to a working gate, and that a second apply
// changes nothing.
func (b *bed) testApplied(t *testing.T) {
	b.install(t)
	defer b.uninstall(t)
	// A diff reads the object twice. A controller's update in between looks like a difference, and
	// a retry ends it. A difference that we cause would stay.
	poll.Await(t, "a manifest that changes nothing when it is applied again", func() error {
		out, err := b.kube.RunKubectl(t.Context(), b.manifest, "diff", "-f", "-")
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
	if out, err := b.kube.RunKubectl(t.Context(), "", "apply", "--dry-run=server", "-f",
		"../../config/samples"); err != nil {
		t.Errorf("the samples: %v\n%s", err, out)
	}
	t.Run("Pods are created, under restricted Pod Security", b.testPodsMade)
	b.manager(t)
	b.policy(t)
}

// testBeforeCRDs starts the manager before its CRDs are in force, as can happen while a manifest is
// applied.
func (b *bed) testBeforeCRDs(t *testing.T) {
	defer b.uninstall(t)
	var crds, others []*unstructured.Unstructured
	for _, o := range objects(t, b.manifest) {
		if o.GetKind() == "CustomResourceDefinition" {
			crds = append(crds, o)
		} else {
			others = append(others, o)
		}
	}
	for _, o := range others {
		must(t, b.Create(t.Context(), o))
	}
	dir, applied := t.TempDir(), make(chan error, 1)
	go func() {
		applied <- wait.PollUntilContextCancel(t.Context(), 50*time.Millisecond, true,
			func(ctx context.Context) (bool, error) {
				log, _ := os.ReadFile(filepath.Join(dir, "countersign.log"))
				if !bytes.Contains(log,
					[]byte("CustomResourceDefinition imagepolicies.countersign.dev is not in force")) {
					return false, nil
				}
				return true, errors.Join(b.Create(ctx, crds[0]), b.Create(ctx, crds[1]))
			})
	}()
	m, err := operator.Start(t.Context(), b.kube, operator.Options{Binary: b.binary, Dir: dir})
	must(t, err)
	defer func() { must(t, m.Stop()) }()
	must(t, <-applied)
	b.policy(t)
}

// testFirstEndpoint runs the manager behind its Service, as in an installation. Until the Service
// has a ready endpoint, everything must be admitted, and every policy must report that.
func (b *bed) testFirstEndpoint(t *testing.T) {
	b.install(t)
	defer b.uninstall(t)
	policy := everything()
	must(t, b.Create(t.Context(), policy))
	endpoint := make(chan error, 1)
	go func() {
		err := wait.PollUntilContextCancel(t.Context(), 50*time.Millisecond, true,
			func(ctx context.Context) (bool, error) {
				if err := b.Get(ctx, client.ObjectKeyFromObject(policy), policy); err != nil {
					return false, err
				}
				gated := meta.FindStatusCondition(policy.Status.Conditions, v1alpha1.ConditionGated)
				return gated != nil && gated.Reason == v1alpha1.ReasonWaitingForEndpoints, nil
			})
		endpoint <- errors.Join(err, b.open(t, covered), b.Create(t.Context(), &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: operator.Namespace, Name: "ready", Labels: map[string]string{
				discoveryv1.LabelServiceName: "countersign-webhook",
			}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints: []discoveryv1.Endpoint{{
				Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
			}},
		}))
	}()
	b.manager(t, "--webhook-url=") // returns when both configurations exist
	must(t, <-endpoint)
	poll.Await(t, "the gate to be shut", func() error { return b.shut(t, covered) })
}

// testPodsMade checks that three Pods of the manager are created, without a fixed user, and that a
// Pod that violates the restricted Pod Security is refused in their namespace.
func (b *bed) testPodsMade(t *testing.T) {
	pods := &corev1.PodList{}
	poll.Await(t, "three Pods", func() error {
		events := &corev1.EventList{}
		if err := errors.Join(
			b.List(t.Context(), pods, client.InNamespace(operator.Namespace)),
			b.List(t.Context(), events, client.InNamespace(operator.Namespace)),
		); err != nil {
			return err
		}
		if len(pods.Items) != 3 {
			return fmt.Errorf("got %d; events: %v", len(pods.Items), events.Items)
		}
		return nil
	})
	for _, p := range pods.Items {
		if p.Spec.SecurityContext.RunAsUser != nil || p.Spec.Containers[0].SecurityContext.RunAsUser != nil {
			t.Errorf("%s: got security context %v, want no fixed user", p.Name, p.Spec.SecurityContext)
		}
		if p.Spec.Containers[0].Image != image {
			t.Errorf("%s: got image %q, want %q", p.Name, p.Spec.Containers[0].Image, image)
		}
		if p.Spec.PriorityClassName != "system-cluster-critical" || len(p.Spec.TopologySpreadConstraints) != 2 {
			t.Errorf("%s: got priority class %q and constraints %v, want system-cluster-critical and two constraints",
				p.Name, p.Spec.PriorityClassName, p.Spec.TopologySpreadConstraints)
		}
	}
	privileged := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: operator.Namespace, GenerateName: "p-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}},
	}
	if err := b.Create(t.Context(), privileged); err == nil ||
		!strings.Contains(err.Error(), `violates PodSecurity "restricted`) {
		t.Errorf("a Pod without restrictions: got %v, want a violation of PodSecurity", err)
	}
}

// TestUninstall deletes the objects in several orders, with the operator alive and dead. It has its
// own cluster, so that it can run in parallel with TestInstall: both mostly wait.
func TestUninstall(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	all := objects(t, b.manifest)
	first := func(match func(*unstructured.Unstructured) bool) func([]*unstructured.Unstructured) {
		return func(order []*unstructured.Unstructured) {
			slices.SortStableFunc(order, func(x, y *unstructured.Unstructured) int {
				switch {
				case match(x) == match(y):
					return 0
				case match(x):
					return -1
				}
				return 1
			})
		}
	}
	kind := func(part string) func(*unstructured.Unstructured) bool {
		return func(o *unstructured.Unstructured) bool { return strings.Contains(o.GetKind(), part) }
	}
	owner := func(o *unstructured.Unstructured) bool { return o.GetName() == "countersign-webhook-owner" }
	for name, order := range map[string]func([]*unstructured.Unstructured){
		"as written":          func([]*unstructured.Unstructured) {},
		"the other way round": slices.Reverse[[]*unstructured.Unstructured],
		"CRDs first":          first(kind("CustomResourceDefinition")),
		"rights first":        first(kind("Role")),
		"Deployment first":    first(kind("Deployment")),
		"owner first":         first(owner),
		"owner last":          first(func(o *unstructured.Unstructured) bool { return !owner(o) }),
		"namespace last, CRDs too": first(func(o *unstructured.Unstructured) bool {
			return !kind("Namespace")(o) && !kind("CustomResource")(o)
		}),
	} {
		for _, dead := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, operator dead=%t", name, dead), func(t *testing.T) {
				b.install(t)
				m := b.manager(t)
				b.gate(t)
				if dead {
					must(t, m.Kill())
				}
				sequence := slices.Clone(all)
				order(sequence)
				for _, o := range sequence {
					if err := b.Delete(t.Context(), o); client.IgnoreNotFound(err) != nil {
						t.Fatalf("deleting %s %s: %v", o.GetKind(), o.GetName(), err)
					}
				}
				b.uninstalled(t, b.manifest)
			})
		}
	}
	t.Run("kubectl delete", func(t *testing.T) {
		b.install(t)
		b.manager(t)
		b.gate(t)
		out, err := b.kube.RunKubectl(t.Context(), b.manifest, "delete", "--timeout=150s", "-f", "-")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		b.uninstalled(t, b.manifest)
	})
}

// gate ensures that a policy is in force. The policy may exist already.
func (b *bed) gate(t *testing.T) {
	t.Helper()
	if b.shut(t, covered) != nil {
		b.policy(t)
	}
	if got := b.configurations(t); len(got) != 2 {
		t.Fatalf("got webhook configurations %v, want both", got)
	}
}

// uninstall deletes the objects of the manifest.
func (b *bed) uninstall(t *testing.T) {
	t.Helper()
	out, err := b.kube.RunKubectl(t.Context(), b.manifest, "delete", "--ignore-not-found", "--timeout=150s", "-f", "-")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b.uninstalled(t, b.manifest)
}

// testAdopted creates the webhook configurations of an earlier version, which the CRD owns. The
// manager must adopt them without deleting them, so that none is missing for a moment.
func (b *bed) testAdopted(t *testing.T) {
	b.install(t)
	defer b.uninstall(t)
	crd := find(t, objects(t, b.manifest), "CustomResourceDefinition", "imagepolicies.countersign.dev")
	must(t, b.Get(t.Context(), client.ObjectKeyFromObject(crd), crd))
	earlier := metav1.ObjectMeta{Name: "countersign", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: crd.GetAPIVersion(), Kind: crd.GetKind(), Name: crd.GetName(), UID: crd.GetUID()},
	}}
	mutating := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: earlier}
	validating := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: earlier}
	must(t, b.Create(t.Context(), mutating))
	must(t, b.Create(t.Context(), validating))
	b.manager(t)
	b.policy(t)
	for _, o := range []client.Object{mutating, validating} {
		uid := o.GetUID()
		poll.Await(t, "the new owner", func() error {
			if err := b.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
				return err
			}
			if owners := o.GetOwnerReferences(); len(owners) != 1 || owners[0].Kind != "ClusterRole" ||
				owners[0].Name != "countersign-webhook-owner" || o.GetUID() != uid {
				return fmt.Errorf("got owners %v and UID %s, want the ClusterRole and %s", owners, o.GetUID(), uid)
			}
			return nil
		})
	}
}

// TestCertManagerKeepsTheKeyOfTheCA checks that cert-manager renews the CA with the same key: by
// default it makes another key. Replicas read a renewed certificate at different times, and with
// the same key either CA certificate verifies it. TestMounted tests that.
func TestCertManagerKeepsTheKeyOfTheCA(t *testing.T) {
	ca := find(t, objects(t, render(t, "cert-manager")), "Certificate", "countersign-webhook-ca")
	policy, _, err := unstructured.NestedString(ca.Object, "spec", "privateKey", "rotationPolicy")
	if err != nil || policy != "Never" {
		t.Errorf("got rotation policy %q of the CA's key (%v), want Never", policy, err)
	}
}
