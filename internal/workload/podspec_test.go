package workload

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// Each string of the PodSpec with a name like image or reference in its path is on one of two
// lists: the walker reads it, or it is no image. A new field in a later Kubernetes fails the test
// until it is on a list.
func TestThreatNewImageFieldsAreNoticed(t *testing.T) {
	covered := []string{
		"containers[].image",
		"ephemeralContainers[].image",
		"initContainers[].image",
		"volumes[].image.reference",
	}
	others := []string{
		"containers[].imagePullPolicy",
		"ephemeralContainers[].imagePullPolicy",
		"imagePullSecrets[].name",
		"initContainers[].imagePullPolicy",
		"volumes[].image.pullPolicy",
		"volumes[].rbd.image", // a block device in Ceph
	}
	var found []string
	suspects(reflect.TypeFor[corev1.PodSpec](), "", false, nil, func(path string) { found = append(found, path) })
	slices.Sort(found)
	want := slices.Sorted(slices.Values(slices.Concat(covered, others)))
	if diff := cmp.Diff(want, found); diff != "" {
		t.Fatalf("the PodSpec of this Kubernetes has other fields that may carry an image (-listed +found):\n%s", diff)
	}
	for _, path := range covered {
		t.Run(path, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: "example.com/first"}}}}
			set(t, reflect.ValueOf(&pod.Spec).Elem(), strings.Split(path, "."), "example.com/here")
			got, err := kind(t, "Pod").Read(marshal(t, pod))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(got.Images, func(i Image) bool { return i.Image == "example.com/here" }) {
				t.Errorf("got the images %+v, want example.com/here among them", got.Images)
			}
		})
	}
}

var imageName = regexp.MustCompile(`(?i)image|artifact|^reference$|oci`)

// suspects calls found with the path of each string that could be an image.
func suspects(t reflect.Type, path string, suspect bool, above []reflect.Type, found func(string)) {
	switch t.Kind() {
	case reflect.Pointer:
		suspects(t.Elem(), path, suspect, above, found)
	case reflect.Slice, reflect.Map:
		suspects(t.Elem(), path+"[]", suspect, above, found)
	case reflect.String:
		if suspect {
			found(path)
		}
	case reflect.Struct:
		if slices.Contains(above, t) {
			return
		}
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			next := path
			if name != "" {
				next = strings.TrimPrefix(path+"."+name, ".")
			}
			hit := suspect || imageName.MatchString(f.Name) || imageName.MatchString(name) ||
				imageName.MatchString(f.Type.Name())
			suspects(f.Type, next, hit, append(above, t), found)
		}
	}
}

// set sets the string at a path, and creates the values on the path.
func set(t *testing.T, v reflect.Value, path []string, s string) {
	t.Helper()
	if len(path) == 0 {
		v.SetString(s)
		return
	}
	name, list := strings.CutSuffix(path[0], "[]")
	f := field(v, name)
	if !f.IsValid() {
		t.Fatalf("no field %q in %s", name, v.Type())
	}
	if list {
		f.Set(reflect.Append(f, reflect.New(f.Type().Elem()).Elem()))
		f = f.Index(f.Len() - 1)
	}
	if f.Kind() == reflect.Pointer {
		f.Set(reflect.New(f.Type().Elem()))
		f = f.Elem()
	}
	set(t, f, path[1:], s)
}

// field returns the field with a JSON name, in the struct or in an embedded one.
func field(v reflect.Value, name string) reflect.Value {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == name {
			return v.Field(i)
		}
		if f.Anonymous {
			if inner := field(v.Field(i), name); inner.IsValid() {
				return inner
			}
		}
	}
	return reflect.Value{}
}
