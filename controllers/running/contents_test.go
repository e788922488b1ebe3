package running

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// replica returns a Pod of one ReplicaSet.
func replica(name string) *corev1.Pod {
	p := aPod(name)
	p.OwnerReferences = []metav1.OwnerReference{
		{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "2", Controller: ptr.To(true)},
	}
	return p
}

// Replicas use one compliance.Pod. A replica with other images, as during a rollout, has its own.
func TestReplicasShare(t *testing.T) {
	s := &runningPods{changed: func() {}}
	other := replica("web-3")
	other.Spec.Containers[0].Image = "registry.example.com/acme/app:v2"
	if err := s.Replace([]any{replica("web-1"), replica("web-2"), other}, ""); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.list(); len(got) != 2 {
		t.Errorf("got %+v, want one Pod of each image", got)
	}
	if err := s.Delete(replica("web-1")); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.list(); len(got) != 2 {
		t.Errorf("got %+v with one replica fewer, want one Pod of each image", got)
	}
	if err := s.Delete(replica("web-2")); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.list(); len(got) != 1 || got[0].Images[0].Spec != other.Spec.Containers[0].Image {
		t.Errorf("got %+v, want the remaining Pod", got)
	}
}

// An entry without Pods is freed. Otherwise memory would grow for as long as the leader runs.
func TestContentsAreFreed(t *testing.T) {
	s := &runningPods{changed: func() {}}
	for i := range 100 {
		p := aPod(fmt.Sprintf("web-%d", i))
		if err := s.Replace([]any{p}, ""); err != nil {
			t.Fatal(err)
		}
	}
	poll.Await(t, "unused entries to be freed", func() error {
		runtime.GC()
		s.contents.mu.Lock()
		defer s.contents.mu.Unlock()
		if got := len(s.contents.known); got != 1 {
			return fmt.Errorf("got %d entries, want 1", got)
		}
		return nil
	})
	if got, _ := s.list(); len(got) != 1 || got[0].Workload.Name != "web-99" {
		t.Errorf("got %+v, want the last Pod", got)
	}
}

// Pods that differ in any field have different fingerprints. An attacker chooses owner references
// and images, so shifting text between fields must not help. The fingerprint has every field of
// compliance.Pod.
func TestFingerprintsDiffer(t *testing.T) {
	full := compliance.Pod{
		Workload:   compliance.Workload{APIVersion: "a", Kind: "b", Namespace: "c", Name: "d"},
		Controller: compliance.Reference{APIVersion: "e", Kind: "f", Name: "g", UID: "h"},
		Images:     []compliance.Image{{Spec: "i", Digest: "j"}, {Spec: "k", Digest: "l"}},
	}
	all := map[string]compliance.Pod{"full": full, "empty": {}}
	edit := func(name string, change func(p *compliance.Pod)) {
		p := full
		p.Images = append([]compliance.Image(nil), full.Images...)
		change(&p)
		all[name] = p
	}
	for _, part := range []string{"Workload", "Controller"} {
		fields := reflect.TypeFor[compliance.Pod]()
		field, _ := fields.FieldByName(part)
		for i := range field.Type.NumField() {
			edit(part+"."+field.Type.Field(i).Name, func(p *compliance.Pod) {
				reflect.ValueOf(p).Elem().FieldByName(part).Field(i).SetString("another")
			})
		}
	}
	for i := range reflect.TypeFor[compliance.Image]().NumField() {
		edit("Image."+reflect.TypeFor[compliance.Image]().Field(i).Name, func(p *compliance.Pod) {
			reflect.ValueOf(&p.Images[1]).Elem().Field(i).SetString("another")
		})
	}
	edit("the border between two fields", func(p *compliance.Pod) { p.Workload.Kind, p.Workload.Namespace = "bc", "" })
	edit("a length in the text", func(p *compliance.Pod) { p.Workload.Kind, p.Workload.Namespace = "b\x01c", "" })
	edit("a long name", func(p *compliance.Pod) { p.Workload.Name = strings.Repeat("d", 300) })
	edit("one image fewer", func(p *compliance.Pod) { p.Images = p.Images[:1] })
	edit("the images swapped", func(p *compliance.Pod) { p.Images[0], p.Images[1] = p.Images[1], p.Images[0] })
	edit("an empty image more", func(p *compliance.Pod) { p.Images = append(p.Images, compliance.Image{}) })
	if got := reflect.TypeFor[compliance.Pod]().NumField(); got != 3 {
		t.Fatalf("compliance.Pod has %d fields, want the 3 that are hashed", got)
	}
	seen := map[fingerprint]string{}
	for name, p := range all {
		key := fingerprintOf(&p)
		if other, known := seen[key]; known {
			t.Errorf("%s and %s have the same fingerprint", name, other)
		}
		seen[key] = name
		if again := fingerprintOf(&p); again != key {
			t.Errorf("%s has two fingerprints", name)
		}
	}
}
