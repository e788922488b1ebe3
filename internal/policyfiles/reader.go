package policyfiles

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// reader implements client.Reader for a Set.
type reader struct {
	set *Set
}

// Get implements client.Reader. It returns NotFound for an object that is not in the files.
func (r reader) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	switch into := into.(type) {
	case *v1alpha1.ImagePolicy:
		return get(key, r.set.ImagePolicies, func(o *v1alpha1.ImagePolicy) { o.DeepCopyInto(into) },
			v1alpha1.GroupVersion.Group, "imagepolicies")
	case *v1alpha1.TrustRoot:
		return get(key, r.set.TrustRoots, func(o *v1alpha1.TrustRoot) { o.DeepCopyInto(into) },
			v1alpha1.GroupVersion.Group, "trustroots")
	case *corev1.Namespace:
		return get(key, r.set.Namespaces, func(o *corev1.Namespace) { o.DeepCopyInto(into) }, "", "namespaces")
	case *corev1.Secret:
		return get(key, r.set.Secrets, func(o *corev1.Secret) { o.DeepCopyInto(into) }, "", "secrets")
	case *corev1.ConfigMap:
		return get(key, r.set.ConfigMaps, func(o *corev1.ConfigMap) { o.DeepCopyInto(into) }, "", "configmaps")
	}
	return fmt.Errorf("files hold no %T", into)
}

func get[T client.Object](key client.ObjectKey, objects []T, copyTo func(T), group, resource string) error {
	for _, o := range objects {
		if client.ObjectKeyFromObject(o) == key {
			copyTo(o)
			return nil
		}
	}
	return apierrors.NewNotFound(schema.GroupResource{Group: group, Resource: resource}, key.Name)
}

// List implements client.Reader. It lists all objects of a kind. Of the options it follows
// client.InNamespace alone, and returns an error for others.
func (r reader) List(_ context.Context, into client.ObjectList, opts ...client.ListOption) error {
	o := (&client.ListOptions{}).ApplyOptions(opts)
	if o.LabelSelector != nil || o.FieldSelector != nil {
		return fmt.Errorf("files cannot be listed with a selector")
	}
	switch into := into.(type) {
	case *v1alpha1.ImagePolicyList:
		into.Items = list(r.set.ImagePolicies, o.Namespace, (*v1alpha1.ImagePolicy).DeepCopy)
	case *v1alpha1.TrustRootList:
		into.Items = list(r.set.TrustRoots, o.Namespace, (*v1alpha1.TrustRoot).DeepCopy)
	case *corev1.NamespaceList:
		into.Items = list(r.set.Namespaces, o.Namespace, (*corev1.Namespace).DeepCopy)
	case *corev1.SecretList:
		into.Items = list(r.set.Secrets, o.Namespace, (*corev1.Secret).DeepCopy)
	case *corev1.ConfigMapList:
		into.Items = list(r.set.ConfigMaps, o.Namespace, (*corev1.ConfigMap).DeepCopy)
	default:
		return fmt.Errorf("files hold no %T", into)
	}
	return nil
}

func list[V any, T interface {
	*V
	client.Object
}](objects []T, namespace string, copied func(T) T) []V {
	var all []V
	for _, o := range objects {
		if namespace == "" || o.GetNamespace() == namespace {
			all = append(all, *copied(o))
		}
	}
	return all
}
