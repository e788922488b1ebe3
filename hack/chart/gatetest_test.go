package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/gatecheck"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// testGate runs helm test on the release: with a running operator, after the operator died, and
// without its webhook configurations.
func (c *cluster) testGate(t *testing.T, release string) {
	m := c.run(t, c.manager)
	t.Run("the gate denies and admits", func(t *testing.T) {
		log, err := c.helmTest(t, release)
		if err != nil {
			t.Fatalf("helm test: %v\n%s", err, log)
		}
		for _, want := range []string{
			`denied, as it must be: image "countersign.invalid/denied:test": ImagePolicy "countersign-gate-test-`,
			"admitted, as it must be",
		} {
			if !strings.Contains(log, want) {
				t.Errorf("the log lacks %q:\n%s", want, log)
			}
		}
		c.gateTestIsGone(t, true)
	})
	t.Run("a policy covers every image", func(t *testing.T) {
		everything := &v1alpha1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Name: "everything"},
			Spec: v1alpha1.ImagePolicySpec{
				Images: []v1alpha1.ImagePattern{"*/**"}, TrustRoots: []v1alpha1.ObjectName{"missing"},
				RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}},
			}}
		must(t, c.Create(t.Context(), everything))
		defer func() { must(t, c.Delete(t.Context(), everything)) }()
		poll.Await(t, "the policy to hold", func() error {
			err := c.Create(t.Context(), podOf("default", "registry.example.com/other/app:v1"), client.DryRunAll)
			if err == nil || !strings.Contains(err.Error(), `ImagePolicy "everything"`) {
				return fmt.Errorf("got %w", err)
			}
			return nil
		})
		log, err := c.helmTest(t, release)
		if err != nil ||
			!strings.Contains(log,
				`denied by what you have set up, which covers every image: image "countersign.invalid/admitted:test"`) {
			t.Errorf("helm test: %v\n%s", err, log)
		}
	})
	t.Run("another part of the cluster refuses", c.testOthersRefuse)
	must(t, m.Kill())
	t.Run("the operator is dead", func(t *testing.T) {
		c.gateTestFails(t, release, "the API server cannot reach the gate: check that the operator's Pods are ready")
	})
	for _, o := range c.configurations(t) {
		must(t, c.Delete(t.Context(), o))
	}
	t.Run("the webhook configurations are gone",
		func(t *testing.T) { c.gateTestFails(t, release, "so the gate is not reached") })
	c.takeLease(t)
}

func podOf(namespace, image string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "a"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: image}}},
	}
}

// gateTestFails checks that helm test fails with want in its log, and keeps its Pod.
func (c *cluster) gateTestFails(t *testing.T, release, want string) {
	t.Helper()
	log, err := c.helmTest(t, release, "--timeout=3s")
	if err == nil || !strings.Contains(log, want) {
		t.Errorf("helm test: got %v and this log, want %q:\n%s", err, want, log)
	}
	c.gateTestIsGone(t, false)
	must(t, c.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: gateTest}}))
}

const gateTest = "countersign-gate-test"

// gateTestIsGone checks that Helm has deleted all objects of a test. withPod says whether it must
// have deleted the Pod too, as it does after a test that succeeded.
func (c *cluster) gateTestIsGone(t *testing.T, withPod bool) {
	t.Helper()
	var namespaces corev1.NamespaceList
	var policies v1alpha1.ImagePolicyList
	must(t, errors.Join(c.List(t.Context(), &namespaces), c.List(t.Context(), &policies)))
	for _, o := range append(objectsOf(namespaces.Items), objectsOf(policies.Items)...) {
		if strings.HasPrefix(o.GetName(), gateTest) {
			t.Errorf("got %T %s after the test, want none", o, o.GetName())
		}
	}
	key := client.ObjectKey{Namespace: testNamespace, Name: gateTest}
	if err := c.Get(t.Context(), key, &corev1.ServiceAccount{}); !apierrors.IsNotFound(err) {
		t.Errorf("got %v for the ServiceAccount, want not found", err)
	}
	if err := c.Get(t.Context(), key, &corev1.Pod{}); apierrors.IsNotFound(err) != withPod {
		t.Errorf("got %v for the Pod, want not found: %t", err, withPod)
	}
}

