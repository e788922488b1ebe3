package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	patience     = 60 * time.Second // bounds every wait that no interval bounds
	pollInterval = 100 * time.Millisecond
)

// namespaces is the namespace of the workloads. The policies select it by the label.
const namespaces = `
apiVersion: v1
kind: Namespace
metadata:
  name: ` + namespace + `
  labels: {env: production}
`

// imagePolicy returns an ImagePolicy for the images of a registry, which requires roles of trust
// roots.
func imagePolicy(host string, trustRoots []string, roles ...string) string {
	return fmt.Sprintf(`
apiVersion: countersign.dev/v1alpha1
kind: ImagePolicy
metadata:
  name: production
spec:
  images: ["%s/acme/**"]
  exceptImages: ["%[1]s/acme/sandbox/*"]
  namespaceSelector: {matchLabels: {env: production}}
  trustRoots: [%s]
  requiredRoles:
%s
`, host, strings.Join(trustRoots, ", "), "  - role: "+strings.Join(roles, "\n  - role: "))
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+by)
}

// createNamespace creates the namespace of the workloads, and waits until it accepts Pods.
func (d *demo) createNamespace(ctx context.Context) error {
	if err := d.kubectlWith(ctx, namespaces, "apply", "-f", "-").succeeds(); err != nil {
		return err
	}
	_, err := d.until(ctx, patience, 100*time.Millisecond, "the namespace's service account", func() error {
		return d.quiet(ctx, "", "get", "serviceaccount", "default", "-n", namespace).succeeds()
	})
	return err
}

// runPod creates a Pod with kubectl run.
func (d *demo) runPod(ctx context.Context, name, image string) answer {
	return d.kubectl(ctx, "run", name, "-n", namespace, "--image="+image)
}

// dryRun creates a Pod with kubectl in a server-side dry run, webhooks included. It prints nothing.
func (d *demo) dryRun(ctx context.Context, image string) answer {
	return d.quiet(ctx, "", "run", "dry-run", "-n", namespace, "--image="+image, "--dry-run=server", "-o",
		"jsonpath={.spec.containers[0].image}")
}

// dryRunAPI is dryRun without the time to start kubectl, for measurements.
func (d *demo) dryRunAPI(ctx context.Context, image string) answer {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "dry-run"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}},
	}
	err := d.client.Create(ctx, pod, client.DryRunAll)
	if err != nil {
		return answer{command: "a dry run of " + image, output: err.Error(), failed: true}
	}
	return answer{command: "a dry run of " + image, output: pod.Spec.Containers[0].Image}
}
