package workload

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// everything returns a PodSpec with an image in every field that can have one.
func everything() corev1.PodSpec {
	return corev1.PodSpec{
		InitContainers: []corev1.Container{
			{Name: "init", Image: "example.com/init:v1"}, {Name: "sidecar", Image: "example.com/sidecar:v1"},
		},
		Containers: []corev1.Container{
			{Name: "app", Image: "example.com/app:v1"}, {Name: "proxy", Image: "example.com/proxy:v1"},
		},
		EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: "debug", Image: "example.com/debug:v1",
		}}},
		Volumes: []corev1.Volume{
			{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{
				Name:         "model",
				VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "example.com/model:v1"}},
			},
		},
	}
}

// objects returns an object of every kind with the PodSpec.
func objects(spec corev1.PodSpec) map[string]any {
	template := corev1.PodTemplateSpec{Spec: spec}
	meta := metav1.ObjectMeta{Name: "acme", Namespace: "shop"}
	return map[string]any{
		"Pod": &corev1.Pod{ObjectMeta: meta, Spec: spec},
		"ReplicationController": &corev1.ReplicationController{
			ObjectMeta: meta, Spec: corev1.ReplicationControllerSpec{Template: &template},
		},
		"PodTemplate": &corev1.PodTemplate{ObjectMeta: meta, Template: template},
		"Deployment":  &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Template: template}},
		"ReplicaSet":  &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Template: template}},
		"StatefulSet": &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Template: template}},
		"DaemonSet":   &appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Template: template}},
		"Job":         &batchv1.Job{ObjectMeta: meta, Spec: batchv1.JobSpec{Template: template}},
		"CronJob": &batchv1.CronJob{ObjectMeta: meta, Spec: batchv1.CronJobSpec{
			JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template}},
		}},
		"DeploymentConfig": map[string]any{"metadata": meta, "spec": map[string]any{"template": template}},
	}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func kind(t testing.TB, name string) Kind {
	t.Helper()
	for _, k := range Builtin() {
		if k.Name == name {
			return k
		}
	}
	t.Fatalf("no kind %q", name)
	return Kind{}
}

// Every list of every kind is read, and each path points to its image.
func TestThreatEveryContainerListOfEveryKindIsRead(t *testing.T) {
	paths := map[string]string{
		"Pod": "spec", "PodTemplate": "template.spec", "CronJob": "spec.jobTemplate.spec.template.spec",
	}
	made := objects(everything())
	if len(made) != len(Builtin()) {
		t.Fatalf("got test objects of %d kinds, want %d", len(made), len(Builtin()))
	}
	for _, k := range Builtin() {
		t.Run(k.Name, func(t *testing.T) {
			raw := marshal(t, made[k.Name])
			got, err := k.Read(raw)
			if err != nil {
				t.Fatal(err)
			}
			at := paths[k.Name]
			if at == "" {
				at = "spec.template.spec"
			}
			pointer := "/" + strings.ReplaceAll(at, ".", "/")
			want := []Image{
				{pointer + "/initContainers/0/image", "initContainers", "init", "example.com/init:v1"},
				{pointer + "/initContainers/1/image", "initContainers", "sidecar", "example.com/sidecar:v1"},
				{pointer + "/containers/0/image", "containers", "app", "example.com/app:v1"},
				{pointer + "/containers/1/image", "containers", "proxy", "example.com/proxy:v1"},
				{pointer + "/ephemeralContainers/0/image", "ephemeralContainers", "debug", "example.com/debug:v1"},
				{pointer + "/volumes/1/image/reference", "volumes", "model", "example.com/model:v1"},
			}
			if diff := cmp.Diff(want, got.Images); diff != "" {
				t.Error(diff)
			}
			if got.Name != "acme" || got.Controlled {
				t.Errorf("got the name %q and controlled %t, want acme and false", got.Name, got.Controlled)
			}
		})
	}
}

