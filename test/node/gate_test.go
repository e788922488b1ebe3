//go:build node && linux

package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// gate tests verdicts, and checks which image the kubelet runs. The trust root and the policy are
// older than the upgrade.
func (b *bed) gate(t *testing.T) {
	b.inForce(t)
	denied(t, b.Create(t.Context(), pod(b.tag("v4"))), b.tag("v4"), `role "ci"`, `role "qa"`)
	b.sign(t, "v4", "ci")
	denied(t, b.Create(t.Context(), pod(b.tag("v4"))), `role "qa" has not signed`, "signed by ci")
	b.sign(t, "v4", "qa")
	signed := pod(b.tag("v4"))
	must(t, b.Create(t.Context(), signed))
	b.pinned(t, signed, "v4", b.images["v4"].Digest)

	t.Run("EphemeralContainer", func(t *testing.T) {
		debugged := signed.DeepCopy()
		debugged.Spec.EphemeralContainers = []corev1.EphemeralContainer{{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: b.tag("v2")},
		}}
		_, err := b.clients.CoreV1().Pods(shop).UpdateEphemeralContainers(t.Context(), debugged.Name, debugged,
			metav1.UpdateOptions{})
		denied(t, err, b.tag("v2"))
	})
	t.Run("Deployment", b.deployment)
	t.Run("Violation", b.violation)
	t.Run("TagMoved", b.tagMoved)
}

// inForce waits until trust root and policy are ready.
func (b *bed) inForce(t *testing.T) {
	t.Helper()
	b.await(t, "the policy to be in force", func(ctx context.Context) error {
		root, policy := &v1alpha1.TrustRoot{}, &v1alpha1.ImagePolicy{}
		if err := b.Get(ctx, client.ObjectKey{Name: "acme-notary"}, root); err != nil {
			return err
		}
		if err := b.Get(ctx, client.ObjectKey{Name: "production"}, policy); err != nil {
			return err
		}
		if !meta.IsStatusConditionTrue(root.Status.Conditions, v1alpha1.ConditionReady) ||
			!meta.IsStatusConditionTrue(policy.Status.Conditions, v1alpha1.ConditionReady) {
			return fmt.Errorf("not ready: %+v, %+v", root.Status.Conditions, policy.Status.Conditions)
		}
		return nil
	})
}

// pinned checks that a Pod is pinned to a digest, and that the kubelet runs the digest.
func (b *bed) pinned(t *testing.T, p *corev1.Pod, tag, digest string) {
	t.Helper()
	b.running(t, p)
	if got, want := p.Spec.Containers[0].Image, b.tag(tag)+"@"+digest; got != want {
		t.Errorf("Pod %s: got image %s, want %s", p.Name, got, want)
	}
	if got, want := p.Status.ContainerStatuses[0].ImageID, b.workload()+"@"+digest; got != want {
		t.Errorf("Pod %s: got image ID %s, want %s", p.Name, got, want)
	}
}

// deployed returns a Deployment in the shop.
func deployed(name, image string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	template := pod(image)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: template.Spec},
		},
	}
}

