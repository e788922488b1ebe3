package main

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/cluster"
	"github.com/countersign-dev/countersign/internal/inventory"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/signers"
)

// onCluster runs a command on the cluster of a test, in this process.
func onCluster(t *testing.T, k *kubeserver.Server, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	streams, _, out, errs := genericiooptions.NewTestIOStreams()
	code = run(t.Context(), append(args, "--kubeconfig", k.Kubeconfig), streams)
	return code, out.String(), errs.String()
}

// startPod creates a Pod of one image in the namespace shop, as a kubelet would report it.
func startPod(t *testing.T, c client.Client, name string, image signers.Image) {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image.Tagged()}}},
	}
	if err := c.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	pod.Status.Phase = corev1.PodRunning
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", ImageID: image.ByDigest()}}
	if err := c.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
}

// Try says what a policy would do to what runs, and coverage what no policy covers.
func TestTryAndCoverage(t *testing.T) {
	k := kubeserver.Run(t, kubeserver.Options{})
	b := newBed(t, signers.Notary, signers.Sigstore)
	scheme, err := cluster.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(k.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "shop", Labels: map[string]string{"env": "production"},
	}}
	if err := c.Create(t.Context(), shop); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{signers.Notary, signers.Sigstore} {
		for tag, image := range b.images[format] {
			startPod(t, c, rootName(format)+"-"+tag, image)
		}
		if err := c.Create(t.Context(), b.root(format)); err != nil {
			t.Fatal(err)
		}
	}
	strict := func(roles ...v1alpha1.RoleRequirement) *v1alpha1.ImagePolicy {
		return imagePolicy("prod", v1alpha1.ImagePolicySpec{
			Images: []v1alpha1.ImagePattern{
				v1alpha1.ImagePattern(b.registry.Host + "/acme/" + signers.Notary),
				v1alpha1.ImagePattern(b.registry.Host + "/acme/" + signers.Sigstore),
			},
			NamespaceSelector: &v1alpha1.NamespaceSelector{
				MatchLabels: map[string]v1alpha1.LabelValue{"env": "production"},
			},
			TrustRoots: []v1alpha1.ObjectName{
				v1alpha1.ObjectName(rootName(signers.Notary)), v1alpha1.ObjectName(rootName(signers.Sigstore)),
			},
			RequiredRoles: roles,
		})
	}
	folder := t.TempDir()
	ci, qa := v1alpha1.RoleRequirement{Role: "ci"}, v1alpha1.RoleRequirement{Role: "qa"}
	writeObjects(t, folder, "p.yaml", strict(ci, qa))

	t.Run("coverage before", func(t *testing.T) {
		code, out, errs := onCluster(t, k, "coverage")
		if want := "Pod/notary-both"; code != exitDone || !strings.Contains(out, want) ||
			!strings.Contains(out, "6 Pods of 6 workloads run 6 images; 6 uses of an image are covered by no policy") {
			t.Errorf("got code %d, %s%s; want 0 and %q", code, out, errs, want)
		}
	})
	t.Run("try a new policy", func(t *testing.T) {
		code, out, errs := onCluster(t, k, "try", "-f", folder, "-o", "json")
		got := inventory.Trial{}
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("got %s%s: %v", out, errs, err)
		}
		if code != exitDenied || got.WouldDeny != 4 || got.CouldNotCheck != 0 || len(got.Policies) != 1 ||
			got.Policies[0].Meeting != 2 || got.Policies[0].Change != inventory.ChangeAdded {
			t.Errorf("got code %d and %+v, want 1, and 4 of 6 denied", code, got)
		}
		_, out, _ = onCluster(t, k, "try", "-f", folder)
		if want := "not signed by qa"; !strings.Contains(out, want) {
			t.Errorf("got %s, want %q", out, want)
		}
	})
	if err := c.Create(t.Context(), strict(ci, qa)); err != nil {
		t.Fatal(err)
	}
	t.Run("try an edited policy", func(t *testing.T) {
		folder := t.TempDir()
		writeObjects(t, folder, "p.yaml", strict(ci))
		code, out, errs := onCluster(t, k, "try", "-f", folder, "-o", "json")
		got := inventory.Trial{}
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("got %s%s: %v", out, errs, err)
		}
		improved := 0
		for _, w := range got.Policies[0].Workloads {
			if w.Before == inventory.VerdictViolates && w.Verdict == inventory.VerdictMeets {
				improved++
			}
		}
		if code != exitDenied || got.WouldDeny != 2 || improved != 2 ||
			got.Policies[0].Change != inventory.ChangeEdited {
			t.Errorf("got code %d, %d improved and %+v; want 1, 2, and 2 denied", code, improved, got)
		}
	})
	t.Run("a trust root that cannot be reached", func(t *testing.T) {
		folder, gone := t.TempDir(), b.root(signers.Notary)
		gone.Spec.Notary.Server = "https://localhost:1"
		writeObjects(t, folder, "p.yaml", gone, imagePolicy("prod", v1alpha1.ImagePolicySpec{
			Images:        []v1alpha1.ImagePattern{v1alpha1.ImagePattern(b.registry.Host + "/acme/" + signers.Notary)},
			TrustRoots:    []v1alpha1.ObjectName{v1alpha1.ObjectName(rootName(signers.Notary))},
			RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}},
		}))
		code, out, errs := onCluster(t, k, "try", "-f", folder)
		if want := "could not fetch: TrustRoot notary"; code != exitCouldNotCheck || !strings.Contains(out, want) ||
			!strings.Contains(out, "not covered") {
			t.Errorf("got code %d, %s%s; want 2 and %q", code, out, errs, want)
		}
	})
	t.Run("coverage after", func(t *testing.T) {
		code, out, errs := onCluster(t, k, "coverage")
		if want := "0 uses of an image are covered by no policy"; code != exitDone || !strings.Contains(out, want) {
			t.Errorf("got code %d, %s%s; want 0 and %q", code, out, errs, want)
		}
		image := b.images[signers.Notary][both].Tagged()
		for namespace, want := range map[string]string{
			"shop": "selects the namespace", "default": "(env=production) does not select the namespace",
		} {
			code, out, errs = onCluster(t, k, "coverage", image, "-n", namespace)
			if code != exitDone || !strings.Contains(out, want) {
				t.Errorf("%s: got code %d, %s%s; want 0 and %q", namespace, code, out, errs, want)
			}
		}
	})
	t.Run("without rights", func(t *testing.T) {
		code, out, errs := onCluster(t, k, "try", "-f", folder, "--as", "jane")
		if want := "you may not list imagepolicies.countersign.dev"; code != exitError || out != "" ||
			!strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("got code %d, %s%s; want 3 and one line with %q", code, out, errs, want)
		}
	})
}
