package compliance

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

// forged returns a Pod with an owner reference and images that an attacker chose.
func forged(name, apiVersion, kind, owner, hash string, images ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: name, Labels: map[string]string{labelTemplateHash: hash},
		OwnerReferences: []metav1.OwnerReference{
			{APIVersion: apiVersion, Kind: kind, Name: owner, UID: types.UID(owner), Controller: ptr.To(true)},
		},
	}}
	for i, image := range images {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprint("c", i), Image: image})
	}
	return p
}

// The API server accepts owner references and images of more than 1 MiB. Untruncated, each Pod
// would keep them in memory, and they would be written to events and status.
func TestThreatNothingOfAPodIsKeptWithoutBound(t *testing.T) {
	const size = 1400 << 10
	for name, character := range map[string]string{"ASCII": "a", "of three bytes": "\u20ac"} {
		t.Run(name, func(t *testing.T) {
			long := strings.Repeat(character, size/len(character))
			var pods []Pod
			for _, last := range []string{"x", "y"} {
				pods = append(pods,
					NewPod(
						forged("p", long+last, long+last, long+last, "", long+last, "registry.example.com/"+long+last)))
			}
			for _, s := range []struct {
				what string
				most int
				of   func(Pod) string
			}{
				{"API version of the workload", maxAPIVersion, func(p Pod) string { return p.Workload.APIVersion }},
				{"kind of the workload", maxKind, func(p Pod) string { return p.Workload.Kind }},
				{"name of the workload", maxName, func(p Pod) string { return p.Workload.Name }},
				{"API version of the controller", maxAPIVersion, func(p Pod) string { return p.Controller.APIVersion }},
				{"kind of the controller", maxKind, func(p Pod) string { return p.Controller.Kind }},
				{"name of the controller", maxName, func(p Pod) string { return p.Controller.Name }},
				{"UID of the controller", maxUID, func(p Pod) string { return string(p.Controller.UID) }},
				{"image", imageref.MaxLength, func(p Pod) string { return p.Images[0].Spec }},
				{"image on a host", imageref.MaxLength, func(p Pod) string { return p.Images[1].Spec }},
			} {
				x, y := s.of(pods[0]), s.of(pods[1])
				if len(x) > s.most || len(x) < s.most/2 || strings.ToValidUTF8(x, "") != x {
					t.Errorf("%s: got %d bytes, want at most %d of valid text", s.what, len(x), s.most)
				}
				if x == y {
					t.Errorf("%s: two different strings were truncated to the same one", s.what)
				}
			}
			for _, i := range pods[0].Images {
				if ref, err := imageref.Parse(i.Spec); err == nil {
					t.Errorf("a truncated image was parsed as %s, want an error", ref)
				}
			}
		})
	}
}

func TestLongNamesThatAreLegalStay(t *testing.T) {
	group, name := strings.Repeat("g", 253)+"/"+strings.Repeat("v", 63), strings.Repeat("n", 253)
	image := strings.Repeat("h", 800) + ".example.com/" + strings.Repeat("p", 100)
	p := NewPod(forged("p", group, strings.Repeat("k", 63), name, "", image))
	if p.Workload != (Workload{group, strings.Repeat("k", 63), "shop", name}) || p.Images[0].Spec != image {
		t.Errorf("got %+v, want the names unchanged", p)
	}
}

// Images that no policy covers are not kept, however many the Pods of one forged owner have. A
// covered image is kept once.
func TestThreatUncoveredImagesCostNothing(t *testing.T) {
	var pods []Pod
	for i := range 10 {
		p := forged(fmt.Sprint(i), "x/v1", "X", "one", "")
		for j := range 400 {
			p.Spec.Containers = append(p.Spec.Containers,
				corev1.Container{Name: fmt.Sprint(j), Image: fmt.Sprintf("other.example.com/a/%d-%d", i, j)})
		}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "c", Image: app + ":v1"},
			corev1.Container{Name: "d", Image: app + ":v1"})
		pods = append(pods, NewPod(p))
		if n := len(pods[i].Images); n != 401 {
			t.Fatalf("got %d images of a Pod, want 401", n)
		}
	}
	e := evaluation{
		Input: Input{
			Pods: pods, Namespaces: map[string]labels.Set{"shop": {}}, Now: now, Roots: roots{"acme": {}},
			Policies: compile(t, rule{name: "production", images: app, root: "acme", roles: []v1alpha1.RoleName{"ci"}}),
		},
		judged: map[target]*judgement{}, needs: map[trust.Key]bool{},
	}
	workloads := e.workloads()
	if len(workloads) != 1 || len(workloads[pods[0].Workload]) != 1 {
		t.Errorf("got %d workloads, and %d images of the forged one; want 1 and 1", len(workloads),
			len(workloads[pods[0].Workload]))
	}
}

