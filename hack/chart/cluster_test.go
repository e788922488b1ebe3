package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/previous"
)

// cluster is a control plane without the operator and its CRDs.
type cluster struct {
	client.Client
	kube    *kubeserver.Server
	manager string // the program
}

// TestCluster installs the chart on a real API server with the real garbage collector: first every
// object alone in a dry run, then installation, upgrade and uninstallation.
func TestCluster(t *testing.T) {
	ctrl.SetLogger(logr.Discard())
	c := &cluster{kube: kubeserver.Run(t, kubeserver.Options{ControllerManager: true, WithoutCRDs: true})}
	scheme := runtime.NewScheme()
	must(t,
		errors.Join(clientgoscheme.AddToScheme(scheme), apiextensionsv1.AddToScheme(scheme),
			v1alpha1.AddToScheme(scheme)))
	var err error
	c.Client, err = client.New(c.kube.Config, client.Options{Scheme: scheme})
	must(t, err)
	c.manager, err = operator.Build(t.Context(), t.TempDir(), false)
	must(t, err)
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"every object is accepted", c.testAccepted},
		{"install, upgrade, uninstall after the operator died", c.testOperatorDead},
		{"install again, uninstall while the operator runs, without keeping the CRDs", c.testOperatorAlive},
	} {
		if !t.Run(part.name, part.run) {
			break
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) testAccepted(t *testing.T) {
	defer kubeserver.RunNeighbourCRDs(t, c.kube)()
	const namespace = "dry-run"
	must(t, c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))
	for name, values := range map[string]string{
		"defaults": "{}",
		"cert-manager": "{prometheus: {enabled: true}, pullSecrets: {enabled: true}, restrictOperator: {enabled: " +
			"true}, certManager: {enabled: true}}",
		"OpenShift": "{prometheus: {enabled: true}, openshift: {enabled: true}}",
		"all values": `{image: {pullPolicy: Always}, imagePullSecrets: [{name: p}], tolerations: [{operator: Exists}], podLabels: {a: b}, podAnnotations: {a: b},
			affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {}}]}},
			uncoveredImages: Deny, shortNames: DockerIO, exemptNamespaces: [x], workloadKinds: [rollouts.v1alpha1.argoproj.io=spec.template], imagePlaceholders: [auto=inject], shutdownDelay: 60s,
			expiryWarning: 1h, forgetUnusedAfter: 24h}`,
		"host network": `{hostNetwork: {enabled: true}, ports: {webhook: 19443, metrics: 18443, health: 18081}, commonLabels: {team: a},
			extraEnv: [{name: HTTPS_PROXY, value: 'http://proxy.example.com'}], extraArgs: ['--metrics-secure=false'], serviceAccount: {annotations: {a: b}},
			updateStrategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 2}}, networkPolicy: {ingressFrom: [{ipBlock: {cidr: 192.0.2.0/24}}]},
			global: {imagePullSecrets: [p]}, prometheus: {enabled: true, labels: {release: stack}, annotations: {a: b}, interval: 15s}}`,
	} {
		t.Run(name, func(t *testing.T) {
			for key, object := range rendered(t, values, "--namespace", namespace) {
				text, err := yaml.Marshal(object)
				must(t, err)
				out, err := c.kube.RunKubectl(t.Context(), string(text), "apply", "--server-side", "--dry-run=server",
					"--validate=strict", "--filename=-")
				if err != nil || !strings.Contains(out, "serverside-applied") || strings.Contains(out, "Warning") {
					t.Errorf("%s: %v\n%s", key, err, out)
				}
			}
		})
	}
}

// helm runs Helm on the release in the cluster.
func (c *cluster) helm(t *testing.T, args ...string) string {
	t.Helper()
	out, err := theBed(t).run(t.Context(), "",
		append(args, "--namespace", testNamespace, "--kubeconfig", c.kube.Kubeconfig)...)
	must(t, err)
	return out
}