// testOthersRefuse runs check-gate where another webhook or the API server refuses the Pod.
func (c *cluster) testOthersRefuse(t *testing.T) {
	const namespace, none = "elsewhere", "there-is-none"
	must(t, c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))
	other := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "other"},
		Webhooks: []admissionv1.ValidatingWebhook{{
			Name: "other.example.com", SideEffects: ptr.To(admissionv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
			NamespaceSelector: &metav1.LabelSelector{
				MatchLabels: map[string]string{corev1.LabelMetadataName: namespace},
			},
			ClientConfig: admissionv1.WebhookClientConfig{URL: ptr.To("https://127.0.0.1:1/")},
			Rules: []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule: admissionv1.Rule{
					APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"},
				}}},
		}}}
	must(t, c.Create(t.Context(), other))
	defer func() { must(t, c.Delete(t.Context(), other)) }()
	poll.Await(t, "a call of the other webhook", func() error {
		err := c.Create(t.Context(), podOf(namespace, "registry.example.com/other/app:v1"), client.DryRunAll)
		if err == nil || !strings.Contains(err.Error(), "other.example.com") {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	unprivileged := c.kubeconfigOf(t, testNamespace, "default")
	for name, tt := range map[string]struct{ kubeconfig, namespace, want string }{
		"another webhook": {c.kube.Kubeconfig, namespace, "except namespace " + namespace + " from that webhook"},
		"no namespace":    {c.kube.Kubeconfig, none, `namespaces "` + none + `" not found: that is not the gate`},
		"no rights": {
			unprivileged, namespace,
			`cannot create resource "pods" in API group "" in the namespace "` + namespace + `": that is not the gate`,
		},
		"exempt":               {c.kube.Kubeconfig, "exempted", "namespace exempted is exempt from admission"},
		"the release's":        {c.kube.Kubeconfig, testNamespace, "so the gate is not reached"},
		"no policy to deny it": {c.kube.Kubeconfig, "default", "so the gate is not reached"},
	} {
		out, err := c.runCommand(t.Context(), tt.kubeconfig, []string{
			"check-gate", "--namespace", tt.namespace, "--policy=p", "--timeout=2s", "--exempt-namespaces=exempted"})
		if err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("%s: got %v and this output, want %q:\n%s", name, err, tt.want, out)
		}
	}
}

// runCommand runs the manager's program as a container does.
func (c *cluster) runCommand(ctx context.Context, kubeconfig string, args []string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, c.manager, append(args, "--kubeconfig="+kubeconfig)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// kubeconfigOf returns the path of a kubeconfig with a token of a ServiceAccount.
func (c *cluster) kubeconfigOf(t *testing.T, namespace, name string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	must(t, c.SubResource("token").Create(t.Context(), account, request))
	config, err := clientcmd.LoadFromFile(c.kube.Kubeconfig)
	must(t, err)
	for _, user := range config.AuthInfos {
		*user = *user.DeepCopy()
		user.ClientCertificate, user.ClientCertificateData = "", nil
		user.ClientKey, user.ClientKeyData = "", nil
		user.Token = request.Status.Token
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, clientcmd.WriteToFile(*config, path))
	return path
}

// helmTest runs helm test and acts as the node: it runs the Pod's container with the permissions of
// its ServiceAccount, and reports the Pod's phase. It returns the Pod's log.
func (c *cluster) helmTest(t *testing.T, release string, args ...string) (log string, err error) {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := theBed(t).run(t.Context(), "", "test", release, "--timeout=2m", "--namespace", testNamespace,
			"--kubeconfig", c.kube.Kubeconfig)
		ended <- err
	}()
	pod := &corev1.Pod{}
	poll.Await(t, "the Pod of the test", func() error {
		select {
		case err := <-ended:
			t.Fatalf("helm test ended before its Pod existed: %v", err)
		default:
		}
		return c.Get(t.Context(), client.ObjectKey{Namespace: testNamespace, Name: gateTest}, pod)
	})
	container := pod.Spec.Containers[0]
	log, failed := c.runCommand(t.Context(), c.kubeconfigOf(t, pod.Namespace, pod.Spec.ServiceAccountName),
		append(container.Args, args...))
	pod.Status.Phase = corev1.PodSucceeded
	if failed != nil {
		pod.Status.Phase = corev1.PodFailed
	}
	must(t, c.Status().Update(t.Context(), pod))
	select {
	case err = <-ended:
	case <-time.After(2 * time.Minute):
		t.Fatal("helm test did not end within 2 minutes")
	}
	if (err == nil) != (failed == nil) {
		t.Errorf("got %v from helm test for a Pod that ended with %v", err, failed)
	}
	return log, err
}

// helmTestObjects returns the objects that the chart renders only for helm test, by "Kind/name".
func helmTestObjects(t *testing.T, values string, args ...string) map[string]any {
	t.Helper()
	text, err := theBed(t).run(t.Context(), values, append([]string{
		"template", chartName, theBed(t).dir, "--values", "-", "--namespace", testNamespace}, args...)...)
	must(t, err)
	objects, err := readObjects(strings.NewReader(text))
	must(t, err)
	for key := range rendered(t, values, args...) {
		delete(objects, key)
	}
	return objects
}

// Helm deletes all objects of helm test, their policy applies only to the test, and the operator's
// selectors do not match them.
func TestHelmTestObjects(t *testing.T) {
	objects := helmTestObjects(t,
		"{commonLabels: {team: a, countersign.dev/break-glass: x, pod-security.kubernetes.io/enforce: privileged}}")
	var kinds []string
	var namespace string
	for key, object := range objects {
		kind, name, _ := strings.Cut(key, "/")
		kinds = append(kinds, kind)
		metadata := object.(map[string]any)["metadata"].(map[string]any)
		annotations := metadata["annotations"].(map[string]any)
		if annotations["helm.sh/hook"] != "test" ||
			annotations["helm.sh/hook-delete-policy"] != "before-hook-creation,hook-succeeded" {
			t.Errorf("%s: got annotations %v", key, annotations)
		}
		labels := metadata["labels"].(map[string]any)
		if labels["app.kubernetes.io/component"] != "gate-test" || labels["team"] != "a" {
			t.Errorf("%s: got labels %v", key, labels)
		}
		if kind == "Namespace" {
			namespace = name
			if labels["pod-security.kubernetes.io/enforce"] != "restricted" ||
				labels["countersign.dev/break-glass"] != nil {
				t.Errorf("got labels %v of the namespace", labels)
			}
		}
	}
	slices.Sort(kinds)
	if diff := cmp.Diff([]string{"ImagePolicy", "Namespace", "Pod", "Role", "RoleBinding", "ServiceAccount"},
		kinds); diff != "" {
		t.Error(diff)
	}
	want := map[string]any{
		"images": []any{"countersign.invalid/denied"}, "mode": "Enforce",
		"requiredRoles":     []any{map[string]any{"role": "nobody"}},
		"trustRoots":        []any{namespace},
		"namespaceSelector": map[string]any{"matchLabels": map[string]any{"kubernetes.io/metadata.name": namespace}},
	}
	if diff := cmp.Diff(want, objects["ImagePolicy/"+namespace].(map[string]any)["spec"]); diff != "" {
		t.Error(diff)
	}
	rules := []any{map[string]any{"apiGroups": []any{""}, "resources": []any{"pods"}, "verbs": []any{"create"}}}
	if diff := cmp.Diff(rules, objects["Role/"+gateTest].(map[string]any)["rules"]); diff != "" {
		t.Error(diff)
	}
}

// Each release has its own namespace for the test, which is not the release's namespace, because
// Helm deletes it.
func TestHelmTestNamespace(t *testing.T) {
	names := make(map[string]bool)
	for _, release := range [][2]string{
		{chartName, testNamespace}, {chartName, gateTest}, {"a.b", testNamespace},
		{strings.Repeat("a", 53), testNamespace},
	} {
		text, err := theBed(t).run(t.Context(), "", "template", release[0], theBed(t).dir, "--namespace", release[1])
		must(t, err)
		m := regexp.MustCompile("\nkind: Namespace\nmetadata:\n  name: (countersign-gate-test-[0-9a-f]{12})\n").
			FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("%s: got no namespace for the test", release)
		}
		names[m[1]] = true
	}
	if len(names) != 4 {
		t.Errorf("got namespaces %v for 4 releases, want 4", names)
	}
}

