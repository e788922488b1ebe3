//go:build node && linux

package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// removal is how long kubectl delete may take.
const removal = 2 * time.Minute

// uninstall deletes the manifests while the operator lives and a policy is in force.
func (b *bed) uninstall(t *testing.T) {
	b.remove(t, b.Operators[1])
}

// uninstallDead installs again, this time into the network of the node, and deletes the manifests
// when no replica lives that could give way.
func (b *bed) uninstallDead(t *testing.T) {
	b.installOnHost(t)
	must(t, b.Create(t.Context(), b.trustRoot()))
	must(t, b.Create(t.Context(), b.policy()))
	b.inForce(t)
	b.asked(t)
	b.reached(t)
	denied(t, b.Create(t.Context(), pod(b.tag(unsignedTag))), b.tag(unsignedTag))
	signed := pod(b.tag(signedTag))
	must(t, b.Create(t.Context(), signed))
	b.pinned(t, signed, signedTag, b.images[signedTag].Digest)
	must(t, b.Delete(t.Context(), signed))

	d := &appsv1.Deployment{}
	must(t, b.Get(t.Context(), client.ObjectKey{Namespace: own, Name: manager}, d))
	d.Spec.Replicas = new(int32)
	must(t, b.Update(t.Context(), d))
	b.await(t, "the last replica to end", func(ctx context.Context) error {
		pods, err := b.replicas(ctx)
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d are left", len(pods))
		}
		return err
	})
	if err := b.Create(t.Context(), pod(b.tag(signedTag)), client.DryRunAll); err == nil ||
		!strings.Contains(err.Error(), "failed calling webhook") {
		t.Errorf("with no replica, a Pod gets %v; want it refused, or what follows proves nothing", err)
	}
	b.remove(t, b.OnHost)
}

// installOnHost applies the manifests with the component host-network, with as many replicas as
// there are nodes, as docs/install.md says.
func (b *bed) installOnHost(t *testing.T) {
	t.Helper()
	b.apply(t, b.OnHost)
	_, err := b.kubectl("scale", "--namespace="+own, "deployment/"+manager,
		fmt.Sprintf("--replicas=%d", b.OnHost.Replicas))
	must(t, err)
	b.rolledOut(t, b.OnHost)
	pods, err := b.replicas(t.Context())
	must(t, err)
	for _, p := range pods {
		if p.Status.PodIP != nodeIP || !p.Spec.HostNetwork || p.Spec.DNSPolicy != corev1.DNSClusterFirstWithHostNet {
			t.Errorf("%s has address %s and DNS policy %s, want %s of the node, and %s",
				p.Name, p.Status.PodIP, p.Spec.DNSPolicy, nodeIP, corev1.DNSClusterFirstWithHostNet)
		}
	}
}

// remove runs kubectl delete, and wants nothing to be left that stands in anybody's way.
func (b *bed) remove(t *testing.T, o version) {
	t.Helper()
	began := time.Now()
	out, err := b.kubectl("delete", "--filename="+o.Manifests, "--timeout="+removal.String())
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b.say("  kubectl delete took %s", time.Since(began).Round(time.Second))
	gone := func(what string, key client.ObjectKey, o client.Object) {
		t.Helper()
		b.await(t, what+" to be gone", func(ctx context.Context) error {
			err := b.Get(ctx, key, o)
			if err == nil {
				return errors.New("it is there")
			}
			return client.IgnoreNotFound(err)
		})
	}
	gone("the validating webhook", client.ObjectKey{Name: configs}, &admissionv1.ValidatingWebhookConfiguration{})
	gone("the mutating webhook", client.ObjectKey{Name: configs}, &admissionv1.MutatingWebhookConfiguration{})
	gone("the namespace", client.ObjectKey{Name: own}, &corev1.Namespace{})
	if out, err := b.kubectl("get", "imagepolicies.countersign.dev"); err == nil ||
		!strings.Contains(out, "the server doesn't have a resource type") {
		t.Errorf("kubectl get imagepolicies.countersign.dev: %q, want the kind to be gone", out)
	}
	const kinds = "clusterroles,clusterrolebindings,customresourcedefinitions,namespaces"
	if left, err := b.kubectl("get", kinds, "--selector=app.kubernetes.io/name=countersign", "--output=name",
		"--ignore-not-found"); err != nil || left != "" {
		t.Errorf("left of the installation: %q, %v; want nothing", left, err)
	}
	p := pod(b.tag(unsignedTag))
	must(t, b.Create(t.Context(), p))
	b.running(t, p)
	must(t, b.Delete(t.Context(), p))
}
