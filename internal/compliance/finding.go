// Package compliance checks running workloads against the policies.
//
// It reports a violation only if verified evidence proves it. It checks the digest that the kubelet
// reports for each container, and not the digest that a tag has today. Workloads that could not be
// checked are counted separately. policy.Decide makes each decision, as at admission. The package
// is pure: Pods, namespaces, the snapshot and the time are arguments. It uses no network, clock or
// cluster.
package compliance

import (
	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
)

// Workload is the object that users know a running Pod by: its controller, or the Pod itself if it
// has none. It comes from the Pod's owner reference, which is not verified. No decision depends on
// it.
type Workload struct {
	APIVersion, Kind, Namespace, Name string
}

// Finding is the outcome for one workload and one policy that covers an image of it.
type Finding struct {
	// Policy is the name of the ImagePolicy, and Mode its mode.
	Policy string
	Mode   v1alpha1.PolicyMode
	// Workload is the running workload.
	Workload Workload
	// Controller is the direct controller of a Pod that has an image with this verdict, or that Pod
	// if it has no controller. Events need its UID.
	Controller Reference
	// Verdict is the worst verdict of its images. Denied is a violation, CouldNotCheck may be one.
	Verdict policy.Verdict
	// Images are the images that are not Admitted, sorted by image, without duplicates.
	Images []ImageFinding
}

// ImageFinding is one image that does not meet a policy, or could not be checked.
type ImageFinding struct {
	// Image is the repository with the digest that the Pod names, otherwise with the digest that
	// the kubelet reports, otherwise with the tag. A reference that cannot be parsed, and a short
	// name under ShortNamesDeny, are as in the Pod. It is at most imageref.MaxLength bytes long.
	Image string
	// Tag is the Pod's tag if Image has the digest that the kubelet reports.
	Tag string
	// Verdict is Denied or CouldNotCheck.
	Verdict policy.Verdict
	// Reason is one of the reasons of decisions in api/v1alpha1.
	Reason string
	// Missing are the roles that have not signed, in the form of policy.Outcome.
	Missing []string
}