// An attacker may forge an owner reference. The Pod must not count as part of a workload of another
// API group, and the event about a real violation must not move to the forged owner.
func TestThreatForgedOwnerDivertsNothing(t *testing.T) {
	good, bad := app+"@"+digest("a"), app+"@"+digest("b")
	genuine := forged("real", "apps/v1", "ReplicaSet", "app-7f6d", "7f6d", bad)
	cases := map[string]struct {
		forged    *corev1.Pod
		workloads int
	}{
		"of another group":                 {forged("forged", "evil/v1", "ReplicaSet", "app-0", "0", bad), 2},
		"of the same group, and compliant": {forged("forged", "apps/v1", "ReplicaSet", "app-0", "0", good), 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for _, pods := range [][]Pod{{NewPod(genuine), NewPod(c.forged)}, {NewPod(c.forged), NewPod(genuine)}} {
				r := evaluate(t, signed("ci v1 a", "qa v1 a"), pods...)
				if len(r.Findings) != c.workloads {
					t.Fatalf("got findings %+v, want %d", r.Findings, c.workloads)
				}
				f := r.Findings[0]
				if f.Workload.Kind != "Deployment" || f.Verdict != policy.Denied || f.Controller.Name != "app-7f6d" {
					t.Errorf("the event about %+v would be on %+v, want the controller of the violating Pod",
						f.Workload, f.Controller)
				}
			}
		})
	}
}

// A finding names the digest that the kubelet reports only if the Pod names no digest.
func TestNameOfAnImage(t *testing.T) {
	cases := map[string]struct {
		image     Image
		name, tag string
	}{
		"tag":                      {Image{app + ":v1", ""}, app + ":v1", ""},
		"no tag":                   {Image{"nginx", ""}, "docker.io/library/nginx:latest", ""},
		"tag, reported":            {Image{app + ":v1", digest("b")}, app + "@" + digest("b"), "v1"},
		"digest":                   {Image{app + "@" + digest("a"), ""}, app + "@" + digest("a"), ""},
		"tag and digest":           {Image{app + ":v1@" + digest("a"), ""}, app + "@" + digest("a"), ""},
		"tag and digest, reported": {Image{app + ":v1@" + digest("a"), digest("a")}, app + "@" + digest("a"), ""},
		"another digest reported":  {Image{app + ":v1@" + digest("a"), digest("b")}, app + "@" + digest("a"), ""},
		"too long with a tag":      {Image{strings.Repeat("h", 1006) + ".example.com/p", ""}, "", ""},
		"too long with its digest": {Image{strings.Repeat("h", 1000) + ".example.com/p", digest("a")}, "", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := Evaluate(Input{
				Pods: []Pod{pod("web", c.image)}, Namespaces: map[string]labels.Set{"shop": {}}, Now: now,
				Roots:    roots{"acme": {}},
				Policies: compile(t, rule{name: "all", images: "*/**", root: "acme", roles: []v1alpha1.RoleName{"ci"}}),
			})
			if len(r.Findings) != 1 || len(r.Findings[0].Images) != 1 {
				t.Fatalf("got findings %+v, want one with one image", r.Findings)
			}
			got := r.Findings[0].Images[0]
			if len(got.Image) > imageref.MaxLength || c.name != "" && (got.Image != c.name || got.Tag != c.tag) {
				t.Errorf("got image %q with tag %q, want %q and %q", got.Image, got.Tag, c.name, c.tag)
			}
		})
	}
}
