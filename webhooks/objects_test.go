package webhooks

import (
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// object returns an object of a kind whose containers run the images.
func object(kind string, images ...string) client.Object {
	var spec corev1.PodSpec
	for i, image := range images {
		spec.Containers = append(spec.Containers, corev1.Container{Name: fmt.Sprintf("c%d", i), Image: image})
	}
	template := corev1.PodTemplateSpec{Spec: spec}
	meta := metav1.ObjectMeta{Name: "acme", Namespace: "shop"}
	switch kind {
	case "Pod":
		return &corev1.Pod{ObjectMeta: meta, Spec: spec}
	case "ReplicationController":
		return &corev1.ReplicationController{
			ObjectMeta: meta, Spec: corev1.ReplicationControllerSpec{Template: &template},
		}
	case "PodTemplate":
		return &corev1.PodTemplate{ObjectMeta: meta, Template: template}
	case "DeploymentConfig", "rollouts.argoproj.io": // kinds without a Go type here
		return custom(map[string]any{"template": encodable(template)})
	case "Deployment":
		return &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Template: template}}
	case "ReplicaSet":
		return &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Template: template}}
	case "StatefulSet":
		return &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Template: template}}
	case "DaemonSet":
		return &appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Template: template}}
	case "Job":
		return &batchv1.Job{ObjectMeta: meta, Spec: batchv1.JobSpec{Template: template}}
	case "CronJob":
		return &batchv1.CronJob{
			ObjectMeta: meta,
			Spec: batchv1.CronJobSpec{
				JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template}},
			},
		}
	}
	panic("unknown kind " + kind)
}

// custom returns an object with a spec, of a kind without a Go type.
func custom(spec any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "Custom",
		"metadata": map[string]any{"name": "acme", "namespace": "shop"}, "spec": spec,
	}}
}

// encodable converts a value to maps, lists and scalars, through JSON.
func encodable(v any) (decoded any) {
	raw, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(raw, &decoded)
	}
	if err != nil {
		panic(err)
	}
	return decoded
}
