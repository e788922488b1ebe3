// Package policyfiles reads ImagePolicies and TrustRoots from files, with the Secrets, ConfigMaps
// and Namespaces that they need, and validates them as the API server does.
//
// It uses the API server's own code on the CRDs of this version: unknown fields, the schema,
// defaults, lists and rules in CEL. What it returns is what a cluster would hold after kubectl
// apply.
package policyfiles

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/documents"
)

// Options say how to read.
type Options struct {
	// Namespace is the namespace of Secrets and ConfigMaps that name none: the operator's own.
	Namespace string
	// Documents say how to read the files. Strict is set in any case.
	Documents documents.Options
}

// Ignored is an object of a kind that this package does not read.
type Ignored = documents.Object

// Set is the content of the files. Every object is valid, and has the defaults of its kind.
type Set struct {
	// ImagePolicies, TrustRoots, Namespaces, Secrets and ConfigMaps are in the order of their
	// names.
	ImagePolicies []*v1alpha1.ImagePolicy
	TrustRoots    []*v1alpha1.TrustRoot
	Namespaces    []*corev1.Namespace
	Secrets       []*corev1.Secret
	ConfigMaps    []*corev1.ConfigMap
	// Ignored are the objects of other kinds.
	Ignored []Ignored
	// Unread are the folders within folders that were not read.
	Unread []string
	// Positions says where each object was read.
	Positions map[Key]documents.Position
}

// Key identifies an object of a Set.
type Key struct {
	Kind, Namespace, Name string
}

// Reader returns a reader of the objects. It gets every kind of the Set by name, and lists all
// objects of a kind. It returns copies.
func (s *Set) Reader() client.Reader { return reader{s} }

// Read reads files and folders. The error joins a *documents.Error for each thing that is wrong. It
// is one line a fault, and names the file, the document, the object and the field. The Set must not
// be used with an error, since it lacks the objects that are wrong.
func Read(ctx context.Context, paths []string, o Options) (*Set, error) {
	o.Documents.Strict = true
	read, err := documents.Read(paths, o.Documents)
	l := &loader{
		Options: o, errs: []error{err}, known: map[Key]known{},
		set: &Set{Unread: read.Unread, Positions: map[Key]documents.Position{}},
	}
	if l.validator, err = NewValidator(); err != nil {
		return l.set, err
	}
	for _, object := range read.Objects {
		l.load(ctx, object)
	}
	l.set.sort()
	return l.set, errors.Join(l.errs...)
}

// known is an object that was read before.
type known struct {
	at     documents.Position
	object client.Object
}

type loader struct {
	Options
	validator *Validator
	set       *Set
	known     map[Key]known
	errs      []error
}

// load validates one object and adds it to the set.
func (l *loader) load(ctx context.Context, o documents.Object) {
	gvk := o.GroupVersionKind()
	var faults []error
	switch {
	case gvk.Group == v1alpha1.GroupVersion.Group:
		faults = l.custom(ctx, o)
	case gvk.Group == "" && gvk.Version == "v1":
		faults = l.core(o, gvk.Kind)
	default:
		l.set.Ignored = append(l.set.Ignored, o)
	}
	for _, fault := range faults {
		l.errs = append(l.errs, &documents.Error{Position: o.Position, Object: o.Name(), Err: fault})
	}
}

// custom adds an ImagePolicy or a TrustRoot.
func (l *loader) custom(ctx context.Context, o documents.Object) []error {
	content := o.DeepCopy()
	if faults := l.validator.Admit(ctx, content); len(faults) > 0 {
		return faults
	}
	var typed client.Object = &v1alpha1.ImagePolicy{}
	if o.GetKind() == "TrustRoot" {
		typed = &v1alpha1.TrustRoot{}
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content.Object, typed); err != nil {
		return []error{err}
	}
	return l.add(o, typed)
}

// core adds an object of a kind of Kubernetes.
func (l *loader) core(o documents.Object, kind string) []error {
	switch kind {
	case "Namespace":
		return l.typed(o, &corev1.Namespace{})
	case "Secret":
		return l.typed(o, &corev1.Secret{})
	case "ConfigMap":
		return l.typed(o, &corev1.ConfigMap{})
	}
	l.set.Ignored = append(l.set.Ignored, o)
	return nil
}

// typed decodes an object of a kind of Kubernetes, validates it, and adds it.
func (l *loader) typed(o documents.Object, into client.Object) []error {
	if faults := decodeStrictly(o.Unstructured, into); len(faults) > 0 {
		return faults
	}
	_, clusterScoped := into.(*corev1.Namespace)
	if into.GetNamespace() == "" && !clusterScoped {
		into.SetNamespace(l.Namespace)
	}
	if faults := validateCore(into); len(faults) > 0 {
		return faults
	}
	return l.add(o, into)
}

// add adds a valid object. A second one of the same name is an error, unless it is equal: kubectl
// would apply one over the other.
func (l *loader) add(o documents.Object, typed client.Object) []error {
	key := Key{o.GetKind(), typed.GetNamespace(), typed.GetName()}
	if before, ok := l.known[key]; ok {
		if equality.Semantic.DeepEqual(before.object, typed) {
			return nil
		}
		return []error{fmt.Errorf("is in %s too, with other content; remove one", before.at)}
	}
	l.known[key] = known{o.Position, typed}
	l.set.Positions[key] = o.Position
	switch typed := typed.(type) {
	case *v1alpha1.ImagePolicy:
		l.set.ImagePolicies = append(l.set.ImagePolicies, typed)
	case *v1alpha1.TrustRoot:
		l.set.TrustRoots = append(l.set.TrustRoots, typed)
	case *corev1.Namespace:
		l.set.Namespaces = append(l.set.Namespaces, typed)
	case *corev1.Secret:
		l.set.Secrets = append(l.set.Secrets, typed)
	case *corev1.ConfigMap:
		l.set.ConfigMaps = append(l.set.ConfigMaps, typed)
	}
	return nil
}

func (s *Set) sort() {
	sortByName(s.ImagePolicies)
	sortByName(s.TrustRoots)
	sortByName(s.Namespaces)
	sortByName(s.Secrets)
	sortByName(s.ConfigMaps)
}

func sortByName[T client.Object](objects []T) {
	slices.SortFunc(objects, func(a, b T) int {
		return cmp.Or(strings.Compare(a.GetNamespace(), b.GetNamespace()), strings.Compare(a.GetName(), b.GetName()))
	})
}

// decodeStrictly decodes an object, with an error for each unknown field.
func decodeStrictly(from *unstructured.Unstructured, into client.Object) []error {
	err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(from.Object, into, true)
	if strict, ok := runtime.AsStrictDecodingError(err); ok {
		return strict.Errors()
	}
	if err != nil {
		return []error{err}
	}
	return nil
}
