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

// Strip returns a Pod with only what NewPod and a cache need of it, so that thousands can be held. It shares nothing but
// strings with the one given. What is stripped already is returned as it is, for a cache asks twice as it fills, and would hold
// two of each: such a Pod has no time of creation, which one from the API server always has.
func Strip(p *corev1.Pod) *corev1.Pod {
	if p.CreationTimestamp.IsZero() {
		return p
	}
	s := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, UID: p.UID, ResourceVersion: p.ResourceVersion}}
	for _, label := range []string{labelTemplateHash, labelDeploymentConfig} {
		if value, ok := p.Labels[label]; ok {
			metav1.SetMetaDataLabel(&s.ObjectMeta, label, value)
		}
	}
	if c := metav1.GetControllerOfNoCopy(p); c != nil {
		yes := true
		s.OwnerReferences = []metav1.OwnerReference{{APIVersion: c.APIVersion, Kind: c.Kind, Name: c.Name, UID: c.UID, Controller: &yes}}
	}
	s.Status.Phase = p.Status.Phase
	s.Spec.InitContainers = containers(p.Spec.InitContainers)
	s.Spec.Containers = containers(p.Spec.Containers)
	for _, c := range p.Spec.EphemeralContainers {
		s.Spec.EphemeralContainers = append(s.Spec.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: c.Name, Image: c.Image}})
	}
	for _, v := range p.Spec.Volumes {
		if v.Image != nil {
			s.Spec.Volumes = append(s.Spec.Volumes, corev1.Volume{Name: v.Name,
				VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: v.Image.Reference}}})
		}
	}
	s.Status.InitContainerStatuses = statuses(p.Status.InitContainerStatuses)
	s.Status.ContainerStatuses = statuses(p.Status.ContainerStatuses)
	s.Status.EphemeralContainerStatuses = statuses(p.Status.EphemeralContainerStatuses)
	return s
}

func containers(all []corev1.Container) []corev1.Container {
	if len(all) == 0 {
		return nil
	}
	stripped := make([]corev1.Container, len(all))
	for i, c := range all {
		stripped[i].Name, stripped[i].Image = c.Name, c.Image
	}
	return stripped
}

// statuses keeps those that say which image runs.
func statuses(all []corev1.ContainerStatus) []corev1.ContainerStatus {
	var stripped []corev1.ContainerStatus
	for i := range all {
		s := corev1.ContainerStatus{Name: all[i].Name, ImageID: all[i].ImageID}
		for _, m := range all[i].VolumeMounts {
			if m.VolumeStatus != nil && m.VolumeStatus.Image != nil {
				image := *m.VolumeStatus.Image
				s.VolumeMounts = append(s.VolumeMounts, corev1.VolumeMountStatus{Name: m.Name, VolumeStatus: &corev1.VolumeStatus{Image: &image}})
			}
		}
		if s.ImageID != "" || s.VolumeMounts != nil {
			stripped = append(stripped, s)
		}
	}
	return stripped
}
