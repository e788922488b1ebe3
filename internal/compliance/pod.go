package compliance

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/countersign-dev/countersign/internal/imageref"
)

const (
	labelTemplateHash     = "pod-template-hash"
	labelDeploymentConfig = "deploymentconfig"
)

// Maximum lengths of the strings in a Pod, in bytes. The API server accepts owner references and
// images of any length.
const (
	maxAPIVersion = 317 // a group of 253, a slash and a version of 63
	maxKind       = 63
	maxName       = 253
	maxUID        = 128
)

// Reference identifies an object in a workload's namespace: the direct controller of a Pod, or the
// Pod itself.
type Reference struct {
	APIVersion, Kind, Name string
	UID                    types.UID
}

// Image is one image of a Pod.
type Image struct {
	// Spec is the reference in the Pod, at most imageref.MaxLength bytes. A longer one is
	// truncated. It cannot be parsed either way.
	Spec string
	// Digest is the manifest digest that the kubelet reports. It is empty if the kubelet reports
	// none for the repository in Spec.
	Digest string
}

// Pod has the parts of a running Pod that Evaluate reads.
type Pod struct {
	Workload   Workload
	Controller Reference
	// Images are the images of init, regular and ephemeral containers and of image volumes, in this
	// order, without duplicates.
	Images []Image
}

// NewPod converts a Pod. The result refers to no part of p except strings of limited length.
func NewPod(p *corev1.Pod) Pod {
	pod := Pod{Images: make([]Image, 0, len(p.Spec.Containers))}
	pod.Workload, pod.Controller = owner(p)
	seen := make(map[Image]struct{}, len(p.Spec.Containers))
	add := func(reference, imageID string) {
		image := Image{truncate(reference, imageref.MaxLength), digestOf(reference, imageID)}
		if _, known := seen[image]; !known {
			seen[image] = struct{}{}
			pod.Images = append(pod.Images, image)
		}
	}
	ids := reported(p.Status.InitContainerStatuses)
	for _, c := range p.Spec.InitContainers {
		add(c.Image, ids[c.Name])
	}
	ids = reported(p.Status.ContainerStatuses)
	for _, c := range p.Spec.Containers {
		add(c.Image, ids[c.Name])
	}
	ids = reported(p.Status.EphemeralContainerStatuses)
	for _, c := range p.Spec.EphemeralContainers {
		add(c.Image, ids[c.Name])
	}
	ids = mounted(&p.Status)
	for _, v := range p.Spec.Volumes {
		if v.Image != nil && v.Image.Reference != "" {
			add(v.Image.Reference, ids[v.Name])
		}
	}
	return pod
}

// reported returns the image IDs that the kubelet reports, by the name of the container.
func reported(statuses []corev1.ContainerStatus) map[string]string {
	ids := make(map[string]string, len(statuses))
	for i := range statuses {
		ids[statuses[i].Name] = statuses[i].ImageID
	}
	return ids
}

// mounted returns the image IDs that the kubelet reports for image volumes, by the name of the
// volume. It reads the mounts of all containers.
func mounted(status *corev1.PodStatus) map[string]string {
	ids := map[string]string{}
	for _, statuses := range [][]corev1.ContainerStatus{
		status.InitContainerStatuses, status.ContainerStatuses, status.EphemeralContainerStatuses,
	} {
		for i := range statuses {
			for _, m := range statuses[i].VolumeMounts {
				if m.VolumeStatus != nil && m.VolumeStatus.Image != nil && ids[m.Name] == "" {
					ids[m.Name] = m.VolumeStatus.Image.ImageRef
				}
			}
		}
	}
	return ids
}

// digestOf returns the manifest digest of an image ID that a kubelet reports, "name@sha256:...", if
// the name is the repository in the Pod's reference. A runtime may report any name that the same
// content has on the node, and signatures of another repository prove nothing. The result is empty
// for any other ID: a bare "sha256:..." or "docker://sha256:..." is the hash of the image's
// configuration, and signatures are about manifests.
func digestOf(reference, imageID string) string {
	id := strings.TrimPrefix(imageID, "docker-pullable://")
	if !strings.Contains(id, "@") {
		return ""
	}
	reported, err := imageref.Parse(id)
	if err != nil {
		return ""
	}
	named, err := imageref.Parse(reference)
	if err != nil || named.Repository() != reported.Repository() {
		return ""
	}
	return strings.Clone(reported.Digest) // do not keep the whole ID in memory
}

// truncate shortens a string to at most the given number of bytes. It replaces the end with a hash
// of the whole, so that different strings stay different. A truncated string is no valid name or
// image reference.
func truncate(s string, most int) string {
	if len(s) <= most {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	end := "#" + hex.EncodeToString(sum[:16])
	return strings.ToValidUTF8(s[:most-len(end)], "") + end
}

// owner returns the workload of a Pod and its direct controller, from the Pod's owner reference. It
// does not verify the reference, which only determines where a finding is shown.
func owner(p *corev1.Pod) (Workload, Reference) {
	c := metav1.GetControllerOfNoCopy(p)
	if c == nil || c.Kind == "Node" && c.APIVersion == "v1" { // a static Pod is "controlled" by its node
		return Workload{"v1", "Pod", p.Namespace, p.Name}, Reference{"v1", "Pod", p.Name, p.UID}
	}
	r := Reference{
		truncate(c.APIVersion, maxAPIVersion), truncate(c.Kind, maxKind), truncate(c.Name, maxName),
		types.UID(truncate(string(c.UID), maxUID)),
	}
	w := Workload{r.APIVersion, r.Kind, p.Namespace, r.Name}
	switch {
	case r.Kind == "ReplicaSet" && strings.HasPrefix(r.APIVersion, "apps/"):
		hash := p.Labels[labelTemplateHash]
		if name, ok := strings.CutSuffix(r.Name, "-"+hash); ok && hash != "" && name != "" {
			w.APIVersion, w.Kind, w.Name = "apps/v1", "Deployment", name
		}
	case r.Kind == "ReplicationController" && r.APIVersion == "v1":
		if config := p.Labels[labelDeploymentConfig]; config != "" && strings.HasPrefix(r.Name, config+"-") {
			w.APIVersion, w.Kind, w.Name = "apps.openshift.io/v1", "DeploymentConfig", config
		}
	}
	return w, r
}
