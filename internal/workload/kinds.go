// Package workload finds the container images of every kind of workload, and makes the patches that
// pin them.
//
// It finds every image of a PodSpec: one walker for all kinds reads init, regular and ephemeral
// containers and image volumes. A test over the PodSpec type fails when Kubernetes adds another
// field with an image. If the package cannot parse an object for certain, it returns an error that
// names the field. It never parses a reference, never decides, and trusts nothing that an object
// says about itself.
package workload

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Kind is a kind of workload: a Pod, or an object with a pod template.
type Kind struct {
	// Name is the kind as users write it, such as Deployment.
	Name string
	// Group is the API group, empty for the core group.
	Group string
	// Version is the API version of the objects. The API server converts requests in other versions
	// to it.
	Version string
	// Resource is the plural name in URLs.
	Resource string
	// Subresources are the subresources whose updates can add images.
	Subresources []string
	// Template is the path of the pod template as the administrator configured it, empty for a
	// builtin kind.
	Template string

	// podSpec is the path to the PodSpec within the object.
	podSpec []string
	// document is a struct type that decodes the metadata and the PodSpec at its path, and nothing
	// else.
	document reflect.Type
	// parts are the members that document decodes.
	parts parts
	// placeholders are the images that a template may have instead of real ones.
	placeholders []Placeholder
}

// Kinds are the kinds of workload that are checked.
type Kinds []Kind

// Builtin returns the kinds of Kubernetes and the one of OpenShift. A webhook rule for a group that
// a cluster does not serve does no harm. The rules of the webhooks are made from this list.
func Builtin() Kinds {
	return Kinds{
		newKind("Pod", "", "pods", "spec", "ephemeralcontainers"),
		newKind("ReplicationController", "", "replicationcontrollers", "spec.template.spec"),
		newKind("PodTemplate", "", "podtemplates", "template.spec"),
		newKind("Deployment", "apps", "deployments", "spec.template.spec"),
		newKind("ReplicaSet", "apps", "replicasets", "spec.template.spec"),
		newKind("StatefulSet", "apps", "statefulsets", "spec.template.spec"),
		newKind("DaemonSet", "apps", "daemonsets", "spec.template.spec"),
		newKind("Job", "batch", "jobs", "spec.template.spec"),
		newKind("CronJob", "batch", "cronjobs", "spec.jobTemplate.spec.template.spec"),
		newKind("DeploymentConfig", "apps.openshift.io", "deploymentconfigs", "spec.template.spec"),
	}
}

func newKind(name, group, resource, podSpec string, subresources ...string) Kind {
	path := strings.Split(podSpec, ".")
	return Kind{
		Name: name, Group: group, Version: "v1", Resource: resource, Subresources: subresources,
		podSpec: path, document: documentType(path), parts: partsOf(path), placeholders: placeholders(),
	}
}

// Find returns the kind of a resource, or of a subresource that can add images. It returns an error
// for any other.
func (ks Kinds) Find(group, version, resource, subresource string) (Kind, error) {
	for _, k := range ks {
		if k.Group == group && k.Version == version && k.Resource == resource &&
			(subresource == "" || slices.Contains(k.Subresources, subresource)) {
			return k, nil
		}
	}
	full := resource
	if subresource != "" {
		full += "/" + subresource
	}
	if group != "" {
		full += "." + group
	}
	return Kind{}, fmt.Errorf(
		"%s in version %q is no kind of workload that can be checked; remove it from the rules of the webhook", full,
		version)
}

// Fixed reports whether the API server refuses to change the images of an object of this kind: the
// template of a Job is immutable.
func (k Kind) Fixed() bool { return k.Group == "batch" && k.Resource == "jobs" }

// IsPod reports whether the kind is Pod. A Pod runs; the other kinds have a template, and the Pods
// created from it are checked themselves.
func (k Kind) IsPod() bool { return k.Group == "" && k.Resource == "pods" }
