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

// elsewhere are kinds of config that are no manifests of a bundle: OLM makes them, the
// ClusterServiceVersion holds them, or OLM takes none.
func elsewhere() []string {
	return []string{"Namespace", "Deployment", "ServiceAccount", "ResourceQuota"}
}

// sameAsConfig checks that the bundle holds every object of config as it is there, and none
// besides.
func (b *bundle) sameAsConfig() {
	want := map[string]unstructured.Unstructured{}
	for _, o := range b.rendered {
		inCSV := (o.GetKind() == "ClusterRole" || o.GetKind() == "ClusterRoleBinding") &&
			o.GetName() == olm.ServiceAccount
		if !inCSV && !slices.Contains(elsewhere(), o.GetKind()) {
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
			b.add("config", "%s is there twice", key(o))
		}
		got[key(o)] = plain(o)
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		switch o, ok := got[k]; {
		case !ok:
			b.add("config", "%s is missing", k)
		case !reflect.DeepEqual(o.Object, want[k].Object):
			b.add("config", "%s is not what config has", k)
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			b.add("config", "%s is not of config", k)
		}
	}
}

// plain leaves out what differs between a bundle and config on purpose.
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

// sameNamespace checks what a console makes; that it can be read is checked elsewhere.
func (b *bundle) sameNamespace(want unstructured.Unstructured) {
	var got map[string]any
	_ = json.Unmarshal([]byte(b.csv.Metadata.Annotations[olm.AnnotationNamespaceTemplate]), &got)
	if !reflect.DeepEqual(got, want.Object) {
		b.add("config", "%s is not what config has", key(want))
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
	b.add("config", "%s is not what config has", key(o))
}
