package compliance

import (
	"slices"
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

// Reference names an object of a workload's namespace for certain: the direct controller of a Pod, or the Pod itself.
type Reference struct {
	APIVersion, Kind, Name string
	UID                    types.UID
}

// Image is one image of a Pod.
type Image struct {
	// Spec is the reference that the Pod has.
	Spec string
	// Digest is what the kubelet reports to run; empty where it reports none that names a manifest.
	Digest string
}

// Pod is what is judged of a running Pod.
type Pod struct {
	Workload   Workload
	Controller Reference
	// Images are those of init, regular and ephemeral containers and of image volumes, in this order, without repetition.
	Images []Image
}

// NewPod reads a Pod. It keeps no part of the object but its strings.
func NewPod(p *corev1.Pod) Pod {
	pod := Pod{Images: make([]Image, 0, len(p.Spec.Containers))}
	pod.Workload, pod.Controller = owner(p)
	add := func(image Image) {
		if !slices.Contains(pod.Images, image) {
			pod.Images = append(pod.Images, image)
		}
	}
	for _, c := range p.Spec.InitContainers {
		add(Image{c.Image, reported(p.Status.InitContainerStatuses, c.Name)})
	}
	for _, c := range p.Spec.Containers {
		add(Image{c.Image, reported(p.Status.ContainerStatuses, c.Name)})
	}
	for _, c := range p.Spec.EphemeralContainers {
		add(Image{c.Image, reported(p.Status.EphemeralContainerStatuses, c.Name)})
	}
	for _, v := range p.Spec.Volumes {
		if v.Image != nil && v.Image.Reference != "" {
			add(Image{v.Image.Reference, mounted(&p.Status, v.Name)})
		}
	}
	return pod
}

// reported returns the digest that the kubelet reports for a container.
func reported(statuses []corev1.ContainerStatus, name string) string {
	for i := range statuses {
		if statuses[i].Name == name {
			return Digest(statuses[i].ImageID)
		}
	}
	return ""
}

// mounted returns the digest that the kubelet reports for an image volume, with whichever container mounts it.
func mounted(status *corev1.PodStatus, volume string) string {
	for _, statuses := range [][]corev1.ContainerStatus{status.InitContainerStatuses, status.ContainerStatuses, status.EphemeralContainerStatuses} {
		for i := range statuses {
			for _, m := range statuses[i].VolumeMounts {
				if m.Name == volume && m.VolumeStatus != nil && m.VolumeStatus.Image != nil {
					return Digest(m.VolumeStatus.Image.ImageRef)
				}
			}
		}
	}
	return ""
}

// Digest returns the manifest digest in what a kubelet reports as the ID of an image: that of "name@sha256:...", whatever the
// name and its prefix. It is empty for anything else: a bare "sha256:..." or "docker://sha256:..." is the hash of the image's
// configuration, which nobody signs.
func Digest(imageID string) string {
	_, digest, found := strings.Cut(imageID, "@")
	if !found || !imageref.ValidDigest(digest) {
		return ""
	}
	return digest
}

// owner says what users know the Pod by, and what made it. The word of the Pod is taken for it: nothing hangs on it but
// where a finding is shown.
func owner(p *corev1.Pod) (Workload, Reference) {
	c := metav1.GetControllerOfNoCopy(p)
	if c == nil || c.Kind == "Node" { // a static Pod is "controlled" by its node
		return Workload{"v1", "Pod", p.Namespace, p.Name}, Reference{"v1", "Pod", p.Name, p.UID}
	}
	w, r := Workload{c.APIVersion, c.Kind, p.Namespace, c.Name}, Reference{c.APIVersion, c.Kind, c.Name, c.UID}
	switch c.Kind {
	case "ReplicaSet":
		hash := p.Labels[labelTemplateHash]
		if name, ok := strings.CutSuffix(c.Name, "-"+hash); ok && hash != "" && name != "" {
			w.APIVersion, w.Kind, w.Name = "apps/v1", "Deployment", name
		}
	case "ReplicationController":
		if config := p.Labels[labelDeploymentConfig]; config != "" && strings.HasPrefix(c.Name, config+"-") {
			w.APIVersion, w.Kind, w.Name = "apps.openshift.io/v1", "DeploymentConfig", config
		}
	}
	return w, r
}
