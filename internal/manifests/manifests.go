// Package manifests finds the workloads in files of YAML or JSON, and their images, as the gate
// does in requests.
//
// It reads what kubectl apply would send. It renders no template, and needs no cluster.
package manifests

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/countersign-dev/countersign/internal/documents"
	"github.com/countersign-dev/countersign/internal/workload"
)

// Options say how to read.
type Options struct {
	// Kinds are the kinds of workload that the gate checks.
	Kinds workload.Kinds
	// Namespace is the namespace of objects that name none. If it is empty, it is "default".
	Namespace string
	// Recursive reads the folders within folders too, as kubectl's flag -R does.
	Recursive bool
	// Stdin is the stream that the path "-" means.
	Stdin io.Reader
}

// Workload is one workload of a manifest.
type Workload struct {
	documents.Position
	// Kind is the kind as the gate knows it, and APIVersion that of the manifest.
	Kind       workload.Kind
	APIVersion string
	// Namespace is the namespace of the object, or that of the options.
	Namespace string
	// Name is the name or else the generateName.
	Name string
	// Images are the images in the order of the PodSpec.
	Images []workload.Image
}

// Ignored is an object of another kind. The gate does not check it.
type Ignored struct {
	documents.Position
	APIVersion, Kind, Name string
	// Template is true if the object has a pod template at spec.template. The gate checks only the
	// Pods that are created from it, unless the kind is a further kind.
	Template bool
}

// Set is the content of the manifests.
type Set struct {
	// Workloads are in the order of the manifests.
	Workloads []Workload
	// Namespaces are the labels of the Namespaces in the manifests, by name.
	Namespaces map[string]labels.Set
	// Ignored are the objects of other kinds, in the order of the manifests.
	Ignored []Ignored
	// Unread are the folders within folders that were not read.
	Unread []string
}

// Read reads files, folders and standard input. The error joins a *documents.Error for each thing
// that is wrong, one line each. The rest of the manifests is returned with it.
func Read(paths []string, o Options) (*Set, error) {
	o.Namespace = cmp.Or(o.Namespace, corev1.NamespaceDefault)
	read, err := documents.Read(paths, documents.Options{Recursive: o.Recursive, Stdin: o.Stdin})
	r := &reader{
		Options: o, errs: []error{err}, usual: template(),
		set: &Set{Namespaces: map[string]labels.Set{}, Unread: read.Unread},
	}
	for _, object := range read.Objects {
		if err := r.read(object); err != nil {
			r.errs = append(r.errs, &documents.Error{Position: object.Position, Object: object.Name(), Err: err})
		}
	}
	return r.set, errors.Join(r.errs...)
}

type reader struct {
	Options
	set   *Set
	errs  []error
	usual workload.Kind // reads a pod template at spec.template
}

func (r *reader) read(o documents.Object) error {
	gvk := o.GroupVersionKind()
	if gvk.Group == "" && gvk.Kind == "Namespace" {
		return r.namespace(o)
	}
	kind, err := r.kind(gvk)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(o.Object)
	if err != nil {
		return err
	}
	if kind == nil {
		kind = r.irregular(gvk, raw)
	}
	if kind == nil {
		_, err := r.usual.Read(raw)
		r.set.Ignored = append(r.set.Ignored, Ignored{
			Position: o.Position, APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Name: o.Name(),
			Template: err == nil,
		})
		return nil
	}
	object, err := kind.Read(raw)
	if err != nil {
		return err
	}
	namespace, err := r.namespaceOf(o)
	if err != nil {
		return err
	}
	for _, i := range object.Images {
		if strings.Contains(i.Image, "{{") {
			return fmt.Errorf("%s: %.128q is a template; render it first, with helm template for example",
				strings.ReplaceAll(strings.TrimPrefix(i.Path, "/"), "/", "."), i.Image)
		}
	}
	r.set.Workloads = append(r.set.Workloads, Workload{
		Position: o.Position, Kind: *kind, APIVersion: o.GetAPIVersion(), Namespace: namespace, Name: object.Name,
		Images: object.Images,
	})
	return nil
}

