package compliance

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/internal/workload"
)

func digest(letter string) string { return "sha256:" + strings.Repeat(letter, 64) }

func TestReportedDigest(t *testing.T) {
	const app = "registry.example.com/acme/app"
	cases := map[string]struct{ reference, imageID, want string }{
		"none":                    {app, "", ""},
		"containerd":              {app + ":v1", app + "@" + digest("a"), digest("a")},
		"docker-pullable":         {app, "docker-pullable://" + app + "@" + digest("a"), digest("a")},
		"another spelling":        {"nginx:1", "docker.io/library/nginx@" + digest("a"), digest("a")},
		"with a tag":              {app, app + ":v1@" + digest("a"), digest("a")},
		"another digest":          {app + "@" + digest("b"), app + "@" + digest("a"), digest("a")},
		"another repository":      {app, "mirror.example.com:5000/x@" + digest("a"), ""},
		"a longer name":           {app, app + "-2@" + digest("a"), ""},
		"docker, configuration":   {app, "docker://" + digest("a"), ""},
		"bare configuration":      {app, digest("a"), ""},
		"too short":               {app, app + "@sha256:abc", ""},
		"upper case":              {app, app + "@" + strings.ToUpper(digest("a")), ""},
		"another algorithm":       {app, app + "@sha512:" + strings.Repeat("a", 128), ""},
		"a suffix":                {app, app + "@" + digest("a") + "@x", ""},
		"an unparsable reference": {"%", app + "@" + digest("a"), ""},
		"a name of 1 MiB":         {app, strings.Repeat("a", 1<<20) + "@" + digest("a"), ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := digestOf(c.reference, c.imageID); got != c.want {
				t.Errorf("digestOf(%q, %.100q) = %q, want %q", c.reference, c.imageID, got, c.want)
			}
		})
	}
}

func TestWorkload(t *testing.T) {
	yes := true
	owned := func(apiVersion, kind, name string, labels map[string]string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-abc-xyz", UID: "pod", Labels: labels,
			OwnerReferences: []metav1.OwnerReference{
				{APIVersion: "v1", Kind: "ConfigMap", Name: "no-controller", UID: "other"},
				{APIVersion: apiVersion, Kind: kind, Name: name, UID: "owner", Controller: &yes},
			},
		}}
	}
	alone := owned("v1", "ConfigMap", "no-controller", nil)
	alone.OwnerReferences = alone.OwnerReferences[:1]
	pod := Reference{"v1", "Pod", "web-abc-xyz", "pod"}
	cases := map[string]struct {
		pod        *corev1.Pod
		want       Workload
		controller Reference
	}{
		"no controller": {alone, Workload{"v1", "Pod", "shop", "web-abc-xyz"}, pod},
		"static Pod":    {owned("v1", "Node", "node-1", nil), Workload{"v1", "Pod", "shop", "web-abc-xyz"}, pod},
		"Deployment": {
			owned("apps/v1", "ReplicaSet", "web-abc", map[string]string{"pod-template-hash": "abc"}),
			Workload{"apps/v1", "Deployment", "shop", "web"}, Reference{"apps/v1", "ReplicaSet", "web-abc", "owner"},
		},
		"bare ReplicaSet": {
			owned("apps/v1", "ReplicaSet", "web-abc", nil),
			Workload{"apps/v1", "ReplicaSet", "shop", "web-abc"},
			Reference{"apps/v1", "ReplicaSet", "web-abc", "owner"},
		},
		"ReplicaSet with another hash": {
			owned("apps/v1", "ReplicaSet", "web-abc", map[string]string{"pod-template-hash": "bc"}),
			Workload{"apps/v1", "ReplicaSet", "shop", "web-abc"},
			Reference{"apps/v1", "ReplicaSet", "web-abc", "owner"},
		},
		"ReplicaSet whose name is the hash": {
			owned("apps/v1", "ReplicaSet", "-abc", map[string]string{"pod-template-hash": "abc"}),
			Workload{"apps/v1", "ReplicaSet", "shop", "-abc"}, Reference{"apps/v1", "ReplicaSet", "-abc", "owner"},
		},
		"DeploymentConfig": {
			owned("v1", "ReplicationController", "web-3", map[string]string{"deploymentconfig": "web"}),
			Workload{"apps.openshift.io/v1", "DeploymentConfig", "shop", "web"},
			Reference{"v1", "ReplicationController", "web-3", "owner"},
		},
		"ReplicationController of another name": {
			owned("v1", "ReplicationController", "web-3", map[string]string{"deploymentconfig": "we"}),
			Workload{"v1", "ReplicationController", "shop", "web-3"},
			Reference{"v1", "ReplicationController", "web-3", "owner"},
		},
		"Node of another group": {
			owned("evil/v1", "Node", "node-1", nil), Workload{"evil/v1", "Node", "shop", "node-1"},
			Reference{"evil/v1", "Node", "node-1", "owner"},
		},
		"ReplicaSet of another group": {
			owned("evil/v1", "ReplicaSet", "web-abc", map[string]string{"pod-template-hash": "abc"}),
			Workload{"evil/v1", "ReplicaSet", "shop", "web-abc"},
			Reference{"evil/v1", "ReplicaSet", "web-abc", "owner"},
		},
		"ReplicationController of another group": {
			owned("apps/v1", "ReplicationController", "web-3", map[string]string{"deploymentconfig": "web"}),
			Workload{"apps/v1", "ReplicationController", "shop", "web-3"},
			Reference{"apps/v1", "ReplicationController", "web-3", "owner"},
		},
		"any other kind": {
			owned("argoproj.io/v1alpha1", "Rollout", "web", map[string]string{"pod-template-hash": "abc"}),
			Workload{"argoproj.io/v1alpha1", "Rollout", "shop", "web"},
			Reference{"argoproj.io/v1alpha1", "Rollout", "web", "owner"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := NewPod(c.pod)
			if diff := cmp.Diff(c.want, got.Workload); diff != "" {
				t.Errorf("workload (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.controller, got.Controller); diff != "" {
				t.Errorf("controller (-want +got):\n%s", diff)
			}
		})
	}
}

