// Package compliance judges what already runs by the policies that are in force.
//
// It promises that a workload counts as violating a policy only where verified evidence says so, by
// the digest that the kubelet reports for each container and not by what a tag means today; and
// that what could not be checked is kept apart. The decision itself is policy.Decide, the same as
// at admission. The package is pure: Pods, namespaces, the snapshot and the time are arguments, and
// it never touches a network, a clock or the cluster.
package compliance

import (
	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
)

// Workload is what users know a running Pod by: the controller that it belongs to, or the Pod
// itself where it has none. It says what the Pod says of its owner; nothing is admitted or denied
// by it.
type Workload struct {
	APIVersion, Kind, Namespace, Name string
}

// Finding is how one workload meets one policy that covers an image of it.
type Finding struct {
	// Policy is the name of the ImagePolicy, and Mode its mode.
	Policy string
	Mode   v1alpha1.PolicyMode
	// Workload is what runs.
	Workload Workload
	// Controller is the direct controller of one of its Pods, or that Pod where it has none: for
	// events, which need the UID. The Pod is one that has an image of this verdict.
	Controller Reference
	// Verdict is that of the worst of its images: Denied is a violation, CouldNotCheck is not known
	// to be one.
	Verdict policy.Verdict
	// Images are those that are not Admitted, sorted by image, without repetition.
	Images []ImageFinding
}

// ImageFinding is one image that does not meet a policy, or could not be checked against it.
type ImageFinding struct {
	// Image is the repository with the digest that the Pod names, or else with that which the
	// kubelet reports, or else with the tag. What cannot be parsed is the reference of the Pod, and
	// so is a short name under ShortNamesDeny. It is bounded as a reference is.
	Image string
	// Tag is the Pod's, where Image has the digest that the kubelet reports for it.
	Tag string
	// Verdict is Denied or CouldNotCheck.
	Verdict policy.Verdict
	// Reason is one of the reasons of decisions in api/v1alpha1.
	Reason string
	// Missing are the roles that have not signed, as policy.Outcome has them.
	Missing []string
}
