package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/testenv/kustomize"
)

func TestLint(t *testing.T) {
	if out, err := theBed(t).run(t.Context(), "", "lint", "--strict", theBed(t).dir); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// manifests returns the objects of the kustomization without the Namespace, as in the chart.
func manifests(t *testing.T, components ...string) map[string]any {
	t.Helper()
	text, err := kustomize.Render(t.Context(), io.Discard, kustomize.Overlay{Image: testImage, Components: components})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := readObjects(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := removeNamespace(objects); err != nil {
		t.Fatal(err)
	}
	return objects
}

// withoutHelm removes the labels and annotations that the chart adds. It fails if one is missing.
func withoutHelm(t *testing.T, objects map[string]any) map[string]any {
	t.Helper()
	added := map[string]any{
		"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/version": "v0.1.0",
		"helm.sh/chart": "countersign-0.1.0",
	}
	for key, object := range objects {
		metadata := object.(map[string]any)["metadata"].(map[string]any)
		labels := metadata["labels"].(map[string]any)
		for label, value := range added {
			if labels[label] != value {
				t.Errorf("%s: got label %s=%v, want %v", key, label, labels[label], value)
			}
			delete(labels, label)
		}
		if len(labels) == 0 {
			delete(metadata, "labels")
		}
		if strings.HasPrefix(key, "CustomResourceDefinition/") {
			annotations := metadata["annotations"].(map[string]any)
			if annotations["helm.sh/resource-policy"] != "keep" {
				t.Errorf("%s has no annotation that keeps it", key)
			}
			delete(annotations, "helm.sh/resource-policy")
		}
	}
	return objects
}

// TestChartIsTheKustomization checks that the chart and the kustomization render the same objects,
// for many combinations of components.
func TestChartIsTheKustomization(t *testing.T) {
	values := map[string]string{
		"prometheus": "prometheus", "pull-secrets": "pullSecrets", "restrict-operator": "restrictOperator",
		"cert-manager": "certManager", "openshift": "openshift",
		"client-ca": "clientCA", "host-network": "hostNetwork",
	}
	if len(values) != len(components()) {
		t.Fatalf("got %d components in the test, want all %d", len(values), len(components()))
	}
	for _, components := range [][]string{
		{}, {"prometheus"}, {"pull-secrets"}, {"restrict-operator"}, {"cert-manager"}, {"openshift"},
		{"prometheus", "cert-manager"}, {"prometheus", "openshift"},
		{"host-network"}, {"host-network", "prometheus", "cert-manager"},
		{"client-ca"}, {"client-ca", "cert-manager"}, {"client-ca", "openshift"}, {"pull-secrets", "client-ca"},
		{"prometheus", "pull-secrets", "restrict-operator", "cert-manager"},
		{"prometheus", "pull-secrets", "restrict-operator", "openshift"},
	} {
		t.Run("with "+strings.Join(components, " "), func(t *testing.T) {
			set := make(map[string]any)
			for _, c := range components {
				set[values[c]] = map[string]any{"enabled": true}
			}
			text, err := json.Marshal(set)
			if err != nil {
				t.Fatal(err)
			}
			want, got := manifests(t, components...), withoutHelm(t, rendered(t, string(text)))
			if len(want) < 15 {
				t.Fatalf("got %d objects, want at least 15", len(want))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestComponentsAreKnown fails for a folder of config/components that the chart does not know.
func TestComponentsAreKnown(t *testing.T) {
	entries, err := os.ReadDir("../../config/components")
	if err != nil {
		t.Fatal(err)
	}
	var folders, known []string
	for _, e := range entries {
		folders = append(folders, e.Name())
	}
	for _, c := range components() {
		known = append(known, c.name)
	}
	slices.Sort(known)
	if diff := cmp.Diff(folders, known); diff != "" {
		t.Error(diff)
	}
}

func TestNamespaceFollows(t *testing.T) {
	objects := rendered(t,
		"{prometheus: {enabled: true}, pullSecrets: {enabled: true}, restrictOperator: {enabled: true}, certManager: "+
			"{enabled: true}}", "--namespace", "elsewhere")
	text, err := json.Marshal(objects)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), ownNamespace) {
		t.Errorf("got objects that name %s, want none", ownNamespace)
	}
	for path, want := range map[string]any{
		"Deployment/countersign-manager metadata namespace": "elsewhere",
		"ClusterRoleBinding/countersign-manager subjects": []any{
			map[string]any{"kind": "ServiceAccount", "name": "countersign-manager", "namespace": "elsewhere"},
		},
		"RoleBinding/countersign-manager subjects": []any{
			map[string]any{"kind": "ServiceAccount", "name": "countersign-manager", "namespace": "elsewhere"},
		},
		"ValidatingAdmissionPolicy/countersign-own-secret spec matchConditions": []any{map[string]any{
			"name":       "operator",
			"expression": "request.userInfo.username == 'system:serviceaccount:elsewhere:countersign-manager'",
		}},
		"Certificate/countersign-webhook spec dnsNames": []any{"countersign-webhook.elsewhere.svc"},
		"ServiceMonitor/countersign metadata namespace": "elsewhere",
		"ClusterRoleBinding/countersign-pull-secrets subjects": []any{
			map[string]any{"kind": "ServiceAccount", "name": "countersign-manager", "namespace": "elsewhere"},
		},
		"ServiceMonitor/countersign spec endpoints": nil,
	} {
		steps := strings.Fields(path)
		parent, err := descend(objects, steps[:len(steps)-1])
		if err != nil {
			t.Fatal(err)
		}
		got := parent[steps[len(steps)-1]]
		if want == nil {
			endpoint := got.([]any)[0].(map[string]any)
			got, want = endpoint["tlsConfig"].(map[string]any)["serverName"], "countersign-webhook.elsewhere.svc"
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
}

// Paths of the Pod template, and of its container manager.
const (
	podPath = "Deployment/countersign-manager.spec.template."
	manager = podPath + "spec.containers[0]."
)

// effects returns, for each value, a setting and all changes that it makes.
func effects(standard map[string]any) map[string]struct {
	set  string
	want map[string]any
} {
	type effect = struct {
		set  string
		want map[string]any
	}
	one := func(set, path string, value any) effect { return effect{set, map[string]any{path: value}} }
	const digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	repository, ref, _ := strings.Cut(testImage, ":")
	return map[string]effect{
		"image.repository": one("{image: {repository: mirror.example.com/c}}", manager+"image",
			"mirror.example.com/c:"+ref),
		"image.tag": one("{image: {tag: v9}}", manager+"image",
			repository+":"+strings.Replace(ref, "v0.1.0", "v9", 1)),
		"image.digest": one("{image: {digest: '"+digest+"'}}", manager+"image",
			repository+":v0.1.0@"+digest),
		"image.pullPolicy": one("{image: {pullPolicy: Always}}", manager+"imagePullPolicy", "Always"),
		"imagePullSecrets": one("{imagePullSecrets: [{name: p}]}", podPath+"spec.imagePullSecrets",
			[]any{map[string]any{"name": "p"}}),
		"replicas": one("{replicas: 5}", "Deployment/countersign-manager.spec.replicas", 5.0),
		"resources": one("{resources: {limits: {memory: 2Gi}}}", manager+"resources.limits.memory",
			"2Gi"),
		"nodeSelector": one("{nodeSelector: {pool: infra}}", podPath+"spec.nodeSelector.pool", "infra"),
		"tolerations": one("{tolerations: [{operator: Exists}]}", podPath+"spec.tolerations",
			[]any{map[string]any{"operator": "Exists"}}),
		"affinity": one("{affinity: {nodeAffinity: {a: b}}}", podPath+"spec.affinity",
			map[string]any{"nodeAffinity": map[string]any{"a": "b"}}),
		"topologySpreadConstraints": one("{topologySpreadConstraints: []}",
			podPath+"spec.topologySpreadConstraints", nil),
		"priorityClassName": one("{priorityClassName: ''}", podPath+"spec.priorityClassName", nil),
		"podAnnotations":    one("{podAnnotations: {a: '1'}}", podPath+"metadata.annotations.a", "1"),
		"podLabels":         one("{podLabels: {a: 'yes'}}", podPath+"metadata.labels.a", "yes"),
		"uncoveredImages":   one("{uncoveredImages: Deny}", manager+"args[2]", "--uncovered-images=Deny"),
		"shortNames":        one("{shortNames: Deny}", manager+"args[2]", "--short-names=Deny"),
		"logLevel":          one("{logLevel: debug}", manager+"args[2]", "--log-level=debug"),
		"logFormat":         one("{logFormat: text}", manager+"args[2]", "--log-format=text"),
		"exemptNamespaces":  one("{exemptNamespaces: [a, b]}", manager+"args[2]", "--exempt-namespaces=a,b"),
		"workloadKinds": one("{workloadKinds: [rollouts.v1alpha1.argoproj.io=spec.template]}", manager+"args[2]",
			"--workload-kinds=rollouts.v1alpha1.argoproj.io=spec.template"),
		"imagePlaceholders": one("{imagePlaceholders: [auto=example.com/inject, later=inject=a=b]}", manager+"args[2]",
			"--image-placeholders=auto=example.com/inject,later=inject=a=b"),
		"shutdownDelay": {"{shutdownDelay: 40s}", map[string]any{
			manager + "args[2]": "--shutdown-delay=40s", podPath + "spec.terminationGracePeriodSeconds": 65.0,
		}},
		"expiryWarning":     one("{expiryWarning: 96h}", manager+"args[2]", "--expiry-warning=96h"),
		"forgetUnusedAfter": one("{forgetUnusedAfter: '0'}", manager+"args[2]", "--forget-unused-after=0"),
		"crds.install": {"{crds: {install: false}}", map[string]any{
			"CustomResourceDefinition/imagepolicies.countersign.dev": nil,
			"CustomResourceDefinition/trustroots.countersign.dev":    nil,
		}},
		"crds.keep": {"{crds: {keep: false}}", map[string]any{
			"CustomResourceDefinition/imagepolicies.countersign.dev.metadata.annotations.helm.sh/resource-policy": nil,
			"CustomResourceDefinition/trustroots.countersign.dev.metadata.annotations.helm.sh/resource-policy":    nil,
		}},
		"commonLabels": {"{commonLabels: {team: a}, podLabels: {team: a}}", labelled(standard, "team", "a")},
		"extraEnv": one("{extraEnv: [{name: HTTPS_PROXY, value: 'http://proxy.example.com'}]}", manager+"env",
			[]any{map[string]any{"name": "HTTPS_PROXY", "value": "http://proxy.example.com"}}),
		"extraArgs": one("{extraArgs: ['--metrics-secure=false']}", manager+"args[2]", "--metrics-secure=false"),
		"updateStrategy": {"{updateStrategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}}",
			map[string]any{
				"Deployment/countersign-manager.spec.strategy.rollingUpdate.maxSurge":       0.0,
				"Deployment/countersign-manager.spec.strategy.rollingUpdate.maxUnavailable": 1.0,
			}},
		"dnsPolicy": one("{dnsPolicy: Default}", podPath+"spec.dnsPolicy", "Default"),
		"ports.webhook": {
			"{ports: {webhook: 19443}}",
			map[string]any{manager + "args[2]": "--webhook-port=19443", manager + "ports[0].containerPort": 19443.0},
		},
		"ports.metrics": {
			"{ports: {metrics: 18443}}",
			map[string]any{
				manager + "args[1]": "--metrics-bind-address=:18443", manager + "ports[1].containerPort": 18443.0,
			},
		},
		"ports.health": {
			"{ports: {health: 18081}}",
			map[string]any{
				manager + "args[2]": "--health-probe-bind-address=:18081", manager + "ports[2].containerPort": 18081.0,
			},
		},
		"serviceAccount.annotations": one("{serviceAccount: {annotations: {a: b}}}",
			"ServiceAccount/countersign-manager.metadata.annotations", map[string]any{"a": "b"}),
		"podDisruptionBudget.enabled": one("{podDisruptionBudget: {enabled: false}}",
			"PodDisruptionBudget/countersign-manager", nil),
		"networkPolicy.ingressFrom": one("{networkPolicy: {ingressFrom: [{ipBlock: {cidr: 192.0.2.0/24}}]}}",
			"NetworkPolicy/countersign-manager.spec.ingress[0].from",
			[]any{map[string]any{"ipBlock": map[string]any{"cidr": "192.0.2.0/24"}}}),
		"networkPolicy.enabled": one("{networkPolicy: {enabled: false}}", "NetworkPolicy/countersign-manager", nil),
	}
}

func TestEffectsOfValues(t *testing.T) {
	standard := rendered(t, "{}")
	for name, c := range effects(standard) {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, differences(standard, rendered(t, c.set))); diff != "" {
				t.Error(diff)
			}
		})
	}
	tested := []string{"prometheus.labels", "prometheus.annotations", "prometheus.interval"} // TestMonitoringLabels
	for name := range effects(standard) {
		tested = append(tested, name)
	}
	for _, c := range components() { // TestChartIsTheKustomization sets these
		tested = append(tested, strings.TrimPrefix(c.condition, ".Values."))
	}
	var all []string
	for _, v := range documented(t) {
		if !v.group {
			all = append(all, v.name)
		}
	}
	slices.Sort(tested)
	slices.Sort(all)
	if diff := cmp.Diff(all, tested); diff != "" {
		t.Errorf("values and tested values differ: %s", diff)
	}
}

// TestFlagsHaveTheManagersDefaults compares the defaults in values.yaml with those of the manager,
// and checks that the manager accepts the arguments of effects.
func TestFlagsHaveTheManagersDefaults(t *testing.T) {
	var values map[string]any
	if err := yaml.Unmarshal(theBed(t).files["values.yaml"], &values); err != nil {
		t.Fatal(err)
	}
	manager, err := flags.Parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range managerFlags() {
		value, ok := values[f.value].(string)
		if f.list || ok && value == "" {
			continue // the default of a list, or of a setting that the manager detects itself
		}
		o, err := flags.Parse([]string{"--" + f.name + "=" + value})
		if err != nil || !ok {
			t.Fatalf("%s: %v", f.value, err)
		}
		if diff := cmp.Diff(fmt.Sprintf("%+v", manager), fmt.Sprintf("%+v", o)); diff != "" {
			t.Errorf("%s: got %s in values.yaml, want the manager's default: %s", f.value, value, diff)
		}
	}
	for name, c := range effects(rendered(t, "{}")) {
		for path, value := range c.want {
			if argument, ok := value.(string); ok && strings.HasPrefix(argument, "--") {
				if _, err := flags.Parse([]string{argument}); err != nil {
					t.Errorf("%s sets %s: got %v from the manager, want no error", name, path, err)
				}
			}
		}
	}
}

// TestArchive checks that Helm reads the archive, and that the same files give the same archive at
// any time.
func TestArchive(t *testing.T) {
	first, second := filepath.Join(t.TempDir(), "a.tgz"), filepath.Join(t.TempDir(), "b.tgz")
	if err := errors.Join(theBed(t).files.archive(first), maps.Clone(theBed(t).files).archive(second)); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(first)
	b, err := os.ReadFile(second)
	if err != nil || string(a) != string(b) {
		t.Errorf("got different archives of the same files (%v)", err)
	}
	for name, modified := range archived(t, first) {
		if !modified.Equal(time.Unix(0, 0)) {
			t.Errorf("%s: got modification time %s, want the epoch", name, modified)
		}
	}
	from := func(chart string) string {
		out, err := theBed(t).run(t.Context(), "", "template", chartName, chart, "--namespace", testNamespace)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if diff := cmp.Diff(from(theBed(t).dir), from(first)); diff != "" {
		t.Error(diff)
	}
	out, err := theBed(t).run(t.Context(), "", "show", "chart", first)
	if err != nil || !strings.Contains(out, "\nversion: 0.1.0\n") || !strings.Contains(out, "appVersion: v0.1.0\n") {
		t.Errorf("got %s from helm show, %v, want the versions", out, err)
	}
	if !strings.Contains(out, "maintainers:\n- name: ") {
		t.Errorf("got no maintainer, which ct lint requires:\n%s", out)
	}
}

// archived returns the modification times of the files in an archive.
func archived(t *testing.T, path string) map[string]time.Time {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	times := make(map[string]time.Time)
	for r := tar.NewReader(unzipped); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		times[header.Name] = header.ModTime
	}
	if len(times) != len(theBed(t).files) || !unzipped.ModTime.IsZero() {
		t.Errorf("got %d files and time %s in the archive, want %d and none", len(times), unzipped.ModTime,
			len(theBed(t).files))
	}
	return times
}

// TestCommand runs the command as make chart does.
func TestCommand(t *testing.T) {
	out := t.TempDir()
	if err := run(context.Background(), []string{"-version", "v0.1.0", "-image", testImage, "-out", out}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"countersign-0.1.0.tgz", "chart/countersign/Chart.yaml", "chart/countersign/templates/NOTES.txt",
	} {
		if _, err := os.Stat(filepath.Join(out, path)); err != nil {
			t.Error(err)
		}
	}
}