// full returns a Pod with an image in every field that may have one, and with many fields that an
// evaluation does not read.
func full() *corev1.Pod {
	yes := true
	status := func(name, imageID string) corev1.ContainerStatus {
		return corev1.ContainerStatus{
			Name: name, Image: "whatever", ImageID: imageID, ContainerID: "containerd://1", Ready: true,
		}
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web", UID: "1", ResourceVersion: "7", CreationTimestamp: metav1.Unix(1, 0),
			Labels:      map[string]string{"app": "web", "pod-template-hash": "abc"},
			Annotations: map[string]string{"big": strings.Repeat("x", 1000)},
			OwnerReferences: []metav1.OwnerReference{
				{
					APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-abc", UID: "2", Controller: &yes,
					BlockOwnerDeletion: &yes,
				},
			},
		},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "i", Image: "example.com/init:1", Command: []string{"x"}}},
			Containers: []corev1.Container{
				{Name: "c", Image: "example.com/app:1", Args: []string{"x"}},
				{Name: "d", Image: "example.com/second:1"},
			},
			EphemeralContainers: []corev1.EphemeralContainer{{TargetContainerName: "c",
				EphemeralContainerCommon: corev1.EphemeralContainerCommon{
					Name: "e", Image: "example.com/debug:1"}}},
			Volumes: []corev1.Volume{
				{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{
					Name: "v",
					VolumeSource: corev1.VolumeSource{
						Image: &corev1.ImageVolumeSource{Reference: "example.com/volume:1"},
					},
				},
				{
					Name: "w",
					VolumeSource: corev1.VolumeSource{
						Image: &corev1.ImageVolumeSource{Reference: "example.com/unreported:1"},
					},
				},
			},
		},
		Status: corev1.PodStatus{
			Phase:                 corev1.PodRunning,
			Conditions:            []corev1.PodCondition{{Type: corev1.PodReady}},
			InitContainerStatuses: []corev1.ContainerStatus{status("i", "example.com/init@"+digest("1"))},
			ContainerStatuses: []corev1.ContainerStatus{
				status("d", "example.com/second@"+digest("3")), status("c", "example.com/app@"+digest("2")),
			},
			EphemeralContainerStatuses: []corev1.ContainerStatus{status("e", "example.com/debug@"+digest("4"))},
		},
	}
	p.Status.ContainerStatuses[0].VolumeMounts = []corev1.VolumeMountStatus{
		{Name: "data", MountPath: "/data"},
		{
			Name: "v", MountPath: "/v",
			VolumeStatus: &corev1.VolumeStatus{
				Image: &corev1.ImageVolumeStatus{ImageRef: "example.com/volume@" + digest("5")},
			},
		},
	}
	return p
}

func TestImages(t *testing.T) {
	want := []Image{
		{"example.com/init:1", digest("1")}, {"example.com/app:1", digest("2")}, {"example.com/second:1", digest("3")},
		{"example.com/debug:1", digest("4")}, {"example.com/volume:1", digest("5")}, {"example.com/unreported:1", ""},
	}
	if diff := cmp.Diff(want, NewPod(full()).Images); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}

// NewPod finds an image in every field where admission finds one. Another test compares admission's
// walker with the PodSpec type.
func TestThreatEveryListIsJudged(t *testing.T) {
	raw, err := json.Marshal(full())
	if err != nil {
		t.Fatal(err)
	}
	kind, err := workload.Builtin().Find("", "v1", "pods", "")
	if err != nil {
		t.Fatal(err)
	}
	object, err := kind.Read(raw)
	if err != nil {
		t.Fatal(err)
	}
	judged := NewPod(full()).Images
	for _, i := range object.Images {
		if !slices.ContainsFunc(judged, func(j Image) bool { return j.Spec == i.Image }) {
			t.Errorf("image %s at %s is missing", i.Image, i.Path)
		}
	}
	if len(judged) != len(object.Images) {
		t.Errorf("got %d images, want %d as at admission", len(judged), len(object.Images))
	}
}

func BenchmarkNewPod(b *testing.B) {
	p := full()
	b.ReportAllocs()
	for b.Loop() {
		if len(NewPod(p).Images) == 0 {
			b.Fatal(fmt.Sprint(p))
		}
	}
}