// available waits until a Deployment runs all its Pods, and returns them.
func (b *bed) available(t *testing.T, d *appsv1.Deployment) []corev1.Pod {
	t.Helper()
	b.await(t, "Deployment "+d.Name, func(ctx context.Context) error {
		if err := b.Get(ctx, client.ObjectKeyFromObject(d), d); err != nil {
			return err
		}
		if s := d.Status; s.ObservedGeneration != d.Generation || s.AvailableReplicas != *d.Spec.Replicas ||
			s.UpdatedReplicas != *d.Spec.Replicas {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	pods := &corev1.PodList{}
	must(t, b.List(t.Context(), pods, client.InNamespace(shop), client.MatchingLabels(d.Spec.Selector.MatchLabels)))
	return pods.Items
}

// deployment checks that a Deployment keeps its template, and that its Pods are pinned.
func (b *bed) deployment(t *testing.T) {
	denied(t, b.Create(t.Context(), deployed("unsigned", b.tag("v2"), 1)), b.tag("v2"))
	web := deployed("web", b.tag("v1"), 2)
	must(t, b.Create(t.Context(), web))
	pods := b.available(t, web)
	if len(pods) != 2 {
		t.Errorf("got %d Pods, want 2", len(pods))
	}
	for i := range pods {
		b.pinned(t, &pods[i], "v1", b.images["v1"].Digest)
	}
	if got := web.Spec.Template.Spec.Containers[0].Image; got != b.tag("v1") {
		t.Errorf("got the template's image %s, want %s", got, b.tag("v1"))
	}
}

// violation moves the tag of a running Pod to an image that both roles have signed. The Pod must
// stay a violation: the kubelet still runs the unsigned image.
func (b *bed) violation(t *testing.T) {
	before := b.images["v0"]
	b.push(t, "v0")
	b.sign(t, "v0", "ci", "qa")
	fresh := pod(b.tag("v0"))
	b.awaitFor(t, refreshed, "the new v0 to be known", func(ctx context.Context) error { return b.Create(ctx, fresh) })
	b.pinned(t, fresh, "v0", b.images["v0"].Digest)
	b.await(t, "the running Pod to be a violation", func(ctx context.Context) error {
		p := &v1alpha1.ImagePolicy{}
		if err := b.Get(ctx, client.ObjectKey{Name: "production"}, p); err != nil {
			return err
		}
		if v := p.Status.Violations; len(v) != 1 || v[0].Name != "legacy" ||
			!strings.Contains(v[0].Image, before.Digest) {
			return fmt.Errorf("got violations %+v, want Pod legacy with %s", v, before.Digest)
		}
		return nil
	})
	out, err := b.kubectl("get", "imagepolicies", "--no-headers",
		"--output=custom-columns=:.status.workloads.violating")
	if err != nil || strings.TrimSpace(out) != "1" {
		t.Errorf("kubectl get imagepolicies: got %q violations, %v; want 1", out, err)
	}
	table, err := b.kubectl("get", "imagepolicies")
	if err != nil || !strings.Contains(table, "VIOLATIONS") {
		t.Errorf("kubectl get imagepolicies: got\n%s\n%v; want a column VIOLATIONS", table, err)
	}
}

// tagMoved moves a signed tag to an image that only ci has signed. No Pod may run that image.
func (b *bed) tagMoved(t *testing.T) {
	b.sign(t, "v3", "ci", "qa")
	before := b.images["v3"]
	p := pod(b.tag("v3"))
	b.awaitFor(t, refreshed, "v3 to be known", func(ctx context.Context) error { return b.Create(ctx, p) })
	b.pinned(t, p, "v3", before.Digest)
	b.push(t, "v3")
	b.sign(t, "v3", "ci")
	var refusal error
	b.awaitFor(t, refreshed, "every replica to know of the move", func(ctx context.Context) error {
		for range 20 { // so that the requests reach every replica
			p := pod(b.tag("v3"))
			if refusal = b.Create(ctx, p, client.DryRunAll); refusal == nil {
				if got := p.Spec.Containers[0].Image; !strings.HasSuffix(got, before.Digest) {
					t.Fatalf("%s was admitted as %s, which only ci has signed", b.tag("v3"), got)
				}
				return errors.New("still admitted")
			}
			if strings.Contains(refusal.Error(), "try again") {
				return refusal // one replica knows the move, and another does not
			}
		}
		return nil
	})
	denied(t, refusal, before.Digest[:15], b.images["v3"].Digest[:15], "ci", "qa")
}

// ownImage runs the operator's image under the policy, like any other image: signed by ci and qa.
func (b *bed) ownImage(t *testing.T) {
	o := b.Operators[1]
	image, repository := b.shipped[o.Image], b.registry.host()+"/countersign/countersign"
	if image.Digest == "" {
		t.Fatalf("got no image %s in the registry", o.Image)
	}
	version := func() *corev1.Pod {
		p := pod(repository + ":" + o.Version)
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.Containers[0].Args = []string{"--version"}
		return p
	}
	b.repository(t, repository)
	b.signAs(t, image, o.Version, "ci")
	denied(t, b.Create(t.Context(), version()), `role "qa" has not signed`)
	b.signAs(t, image, o.Version, "qa")
	p := version()
	b.awaitFor(t, refreshed, "the signatures to be known", func(ctx context.Context) error { return b.Create(ctx, p) })
	b.await(t, "the Pod to end", func(ctx context.Context) error {
		if err := b.Get(ctx, client.ObjectKeyFromObject(p), p); err != nil {
			return err
		}
		if p.Status.Phase != corev1.PodSucceeded {
			return fmt.Errorf("got phase %q, %+v", p.Status.Phase, p.Status.ContainerStatuses)
		}
		return nil
	})
	if got := p.Status.ContainerStatuses[0].ImageID; got != repository+"@"+image.Digest {
		t.Errorf("got image ID %s, want digest %s", got, image.Digest)
	}
	out, err := b.kubectl("logs", "--namespace="+shop, p.Name)
	if err != nil || !strings.Contains(out, o.Version) {
		t.Errorf("got output %q, %v; want version %s", out, err, o.Version)
	}
}
