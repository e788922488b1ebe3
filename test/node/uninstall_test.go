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
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// removal is the timeout of kubectl delete.
const removal = 2 * time.Minute

// uninstall deletes the manifests while the operator runs and a policy is in force.
func (b *bed) uninstall(t *testing.T) {
	b.remove(t, b.Operators[1])
}

// uninstallDead installs the operator into the network of the node, and deletes the manifests when
// no replica runs that could delete the webhook configurations.
func (b *bed) uninstallDead(t *testing.T) {
	b.installOnHost(t)
	must(t, b.Create(t.Context(), b.trustRoot()))
	must(t, b.Create(t.Context(), b.policy()))
	b.inForce(t)
	b.configured(t)
	b.reached(t)
	denied(t, b.Create(t.Context(), pod(b.tag(unsignedTag))), b.tag(unsignedTag))
	signed := pod(b.tag(signedTag))
	must(t, b.Create(t.Context(), signed))
	b.pinned(t, signed, signedTag, b.images[signedTag].Digest)
	must(t, b.Delete(t.Context(), signed))

	_, err := b.kubectl("scale", "--namespace="+own, "deployment/"+manager, "--replicas=0")
	must(t, err)
	b.await(t, "the last replica to end", func(ctx context.Context) error {
		pods, err := b.replicas(ctx)
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("got %d replicas, want none", len(pods))
		}
		return err
	})
	if err := b.Create(t.Context(), pod(b.tag(signedTag)), client.DryRunAll); err == nil ||
		!strings.Contains(err.Error(), "failed calling webhook") {
		t.Errorf("without a replica: got %v for a Pod, want a failed call of the webhook", err)
	}
	b.remove(t, b.OnHost)
}

// installOnHost applies the manifests with the component host-network, with one replica for each
// node, as docs/install.md says.
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
			t.Errorf("%s: got address %s and DNS policy %s, want the node's %s and %s",
				p.Name, p.Status.PodIP, p.Spec.DNSPolicy, nodeIP, corev1.DNSClusterFirstWithHostNet)
		}
	}
}

// remove runs kubectl delete, and checks that nothing remains and that an unsigned Pod runs.
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
				return errors.New("got the object, want not found")
			}
			return client.IgnoreNotFound(err)
		})
	}
	gone("the validating webhook", client.ObjectKey{Name: configs}, &admissionv1.ValidatingWebhookConfiguration{})
	gone("the mutating webhook", client.ObjectKey{Name: configs}, &admissionv1.MutatingWebhookConfiguration{})
	gone("the namespace", client.ObjectKey{Name: own}, &corev1.Namespace{})
	if out, err := b.kubectl("get", "imagepolicies.countersign.dev"); err == nil ||
		!strings.Contains(out, "the server doesn't have a resource type") {
		t.Errorf("kubectl get imagepolicies.countersign.dev: got %q, want an unknown kind", out)
	}
	const kinds = "clusterroles,clusterrolebindings,customresourcedefinitions,namespaces"
	if left, err := b.kubectl("get", kinds, "--selector=app.kubernetes.io/name=countersign", "--output=name",
		"--ignore-not-found"); err != nil || left != "" {
		t.Errorf("got %q, %v of the installation; want nothing", left, err)
	}
	p := pod(b.tag(unsignedTag))
	must(t, b.Create(t.Context(), p))
	b.running(t, p)
	must(t, b.Delete(t.Context(), p))
}
