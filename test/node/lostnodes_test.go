//go:build node && linux

package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const flannel = "kube-flannel" // a namespace that the policy covers and the operator exempts

// lostNodes ends everything and starts it again on a new node without Pods. There Pods get a
// network only after one Pod, which uses the node's network, has set it up. That Pod is not signed,
// and its namespace is not exempt by default. It must start before the operator can.
func (b *bed) lostNodes(t *testing.T) {
	b.exempt(t)
	network := b.networkPods(t)
	must(t, b.cut())
	file := b.path("cni/10-countersign.conflist")
	config, err := os.ReadFile(file)
	must(t, errors.Join(err, os.Remove(file)))
	b.cutOff = true
	must(t, b.startFirst(t.Context(), 2))
	b.forgetNode(t)
	b.say("  the node and its Pods are gone; starting a new node, without a network for Pods")
	must(t, b.start(t.Context()))

	b.await(t, "the Pod that sets up the network", func(ctx context.Context) error { return b.runs(ctx, network) })
	must(t, b.nodeReady(t.Context()))
	if err := b.Create(t.Context(), pod(b.tag(signedTag)), client.DryRunAll); err == nil ||
		!strings.Contains(err.Error(), "failed calling webhook") {
		t.Errorf("while no replica can start: got %v for a Pod, want a failed call of the webhook", err)
	}
	pods, err := b.replicas(t.Context())
	must(t, err)
	for _, p := range pods {
		if p.Status.Phase != corev1.PodPending {
			t.Errorf("%s on a node without a network: got phase %s, want Pending", p.Name, p.Status.Phase)
		}
	}
	workloads := &corev1.PodList{}
	must(t, b.List(t.Context(), workloads, client.InNamespace(shop)))
	if len(workloads.Items) > 0 {
		t.Errorf("got %d new Pods in %s while no replica runs, want none", len(workloads.Items), shop)
	}

	b.say("  that Pod runs, and the operator's Pods are pending; giving Pods their network")
	must(t, os.WriteFile(file, config, 0o600)) // containerd watches for writes, not for renames
	b.cutOff = false
	b.await(t, "the node to be ready", b.nodeReady)
	b.rolledOut(t, b.Operators[1])
	b.configured(t)
	b.reached(t)
	b.awaitFor(t, refreshed, "the unsigned image to be refused by a verdict", func(ctx context.Context) error {
		return refusal(b.Create(ctx, pod(b.tag(unsignedTag)), client.DryRunAll), http.StatusForbidden)
	})
	p := pod(b.tag(signedTag))
	must(t, b.Create(t.Context(), p))
	b.pinned(t, p, signedTag, b.images[signedTag].Digest)
	must(t, b.Delete(t.Context(), p))
	web := b.available(t, deployed("web", b.tag(signedTag), 2))
	if len(web) != 2 {
		t.Errorf("got %d Pods of the older Deployment, want 2", len(web))
	}
	for i := range web {
		b.pinned(t, &web[i], signedTag, b.images[signedTag].Digest)
	}
	b.nothingForbidden(t)
}

// exempt creates a namespace that the policy covers, and configures the operator to exempt it.
func (b *bed) exempt(t *testing.T) {
	t.Helper()
	must(t,
		b.Create(t.Context(), &corev1.Namespace{
			ObjectMeta: metav1.ObjectMeta{Name: flannel, Labels: map[string]string{"env": "production"}},
		}))
	b.await(t, "the service account of "+flannel, func(ctx context.Context) error {
		return b.Get(ctx, client.ObjectKey{Namespace: flannel, Name: "default"}, &corev1.ServiceAccount{})
	})
	unsigned := pod(b.tag(unsignedTag))
	unsigned.Namespace = flannel
	b.awaitFor(t, refreshed, "the unsigned image to be refused in "+flannel, func(ctx context.Context) error {
		return refusal(b.Create(ctx, unsigned.DeepCopy(), client.DryRunAll), http.StatusForbidden)
	})
	_, err := b.kubectl("patch", "--namespace="+own, "deployment/"+manager, "--type=json",
		`--patch=[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--exempt-namespaces=`+
			flannel+`"}]`)
	must(t, err)
	b.rolledOut(t, b.Operators[1])
	b.await(t, "the webhook configurations to exempt "+flannel, func(ctx context.Context) error {
		validating := &admissionv1.ValidatingWebhookConfiguration{}
		mutating := &admissionv1.MutatingWebhookConfiguration{}
		if err := errors.Join(b.Get(ctx, client.ObjectKey{Name: configs}, validating),
			b.Get(ctx, client.ObjectKey{Name: configs}, mutating)); err != nil {
			return err
		}
		for _, s := range []*metav1.LabelSelector{
			validating.Webhooks[0].NamespaceSelector, mutating.Webhooks[0].NamespaceSelector,
		} {
			if !slices.ContainsFunc(s.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
				return r.Key == corev1.LabelMetadataName && r.Operator == metav1.LabelSelectorOpNotIn &&
					slices.Contains(r.Values, flannel)
			}) {
				return fmt.Errorf("got selector %s, want it without %s", metav1.FormatLabelSelector(s), flannel)
			}
		}
		return nil
	})
}

// networkPods creates a DaemonSet like one that sets up the network, and waits until its Pod runs.
func (b *bed) networkPods(t *testing.T) *appsv1.DaemonSet {
	t.Helper()
	template := pod(b.tag(unsignedTag)).Spec
	template.HostNetwork = true
	template.Tolerations = []corev1.Toleration{
		{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	}
	labels := map[string]string{"app": "flannel"}
	d := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: flannel, Name: "kube-flannel-ds"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: template},
		},
	}
	must(t, b.Create(t.Context(), d))
	b.await(t, "the Pod of "+d.Name, func(ctx context.Context) error { return b.runs(ctx, d) })
	return d
}

// runs returns nil if the kubelet runs the Pod of a DaemonSet.
func (b *bed) runs(ctx context.Context, d *appsv1.DaemonSet) error {
	pods := &corev1.PodList{}
	if err := b.List(ctx, pods, client.InNamespace(d.Namespace),
		client.MatchingLabels(d.Spec.Selector.MatchLabels)); err != nil {
		return err
	}
	if len(pods.Items) != 1 || pods.Items[0].Status.Phase != corev1.PodRunning {
		return fmt.Errorf("got Pods %+v, want one that runs", pods.Items)
	}
	return nil
}

// forgetNode deletes the node and every Pod, as administrators do with lost nodes.
func (b *bed) forgetNode(t *testing.T) {
	t.Helper()
	must(t, b.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}))
	for _, namespace := range []string{own, shop, flannel} {
		must(t, b.DeleteAllOf(t.Context(), &corev1.Pod{}, client.InNamespace(namespace), client.GracePeriodSeconds(0)))
	}
	left := &corev1.PodList{}
	must(t, b.List(t.Context(), left))
	if len(left.Items) > 0 {
		t.Fatalf("got %d Pods, want none", len(left.Items))
	}
}