// An object that cannot be parsed for certain is refused, and the error names the field.
func TestThreatOddObjectsAreRefused(t *testing.T) {
	cases := map[string]struct{ kind, raw, want string }{
		"not JSON":               {"Pod", `{"spec":`, "reading the Pod"},
		"empty":                  {"Pod", ``, "reading the Pod"},
		"null":                   {"Pod", `null`, "spec"},
		"an array":               {"Pod", `[]`, "reading the Pod"},
		"trailing data":          {"Pod", `{"spec":{"containers":[{"image":"a"}]}} {}`, "reading the Pod"},
		"no spec":                {"Pod", `{}`, "spec: missing"},
		"null spec":              {"Pod", `{"spec":null}`, "spec: missing"},
		"spec in the wrong case": {"Pod", `{"Spec":{"containers":[{"image":"a"}]}}`, "spec: missing"},
		"spec is a string":       {"Pod", `{"spec":"x"}`, "spec"},
		"no template":            {"Deployment", `{"spec":{}}`, "spec.template: missing"},
		"null template spec": {
			"Deployment", `{"spec":{"template":{"spec":null}}}`, "spec.template.spec: missing",
		},
		"no job template": {
			"CronJob", `{"spec":{"template":{"spec":{"containers":[{"image":"a"}]}}}}`, "spec.jobTemplate: missing",
		},
		"containers missing": {"Pod", `{"spec":{"initContainers":[{"image":"a"}]}}`, "spec.containers: empty"},
		"containers null":    {"Pod", `{"spec":{"containers":null}}`, "spec.containers: empty"},
		"containers empty": {
			"Deployment", `{"spec":{"template":{"spec":{"containers":[]}}}}`, "spec.template.spec.containers: empty",
		},
		"containers an object": {"Pod", `{"spec":{"containers":{"image":"a"}}}`, "spec.containers"},
		"container null":       {"Pod", `{"spec":{"containers":[{"image":"a"},null]}}`, "spec.containers[1]: null"},
		"init container null": {
			"Pod", `{"spec":{"containers":[{"image":"a"}],"initContainers":[null]}}`, "spec.initContainers[0]: null",
		},
		"ephemeral container null": {
			"Pod", `{"spec":{"containers":[{"image":"a"}],"ephemeralContainers":[null]}}`,
			"spec.ephemeralContainers[0]: null",
		},
		"volume null": {
			"Pod", `{"spec":{"containers":[{"image":"a"}],"volumes":[null]}}`, "spec.volumes[0]: null",
		},
		"container a string": {"Pod", `{"spec":{"containers":["a"]}}`, "spec.containers"},
		"image a number":     {"Pod", `{"spec":{"containers":[{"image":1}]}}`, "spec.containers.image"},
		"image an array":     {"Pod", `{"spec":{"containers":[{"image":["a"]}]}}`, "spec.containers.image"},
		"volume image a string": {
			"Pod", `{"spec":{"containers":[{"image":"a"}],"volumes":[{"image":"a"}]}}`, "spec.volumes.image",
		},
		"reference a number": {
			"Pod", `{"spec":{"containers":[{"image":"a"}],"volumes":[{"image":{"reference":1}}]}}`,
			"spec.volumes.image.reference",
		},
		"image twice": {
			"Pod", `{"spec":{"containers":[{"image":"a","image":"b"}]}}`, `duplicate field "spec.containers[0].image"`,
		},
		"image twice, escaped": {
			"Pod", `{"spec":{"containers":[{"image":"a","\u0069mage":"b"}]}}`,
			`duplicate field "spec.containers[0].image"`,
		},
		"containers twice": {
			"Pod", `{"spec":{"containers":[{"image":"a"}],"containers":[{"image":"b"}]}}`,
			`duplicate field "spec.containers"`,
		},
		"spec twice": {
			"Pod", `{"spec":{"containers":[{"image":"a"}]},"spec":{"containers":[{"image":"b"}]}}`,
			`duplicate field "spec"`,
		},
		"volumes twice": {
			"Deployment", `{"spec":{"template":{"spec":{"containers":[{"image":"a"}],"volumes":[],"volumes":[]}}}}`,
			`duplicate field "spec.template.spec.volumes"`,
		},
		"reference twice": {
			"Pod", `{"spec":{"containers":[{"image":"a"}],"volumes":[{"image":{"reference":"a","reference":"b"}}]}}`,
			`reference"`,
		},
		"too many": {
			"Pod", `{"spec":{"containers":[` + strings.Repeat(`{"image":"a"},`, maxImages) + `{"image":"a"}]}}`,
			"spec: 4097 images",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := kind(t, c.kind).Read([]byte(c.raw))
			if err == nil {
				t.Fatalf("got %+v, want an error", got)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got the error %q, want %q in it", err, c.want)
			}
		})
	}
	if _, err := (Kind{}).Read([]byte(`{}`)); err == nil {
		t.Error("the zero Kind: got an object, want an error")
	}
}

