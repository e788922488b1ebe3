package workload

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

func TestPullSecrets(t *testing.T) {
	spec := corev1.PodSpec{
		ServiceAccountName: "builder",
		ImagePullSecrets:   []corev1.LocalObjectReference{{Name: "first"}, {Name: "second"}},
		Containers:         []corev1.Container{{Name: "c", Image: "registry.example.com/acme/app:v1"}},
	}
	template := corev1.PodTemplateSpec{Spec: spec}
	want := PullSecrets{Names: []string{"first", "second"}, ServiceAccount: "builder"}
	for name, o := range map[string]any{
		"Pod":        &corev1.Pod{Spec: spec},
		"Deployment": &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Template: template}},
		"CronJob": &batchv1.CronJob{Spec: batchv1.CronJobSpec{
			JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template}},
		}},
		"PodTemplate": &corev1.PodTemplate{Template: template},
	} {
		if diff := cmp.Diff(want, kind(t, name).PullSecrets(marshal(t, o))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for text, want := range map[string]PullSecrets{
		`{}`:           {},
		`{"spec": {}}`: {},
		``:             {},
		`[]`:           {},
		`{"spec": {"imagePullSecrets": [{"name": "a"}`:                                   {Names: []string{"a"}},
		`{"spec": {"imagePullSecrets": [7, {"name": 7}, null, {"name": "a", "x": {}}]}}`: {Names: []string{"a"}},
		`{"spec": {"imagePullSecrets": {"name": "a"}}}`:                                  {},
		`{"spec": {"serviceAccountName": ["a"], "serviceAccount": "b"}}`:                 {ServiceAccount: "b"},
		`{"spec": {"serviceAccountName": "a\u0062", "serviceAccount": "b"}}`:             {ServiceAccount: "ab"},
		`{"metadata": {"serviceAccountName": "a"}, "imagePullSecrets": [{"name": "a"}]}`: {},
		`{"spec": {"serviceAccountName": "` + strings.Repeat("a", maxObjectName) + `"}}`: {},
	} {
		if diff := cmp.Diff(want, kind(t, "Pod").PullSecrets([]byte(text))); diff != "" {
			t.Errorf("%.80s (-want +got):\n%s", text, diff)
		}
	}
	many := `{"spec": {"imagePullSecrets": [` + strings.TrimSuffix(strings.Repeat(`{"name": "a"},`, 100), ",") + `]}}`
	if got := kind(t, "Pod").PullSecrets([]byte(many)).Names; len(got) != maxPullSecrets {
		t.Errorf("got %d names, want %d", len(got), maxPullSecrets)
	}
}
