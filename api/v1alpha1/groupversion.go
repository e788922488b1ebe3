// Package v1alpha1 holds the ImagePolicy and TrustRoot kinds of the group countersign.dev.
//
// An ImagePolicy names the signer roles that must have signed an image before a workload may run
// it. A TrustRoot says where the signatures of a role come from and which keys may sign for it.
// Both kinds are cluster-scoped. The CRD validates what depends on one object alone. The status
// reports the rest, such as a missing TrustRoot or a key that cannot be parsed, and the policy then
// denies its scope.
//
// +kubebuilder:object:generate=true
// +groupName=countersign.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of the kinds in this package.
var GroupVersion = schema.GroupVersion{Group: "countersign.dev", Version: "v1alpha1"}

// AddToScheme registers the kinds of this package in a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &ImagePolicy{}, &ImagePolicyList{}, &TrustRoot{}, &TrustRootList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