// Only a missing PodSpec is a MissingError.
func TestMissing(t *testing.T) {
	for raw, want := range map[string]string{
		`{}`:                                "spec",
		`null`:                              "spec",
		`{"spec":null}`:                     "spec",
		`{"spec":{}}`:                       "spec.template",
		`{"spec":{"template":{}}}`:          "spec.template.spec",
		`{"spec":[]}`:                       "",
		`{"spec":{"template":""}}`:          "",
		`{"spec":{},"spec":{}}`:             "",
		`{"spec":{"template":{"spec":{}}}}`: "",
	} {
		_, err := kind(t, "Deployment").Read([]byte(raw))
		missing, ok := errors.AsType[*MissingError](err)
		if err == nil || ok != (want != "") || ok && (missing.Path != want || missing.Kind != "Deployment") {
			t.Errorf("%s: got %v, want %q missing", raw, err, want)
		}
	}
}

// Keys are case-sensitive, as for the API server. A key that only looks like image neither hides
// nor adds an image.
func TestThreatKeysAreMatchedInTheirCase(t *testing.T) {
	cases := map[string]struct {
		container string
		want      string
	}{
		"after":  {`{"image":"real","Image":"decoy"}`, "real"},
		"before": {`{"IMAGE":"decoy","image":"real"}`, "real"},
		"alone":  {`{"Image":"decoy"}`, ""},
		"kelvin": {`{"image":"real","ıMAGE":"decoy"}`, "real"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			raw := fmt.Sprintf(`{"spec":{"containers":[%s]},"Spec":{"containers":[{"image":"decoy"}]}}`, c.container)
			got, err := kind(t, "Pod").Read([]byte(raw))
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Images) != 1 || got.Images[0].Image != c.want {
				t.Errorf("got %+v, want the one image %q", got.Images, c.want)
			}
		})
	}
}

// A container without an image is listed, so that it is denied and not skipped. Only an image
// volume of a template may be empty, because the API server allows that.
func TestEmptyImages(t *testing.T) {
	spec := corev1.PodSpec{
		Containers: []corev1.Container{{Name: "app"}},
		Volumes: []corev1.Volume{
			{Name: "model", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{}}},
		},
	}
	for name, want := range map[string][]string{"Pod": {"containers", "volumes"}, "Deployment": {"containers"}} {
		got, err := kind(t, name).Read(marshal(t, objects(spec)[name]))
		if err != nil {
			t.Fatal(err)
		}
		var lists []string
		for _, i := range got.Images {
			lists = append(lists, i.List)
		}
		if diff := cmp.Diff(want, lists); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// One blank is the placeholder of OpenShift in a template. It is none in a Pod, and other white
// space is none anywhere.
func TestThreatPlaceholderIsForTemplatesAlone(t *testing.T) {
	for image, want := range map[string]map[string]int{
		" ":  {"Pod": 2, "Deployment": 1, "DeploymentConfig": 1},
		"":   {"Pod": 2, "Deployment": 2, "DeploymentConfig": 2},
		"  ": {"Pod": 2, "Deployment": 2, "DeploymentConfig": 2},
		"\t": {"Pod": 2, "Deployment": 2, "DeploymentConfig": 2},
	} {
		made := objects(corev1.PodSpec{
			Containers: []corev1.Container{{Name: "later", Image: image}, {Name: "app", Image: "example.com/app:v1"}},
		})
		for name, n := range want {
			got, err := kind(t, name).Read(marshal(t, made[name]))
			if err != nil || len(got.Images) != n {
				t.Errorf("%s with %q: got %+v, %v, want %d images", name, image, got.Images, err, n)
			}
			if last := len(got.Images) - 1; got.Images[last].Image != "example.com/app:v1" ||
				!strings.HasSuffix(got.Images[last].Path, "/containers/1/image") {
				t.Errorf("%s with %q: got the last image %+v, want the second container", name, image, got.Images[last])
			}
		}
	}
	made := objects(corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "example.com/app:v1"}}})
	old := objects(corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: " "}}})
	before, err := kind(t, "DeploymentConfig").Read(marshal(t, old["DeploymentConfig"]))
	if err != nil {
		t.Fatal(err)
	}
	after, err := kind(t, "DeploymentConfig").Read(marshal(t, made["DeploymentConfig"]))
	if err != nil || len(Changed(before.Images, after.Images)) != 1 {
		t.Errorf("after the replacement: got %+v, %v, want one changed image", after.Images, err)
	}
}