// The Pod of the test uses the image and scheduling settings of the operator's Pods.
func TestHelmTestPod(t *testing.T) {
	standard := helmTestObjects(t, "{}")
	set := helmTestObjects(t,
		`{image: {tag: v9, pullPolicy: Always}, imagePullSecrets: [{name: p}], global: {imagePullSecrets: [q]}, tolerations: [{operator: Exists}],
		nodeSelector: {pool: infra}, podLabels: {team: b}, podAnnotations: {note: c, helm.sh/hook: pre-install}, exemptNamespaces: [a, b]}`)
	const pod = "Pod/" + gateTest + "."
	image := strings.Replace(testImage, ":v0.1.0", ":v9", 1)
	want := map[string]any{
		pod + "spec.containers[0].image": image, pod + "spec.containers[0].imagePullPolicy": "Always",
		pod + "spec.nodeSelector.pool":     "infra",
		pod + "spec.imagePullSecrets":      []any{map[string]any{"name": "p"}, map[string]any{"name": "q"}},
		pod + "spec.tolerations":           []any{map[string]any{"operator": "Exists"}},
		pod + "spec.containers[0].args[3]": "--exempt-namespaces=a,b",
		pod + "metadata.labels.team":       "b", pod + "metadata.annotations.note": "c",
	}
	if diff := cmp.Diff(want, differences(standard, set)); diff != "" {
		t.Error(diff)
	}
	container := standard["Pod/"+
		gateTest].(map[string]any)["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)
	var args []string
	for _, a := range container["args"].([]any) {
		args = append(args, a.(string))
	}
	if args[0] != gatecheck.Command {
		t.Errorf("got command %s, want %s", args[0], gatecheck.Command)
	}
	if _, err := gatecheck.Parse(args[1:]); err != nil {
		t.Errorf("got %v from the program for %q, want no error", err, args)
	}
}
