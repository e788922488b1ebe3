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

// Bounds of what is kept of a Pod, in bytes. The API server takes owner references and images of
// any size.
const (
	maxAPIVersion = 317 // a group of 253, a slash and a version of 63
	maxKind       = 63
	maxName       = 253
	maxUID        = 128
)

// Reference names an object of a workload's namespace for certain: the direct controller of a Pod,
// or the Pod itself.
type Reference struct {
	APIVersion, Kind, Name string
	UID                    types.UID
}

// Image is one image of a Pod.
type Image struct {
	// Spec is the reference that the Pod has, of at most imageref.MaxLength bytes: a longer one is
	// cut, and cannot be parsed either way.
	Spec string
	// Digest is what the kubelet reports to run; empty where it reports none that names a manifest
	// of the repository in Spec.
	Digest string
}

// Pod is what is judged of a running Pod.
type Pod struct {
	Workload   Workload
	Controller Reference
	// Images are those of init, regular and ephemeral containers and of image volumes, in this
	// order, without repetition.
	Images []Image
}

// NewPod reads a Pod. It keeps no part of the object but strings of bounded length.
func NewPod(p *corev1.Pod) Pod {
	pod := Pod{Images: make([]Image, 0, len(p.Spec.Containers))}
	pod.Workload, pod.Controller = owner(p)
	seen := make(map[Image]struct{}, len(p.Spec.Containers))
	add := func(reference, imageID string) {
		image := Image{bounded(reference, imageref.MaxLength), digestOf(reference, imageID)}
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

// reported returns what the kubelet reports as the image IDs of containers, by name.
func reported(statuses []corev1.ContainerStatus) map[string]string {
	ids := make(map[string]string, len(statuses))
	for i := range statuses {
		ids[statuses[i].Name] = statuses[i].ImageID
	}
	return ids
}

// mounted returns what the kubelet reports as the image IDs of image volumes, by name, with
// whichever container mounts them.
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

// digestOf returns the manifest digest in what a kubelet reports as the ID of an image,
// "name@sha256:...", where the name is that of the repository that the Pod asked for: a runtime
// reports any name that the same content has on the node, and that another repository's signatures
// speak for it says nothing. It is empty for anything else: a bare "sha256:..." or
// "docker://sha256:..." is the hash of the image's configuration, which nobody signs.
func digestOf(reference, imageID string) string {
	id := strings.TrimPrefix(imageID, "docker-pullable://")
	if !strings.Contains(id, "@") {
		return ""
	}
	runs, err := imageref.Parse(id)
	if err != nil {
		return ""
	}
	asked, err := imageref.Parse(reference)
	if err != nil || asked.Repository() != runs.Repository() {
		return ""
	}
	return strings.Clone(runs.Digest) // without the text around it
}

// bounded cuts text from elsewhere to at most so many bytes. Where it cuts, a hash of the whole
// takes the end, so that no two become one; what was cut is neither a name nor an image reference.
func bounded(s string, most int) string {
	if len(s) <= most {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	end := "#" + hex.EncodeToString(sum[:16])
	return strings.ToValidUTF8(s[:most-len(end)], "") + end
}

// owner says what users know the Pod by, and what made it. The word of the Pod is taken for it:
// nothing hangs on it but where a finding is shown.
func owner(p *corev1.Pod) (Workload, Reference) {
	c := metav1.GetControllerOfNoCopy(p)
	if c == nil || c.Kind == "Node" && c.APIVersion == "v1" { // a static Pod is "controlled" by its node
		return Workload{"v1", "Pod", p.Namespace, p.Name}, Reference{"v1", "Pod", p.Name, p.UID}
	}
	r := Reference{
		bounded(c.APIVersion, maxAPIVersion), bounded(c.Kind, maxKind), bounded(c.Name, maxName),
		types.UID(bounded(string(c.UID), maxUID)),
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