func TestReadMetadata(t *testing.T) {
	yes, no := true, false
	pod := &corev1.Pod{Spec: everything()}
	pod.GenerateName, pod.UID = "acme-", "1-2-3"
	pod.OwnerReferences = []metav1.OwnerReference{{Name: "a", Controller: &no}, {Name: "b"}}
	got, err := kind(t, "Pod").Read(marshal(t, pod))
	if err != nil || got.Name != "acme-" || got.UID != "1-2-3" || got.Controlled {
		t.Errorf("got the name %q, UID %q, controlled %t, %v, want acme-, 1-2-3 and false", got.Name, got.UID,
			got.Controlled, err)
	}
	pod.OwnerReferences[1].Controller = &yes
	if got, err = kind(t, "Pod").Read(marshal(t, pod)); err != nil || !got.Controlled {
		t.Errorf("with a controller: got controlled %t, %v, want true", got.Controlled, err)
	}
}

func TestThousandContainers(t *testing.T) {
	var spec corev1.PodSpec
	for i := range 1000 {
		spec.Containers = append(spec.Containers,
			corev1.Container{Name: fmt.Sprintf("c%d", i), Image: fmt.Sprintf("example.com/app:v%d", i)})
	}
	got, err := kind(t, "CronJob").Read(marshal(t, objects(spec)["CronJob"]))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Images) != 1000 {
		t.Fatalf("got %d images, want 1000", len(got.Images))
	}
	last := got.Images[999]
	if last.Path != "/spec/jobTemplate/spec/template/spec/containers/999/image" ||
		last.Image != "example.com/app:v999" {
		t.Errorf("got the last image %+v, want that of container 999", last)
	}
}

func TestFind(t *testing.T) {
	for _, k := range Builtin() {
		got, err := Builtin().Find(k.Group, "v1", k.Resource, "")
		if err != nil || got.Name != k.Name {
			t.Errorf("%s: got %q, %v", k.Name, got.Name, err)
		}
		if want := k.Name == "Pod"; got.IsPod() != want {
			t.Errorf("%s: got IsPod %t, want %t", k.Name, got.IsPod(), want)
		}
	}
	if k, err := Builtin().Find("", "v1", "pods", "ephemeralcontainers"); err != nil || k.Name != "Pod" {
		t.Errorf("pods/ephemeralcontainers: got %q, %v, want Pod", k.Name, err)
	}
	for name, c := range map[string][]string{
		"another resource":    {"", "v1", "services", ""},
		"another group":       {"apps", "v1", "pods", ""},
		"another version":     {"apps", "v1beta1", "deployments", ""},
		"another subresource": {"", "v1", "pods", "status"},
		"subresource of none": {"apps", "v1", "deployments", "ephemeralcontainers"},
		"nothing":             {"", "", "", ""},
	} {
		if k, err := Builtin().Find(c[0], c[1], c[2], c[3]); err == nil {
			t.Errorf("%s: got %q, want an error", name, k.Name)
		}
	}
}

// seenByKubernetes returns every image reference in a PodSpec of the Kubernetes type.
func seenByKubernetes(spec corev1.PodSpec) []string {
	var refs []string
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		refs = append(refs, c.Image)
	}
	for _, c := range spec.EphemeralContainers {
		refs = append(refs, c.Image)
	}
	for _, v := range spec.Volumes {
		if v.Image != nil {
			refs = append(refs, v.Image.Reference)
		}
	}
	slices.Sort(refs)
	return refs
}