// run starts a manager with the permissions that the chart gives its ServiceAccount.
func (c *cluster) run(t *testing.T, binary string) *operator.Manager {
	t.Helper()
	m, err := operator.Start(t.Context(), c.kube, operator.Options{Binary: binary, Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { _ = m.Stop() })
	var roles rbacv1.ClusterRoleList
	var bindings rbacv1.ClusterRoleBindingList
	must(t, errors.Join(c.List(t.Context(), &roles), c.List(t.Context(), &bindings)))
	ours := 0
	for _, o := range append(objectsOf(roles.Items), objectsOf(bindings.Items)...) {
		if strings.HasPrefix(o.GetName(), "countersign") {
			ours++
			if o.GetLabels()["app.kubernetes.io/managed-by"] != "Helm" {
				t.Errorf("%s: got no label of the chart", o.GetName())
			}
		}
	}
	if ours < 4 {
		t.Errorf("got %d cluster roles and bindings, want at least 4", ours)
	}
	return m
}

func objectsOf[T any, P interface {
	*T
	client.Object
}](items []T) []client.Object {
	var objects []client.Object
	for i := range items {
		objects = append(objects, P(&items[i]))
	}
	return objects
}

// configurations returns all webhook configurations.
func (c *cluster) configurations(t *testing.T) []client.Object {
	t.Helper()
	var validating admissionv1.ValidatingWebhookConfigurationList
	var mutating admissionv1.MutatingWebhookConfigurationList
	must(t, errors.Join(c.List(t.Context(), &validating), c.List(t.Context(), &mutating)))
	return append(objectsOf(validating.Items), objectsOf(mutating.Items)...)
}

// gateIsGone waits until all webhook configurations are deleted.
func (c *cluster) gateIsGone(t *testing.T) {
	t.Helper()
	poll.Await(t, "the deletion of the webhook configurations", func() error {
		if left := c.configurations(t); len(left) > 0 {
			return fmt.Errorf("%d are left", len(left))
		}
		return nil
	})
}

const policyName = "production"

// testOperatorDead installs the previous release, upgrades it to this chart, and uninstalls after
// the operator died, so that only the garbage collector can clean up.
func (c *cluster) testOperatorDead(t *testing.T) {
	release := previous.Run(t)
	c.helm(t, "install", chartName, release.Chart, "--create-namespace", "--set", "replicas=2,uncoveredImages=Warn")
	m := c.run(t, release.Manager)
	before := c.configurations(t)
	if len(before) != 2 {
		t.Fatalf("got %d webhook configurations, want 2", len(before))
	}
	for _, o := range before {
		owners := o.GetOwnerReferences()
		if len(owners) != 1 || owners[0].Kind != "ClusterRole" || owners[0].Name != "countersign-webhook-owner" {
			t.Errorf("got owners %v of a webhook configuration, want countersign-webhook-owner", owners)
		}
	}
	must(t, c.Create(t.Context(), &v1alpha1.ImagePolicy{
		ObjectMeta: metav1.ObjectMeta{Name: policyName},
		Spec: v1alpha1.ImagePolicySpec{
			Images: []v1alpha1.ImagePattern{"registry.example.com/acme/**"}, AllowUnsigned: new(true),
		},
	}))

	c.upgrade(t)
	next := c.run(t, c.manager)
	must(t, m.Stop())
	for i, o := range c.configurations(t) {
		if o.GetUID() != before[i].GetUID() {
			t.Error("got a new webhook configuration after the upgrade, want the old one")
		}
	}
	for _, m := range []*operator.Manager{m, next} {
		log, err := os.ReadFile(m.Log())
		must(t, err)
		if strings.Contains(string(log), "is forbidden: User") {
			t.Errorf("the manager lacks permissions:\n%s", log)
		}
	}
	must(t, next.Kill())
	c.takeLease(t)
	c.helm(t, "uninstall", chartName)
	c.gateIsGone(t)
	for _, name := range []string{"imagepolicies", "trustroots"} {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := c.Get(t.Context(), client.ObjectKey{Name: name + ".countersign.dev"}, &crd); err != nil ||
			crd.DeletionTimestamp != nil {
			t.Errorf("the CRD of %s was deleted: %v", name, err)
		}
	}
	if err := c.Get(t.Context(), client.ObjectKey{Name: policyName}, &v1alpha1.ImagePolicy{}); err != nil {
		t.Errorf("the policy was deleted: %v", err)
	}
}

// takeLease deletes the lease of an operator that was killed. The operator did not release it, so
// the next one would wait until it expires.
func (c *cluster) takeLease(t *testing.T) {
	t.Helper()
	must(t,
		c.Delete(t.Context(), &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "countersign.countersign.dev"},
		}))
}

