package running

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/countersign-dev/countersign/internal/compliance"
)

func aPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "1", ResourceVersion: "1"},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "app", Image: "registry.example.com/acme/app:v1"}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning,
			ContainerStatuses: []corev1.ContainerStatus{
				{Name: "app", Image: "x", ImageID: "registry.example.com/acme/app@sha256:" + strings.Repeat("a", 64)},
			},
		},
	}
}

// A change of a Pod wakes the evaluation only if the evaluation reads the changed field. Readiness,
// for example, changes often.
func TestPodChanges(t *testing.T) {
	cases := map[string]struct {
		change func(*corev1.Pod)
		want   bool
	}{
		"nothing":   {func(p *corev1.Pod) { p.ResourceVersion = "2" }, false},
		"readiness": {func(p *corev1.Pod) { p.Status.ContainerStatuses[0].Ready = true }, false},
		"a label":   {func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }, false},
		"image":     {func(p *corev1.Pod) { p.Spec.Containers[0].Image += "2" }, true},
		"digest": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].ImageID = "registry.example.com/acme/app@sha256:" + strings.Repeat("b", 64)
		}, true},
		"debug container": {
			func(p *corev1.Pod) { p.Spec.EphemeralContainers = make([]corev1.EphemeralContainer, 1) }, true,
		},
		"end":     {func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, true},
		"failure": {func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, true},
		"controller": {func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{
				{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "2", Controller: ptr.To(true)},
			}
		}, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			calls := 0
			s := &runningPods{changed: func() { calls++ }}
			if err := s.Replace([]any{aPod("web")}, ""); err != nil {
				t.Fatal(err)
			}
			p := aPod("web")
			c.change(p)
			if err := s.Update(p); err != nil {
				t.Fatal(err)
			}
			if got := calls == 2; got != c.want {
				t.Errorf("got %d calls of changed, want a second one: %v", calls, c.want)
			}
			want := []compliance.Pod{compliance.NewPod(p)}
			if p.Status.Phase != corev1.PodRunning {
				want = nil
			}
			if got, _ := s.list(); len(got) != len(want) || len(got) == 1 && !podsEqual(got[0], want[0]) {
				t.Errorf("got Pods %+v, want %+v", got, want)
			}
		})
	}
}

func podsEqual(a, b compliance.Pod) bool {
	return a.Workload == b.Workload && a.Controller == b.Controller && len(a.Images) == len(b.Images) &&
		a.Images[0] == b.Images[0]
}

// The test calls the store like a reflector: the Pods of the first list are transformed, later ones
// are not.
func TestPodStore(t *testing.T) {
	calls := 0
	s := &runningPods{changed: func() { calls++ }}
	holds := func(step string, wantPods, wantCalls int, wantComplete bool) {
		t.Helper()
		got, complete := s.list()
		if len(got) != wantPods || complete != wantComplete || calls != wantCalls {
			t.Errorf("%s: got %d Pods, complete %v, %d calls of changed; want %d, %v, %d", step, len(got), complete,
				calls, wantPods, wantComplete, wantCalls)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	holds("before the first list", 0, 0, false)
	gathered := toolscache.NewStore(toolscache.DeletionHandlingMetaNamespaceKeyFunc,
		toolscache.WithTransformer(s.Transformer()))
	ended := aPod("ended")
	ended.Status.Phase = corev1.PodSucceeded
	for _, p := range []*corev1.Pod{aPod("a"), aPod("b"), aPod("c"), ended} {
		must(gathered.Add(p))
	}
	must(gathered.Delete(aPod("c")))
	must(s.Replace(gathered.List(), "7"))
	holds("the first list", 2, 1, true)
	must(s.Add(aPod("d")))
	holds("a further Pod", 3, 2, true)
	must(s.Add(aPod("d")))
	holds("the same Pod again", 3, 2, true)
	must(s.Delete(aPod("a")))
	must(s.Delete(aPod("a")))
	holds("deleted, twice", 2, 3, true)
	must(s.Replace([]any{aPod("e")}, "9"))
	holds("another list", 1, 4, true)
	must(s.Replace(nil, "10"))
	holds("an empty list", 0, 5, true)
	if err := s.Add(&corev1.Secret{}); err == nil {
		t.Error("adding a Secret: got no error, want one")
	}
}
