package check

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/countersign-dev/countersign/internal/olm"
)

// omitted returns the kinds of config that are not manifests of a bundle: OLM creates them, the
// ClusterServiceVersion has them, or OLM does not accept them.
func omitted() []string {
	return []string{"Namespace", "Deployment", "ServiceAccount", "ResourceQuota"}
}

// sameAsConfig checks that the bundle has exactly the objects of config.
func (b *bundle) sameAsConfig() {
	want := map[string]unstructured.Unstructured{}
	for _, o := range b.rendered {
		inCSV := (o.GetKind() == "ClusterRole" || o.GetKind() == "ClusterRoleBinding") &&
			o.GetName() == olm.ServiceAccount
		if !inCSV && !slices.Contains(omitted(), o.GetKind()) {
			want[key(o)] = plain(o)
		}
		switch o.GetKind() {
		case "Deployment":
			b.sameDeployment(o)
		case "Namespace":
			b.sameNamespace(o)
		}
	}
	got := map[string]unstructured.Unstructured{}
	for _, o := range b.extra {
		if _, ok := got[key(o)]; ok {
			b.add("config", "%s is a duplicate", key(o))
		}
		got[key(o)] = plain(o)
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		switch o, ok := got[k]; {
		case !ok:
			b.add("config", "%s is missing", k)
		case !reflect.DeepEqual(o.Object, want[k].Object):
			b.add("config", "%s differs from config", k)
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			b.add("config", "%s is not in config", k)
		}
	}
}

// plain returns o without the fields that differ between a bundle and config on purpose.
func plain(o unstructured.Unstructured) unstructured.Unstructured {
	o = *o.DeepCopy()
	o.SetNamespace("")
	labels := o.GetLabels()
	for label := range olm.OwnerLabels("") {
		delete(labels, label)
	}
	o.SetLabels(labels)
	return o
}

// sameNamespace checks the Namespace that a console creates. namespace checks that it can be
// decoded.
func (b *bundle) sameNamespace(want unstructured.Unstructured) {
	var got map[string]any
	_ = json.Unmarshal([]byte(b.csv.Metadata.Annotations[olm.AnnotationNamespaceTemplate]), &got)
	if !reflect.DeepEqual(got, want.Object) {
		b.add("config", "%s differs from config", key(want))
	}
}

func (b *bundle) sameDeployment(o unstructured.Unstructured) {
	var want appsv1.Deployment
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &want); err != nil {
		b.add("config", "%s: %v", key(o), err)
		return
	}
	for _, d := range b.csv.Spec.Install.Spec.Deployments {
		if d.Name == want.Name && reflect.DeepEqual(d.Spec, want.Spec) && maps.Equal(d.Label, want.Labels) {
			return
		}
	}
	b.add("config", "%s differs from config", key(o))
}