// kind returns the kind of workload, or nil if the gate does not check objects of the kind. It
// returns an error for a version that the API server would convert before the gate reads the
// object, or would not accept: the images may be in other fields.
func (r *reader) kind(gvk schema.GroupVersionKind) (*workload.Kind, error) {
	for i := range r.Kinds {
		k := &r.Kinds[i]
		if !names(k, gvk) {
			continue
		}
		if k.Group == gvk.Group && k.Version == gvk.Version {
			return k, nil
		}
		if k.Group == gvk.Group || gvk.Group == "extensions" {
			return nil, fmt.Errorf("apiVersion %q cannot be checked; write the %s as %s", gvk.GroupVersion(), gvk.Kind,
				schema.GroupVersion{Group: k.Group, Version: k.Version})
		}
	}
	return nil, nil
}

// names reports whether a kind of workload has the name of a kind of API objects. A further kind is
// configured by its resource, the plural.
func names(k *workload.Kind, gvk schema.GroupVersionKind) bool {
	if k.Template == "" {
		return k.Name == gvk.Kind
	}
	plural, singular := meta.UnsafeGuessKindToResource(gvk)
	return k.Resource == plural.Resource || k.Resource == singular.Resource
}

// irregular returns the further kind of the group at whose path an object has a pod template. The
// plural of the kind may be irregular, and cannot be looked up without a cluster.
func (r *reader) irregular(gvk schema.GroupVersionKind, raw []byte) *workload.Kind {
	for i := range r.Kinds {
		k := &r.Kinds[i]
		if k.Template == "" || k.Group != gvk.Group {
			continue
		}
		if _, err := k.Read(raw); err == nil {
			return k
		}
	}
	return nil
}

// template returns the kind that reads a pod template at the usual path.
func template() workload.Kind {
	for _, k := range workload.Builtin() {
		if k.Name == "Deployment" {
			return k
		}
	}
	return workload.Kind{}
}

// namespaceOf returns the namespace of an object.
func (r *reader) namespaceOf(o documents.Object) (string, error) {
	metadata, _ := o.Object["metadata"].(map[string]any)
	switch namespace := metadata["namespace"].(type) {
	case nil:
		return r.Namespace, nil
	case string:
		if namespace == "" {
			return r.Namespace, nil
		}
		if problems := validation.IsDNS1123Label(namespace); len(problems) > 0 {
			return "", fmt.Errorf("metadata.namespace: %.64q is not the name of a namespace", namespace)
		}
		return namespace, nil
	}
	return "", errors.New("metadata.namespace: not a string")
}

// namespace adds the labels of a Namespace. Two of one name with different labels are an error:
// which one holds would depend on the order.
func (r *reader) namespace(o documents.Object) error {
	metadata, _ := o.Object["metadata"].(map[string]any)
	name, _ := metadata["name"].(string)
	if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
		return fmt.Errorf("metadata.name: %.64q is not the name of a namespace", name)
	}
	set := labels.Set{}
	carried, ok := metadata["labels"].(map[string]any)
	if !ok && metadata["labels"] != nil {
		return errors.New("metadata.labels: not an object")
	}
	for _, key := range slices.Sorted(maps.Keys(carried)) {
		value, ok := carried[key].(string)
		if !ok {
			return fmt.Errorf("metadata.labels: the value of %.64q is not a string; put it in quotes", key)
		}
		problems := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...)
		if len(problems) > 0 {
			return fmt.Errorf("metadata.labels: %.64q: %s", key, strings.Join(problems, "; "))
		}
		set[key] = value
	}
	set[corev1.LabelMetadataName] = name // as the API server does
	if before, known := r.set.Namespaces[name]; known && !maps.Equal(before, set) {
		return errors.New("is in the manifests twice, with other labels; remove one")
	}
	r.set.Namespaces[name] = set
	return nil
}
