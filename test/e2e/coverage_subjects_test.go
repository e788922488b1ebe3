package e2e

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/countersign-dev/countersign/internal/workload"
)

// subject is a kind of workload in the table of TestCoverage.
type subject struct {
	name string
	// podSpec is the path to the PodSpec.
	podSpec []string
	// knob is the path of a field that is no image, in the spec or in the template of a
	// PodTemplate. setting is its new value.
	knob    []string
	setting any
	// replicas says that it has spec.replicas and the scale subresource.
	replicas bool
	// custom says that it is a custom resource.
	custom bool
	// frozen says why the image cannot be changed: the API server refuses that with status 422.
	// Empty: it can be changed.
	frozen string
	// fixed says why no container can be added. Empty: containers can be added.
	fixed string
}

// subjects returns all kinds that the manager of TestCoverage checks.
func subjects(t *testing.T) []subject {
	t.Helper()
	replicated := func(name string) subject {
		return subject{
			name: name, podSpec: path("spec.template.spec"), knob: path("spec.replicas"), setting: int64(1),
			replicas: true,
		}
	}
	customised := func(name string) subject {
		s := replicated(name)
		s.custom = true
		return s
	}
	all := []subject{
		{
			name: "Pod", podSpec: path("spec"), knob: path("spec.activeDeadlineSeconds"), setting: int64(600),
			fixed: "of the containers of a Pod only the images can be changed",
		},
		replicated("Deployment"), replicated("ReplicaSet"), replicated("StatefulSet"),
		replicated("ReplicationController"),
		{name: "DaemonSet", podSpec: path("spec.template.spec"), knob: path("spec.minReadySeconds"), setting: int64(5)},
		{
			name: "Job", podSpec: path("spec.template.spec"), knob: path("spec.parallelism"), setting: int64(2),
			frozen: "the template of a Job is immutable", fixed: "the template of a Job is immutable",
		},
		{
			name: "CronJob", podSpec: path("spec.jobTemplate.spec.template.spec"), knob: path("spec.suspend"),
			setting: true,
		},
		{name: "PodTemplate", podSpec: path("template.spec"), knob: path("template.spec.hostname"), setting: "web"},
		customised("DeploymentConfig"), customised("Rollout"),
	}
	if want := len(workload.Builtin()) + 1; len(all) != want {
		t.Fatalf("got %d kinds in the table, want the %d that are checked", len(all), want)
	}
	return all
}

func path(dotted string) []string { return strings.Split(dotted, ".") }

// object returns a workload of the kind with one container and zero replicas.
func (s subject) object(t *testing.T, namespace, name, image string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if s.custom {
		o.Object = map[string]any{"spec": map[string]any{
			"replicas": int64(0), "selector": map[string]any{"app": name},
			"template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"app": name}},
				"spec":     map[string]any{"containers": []any{container("app", image)}},
			},
		}}
		o.SetAPIVersion(
			map[string]string{"DeploymentConfig": "apps.openshift.io/v1", "Rollout": "argoproj.io/v1alpha1"}[s.name])
		o.SetKind(s.name)
	} else {
		var typed client.Object = pod(namespace, image)
		if s.name != "Pod" {
			typed = workloads(image)[s.name]
		}
		gvk, err := apiutil.GVKForObject(typed, clientgoscheme.Scheme)
		must(t, err)
		raw, err := json.Marshal(typed)
		must(t, err)
		// Each object has its own labels, so that no controller adopts the Pods of another.
		must(t, json.Unmarshal([]byte(strings.ReplaceAll(string(raw), `"app":"x"`, `"app":"`+name+`"`)), &o.Object))
		o.SetGroupVersionKind(gvk)
		unstructured.RemoveNestedField(o.Object, "status")
	}
	o.SetNamespace(namespace)
	o.SetName(name)
	o.SetGenerateName("")
	return o
}

func container(name, image string) map[string]any {
	return map[string]any{"name": name, "image": image}
}

// list returns a list of the PodSpec, for example containers or volumes.
func (s subject) list(t *testing.T, o *unstructured.Unstructured, name string) []any {
	t.Helper()
	list, _, err := unstructured.NestedSlice(o.Object, append(slices.Clone(s.podSpec), name)...)
	must(t, err)
	return list
}

// add adds an entry to a list of the PodSpec.
func (s subject) add(t *testing.T, o *unstructured.Unstructured, name string, entry map[string]any) {
	t.Helper()
	must(t,
		unstructured.SetNestedSlice(o.Object, append(s.list(t, o, name), entry),
			append(slices.Clone(s.podSpec), name)...))
}

// firstImage returns the image of the first container.
func (s subject) firstImage(t *testing.T, o *unstructured.Unstructured) string {
	t.Helper()
	image, _, err := unstructured.NestedString(first(t, s.list(t, o, "containers")), "image")
	must(t, err)
	return image
}

// setImage changes the image of the first container.
func (s subject) setImage(t *testing.T, o *unstructured.Unstructured, image string) {
	t.Helper()
	containers := s.list(t, o, "containers")
	first(t, containers)["image"] = image
	must(t, unstructured.SetNestedSlice(o.Object, containers, append(slices.Clone(s.podSpec), "containers")...))
}

func first(t *testing.T, containers []any) map[string]any {
	t.Helper()
	if len(containers) == 0 {
		t.Fatal("got no containers, want one")
	}
	c, ok := containers[0].(map[string]any)
	if !ok {
		t.Fatalf("got %v as the first container, want an object", containers[0])
	}
	return c
}

// nested returns an object with a value at a path.
func nested(value any, path ...string) map[string]any {
	for _, name := range slices.Backward(path[1:]) {
		value = map[string]any{name: value}
	}
	return map[string]any{path[0]: value}
}

// identified returns an object with the kind, namespace and name of o, and further fields.
func identified(o *unstructured.Unstructured, fields map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: maps.Clone(fields)}
	u.SetGroupVersionKind(o.GroupVersionKind())
	u.SetNamespace(o.GetNamespace())
	u.SetName(o.GetName())
	return u
}