// upgrade upgrades to this chart under a newer version, as docs/helm.md describes. Values that were
// set stay, defaults and CRDs come from the new chart.
func (c *cluster) upgrade(t *testing.T) {
	t.Helper()
	root, err := build.ModuleRoot()
	must(t, err)
	next, err := generate(t.Context(), root, release{
		version: "0.2.0", repository: "registry.example.com/countersign/countersign", tag: "v0.2.0",
	})
	must(t, err)
	dir := filepath.Join(t.TempDir(), chartName)
	must(t, next.write(dir))
	notes := c.helm(t, "upgrade", chartName, dir, "--reset-then-reuse-values")
	if !strings.Contains(notes,
		"kubectl label namespace countersign-system pod-security.kubernetes.io/enforce=restricted") {
		t.Errorf("got notes without the label of the namespace:\n%s", notes)
	}
	var deployment appsv1.Deployment
	must(t, c.Get(t.Context(), client.ObjectKey{Namespace: testNamespace, Name: "countersign-manager"}, &deployment))
	if *deployment.Spec.Replicas != 2 {
		t.Errorf("got %d replicas after the upgrade, want 2", *deployment.Spec.Replicas)
	}
	container := deployment.Spec.Template.Spec.Containers[0]
	if !slices.Contains(container.Args, "--uncovered-images=Warn") {
		t.Errorf("got arguments %q after the upgrade, want --uncovered-images=Warn as before", container.Args)
	}
	if image := container.Image; image != "registry.example.com/countersign/countersign:v0.2.0" {
		t.Errorf("got image %s after the upgrade, want that of the new chart", image)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	must(t, c.Get(t.Context(), client.ObjectKey{Name: "imagepolicies.countersign.dev"}, &crd))
	if chart := crd.Labels["helm.sh/chart"]; chart != "countersign-0.2.0" {
		t.Errorf("got the CRD of %s after the upgrade, want countersign-0.2.0", chart)
	}
	poll.Await(t, "a field that only this version's CRD has", func() error {
		p := &v1alpha1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Name: policyName}}
		must(t, c.Get(t.Context(), client.ObjectKeyFromObject(p), p))
		p.Spec.Help = "Ask #qa."
		if err := c.Update(t.Context(), p); err != nil {
			return fmt.Errorf("updating the policy: %w", err)
		}
		if p.Spec.Help == "" {
			return errors.New("the field was dropped")
		}
		return nil
	})
}

// testOperatorAlive installs under another name with the CRDs of the previous release, and
// uninstalls while an operator keeps running, which has lost its permissions.
func (c *cluster) testOperatorAlive(t *testing.T) {
	const another = "another"
	_, err := theBed(t).run(t.Context(), "", "install", another, theBed(t).dir, "--namespace", testNamespace,
		"--kubeconfig", c.kube.Kubeconfig)
	if err == nil || !strings.Contains(err.Error(), `must equal "another": current value is "countersign"`) {
		t.Errorf("got %v, want a refusal of the CRDs of another release", err)
	}
	c.helm(t, "install", another, theBed(t).dir, "--take-ownership", "--set", "crds.keep=false")
	if err := c.Get(t.Context(), client.ObjectKey{Name: policyName}, &v1alpha1.ImagePolicy{}); err != nil {
		t.Errorf("the policy of the previous installation was deleted: %v", err)
	}
	c.testGate(t, another)
	m := c.run(t, c.manager)
	c.helm(t, "uninstall", another)
	c.gateIsGone(t)
	must(t, m.Stop())
	if left := c.configurations(t); len(left) > 0 {
		t.Errorf("got %d webhook configurations after the uninstallation, want none", len(left))
	}
	poll.Await(t, "the deletion of the CRDs", func() error {
		var crd apiextensionsv1.CustomResourceDefinition
		err := c.Get(t.Context(), client.ObjectKey{Name: "imagepolicies.countersign.dev"}, &crd)
		if err == nil {
			return errors.New("the CRD still exists")
		}
		return client.IgnoreNotFound(err)
	})
	log, err := os.ReadFile(m.Log())
	if err != nil || strings.Contains(string(log), "panic") {
		t.Errorf("the manager's log: %v\n%s", err, log)
	}
}
