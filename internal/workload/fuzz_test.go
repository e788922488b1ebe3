package workload

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/json"
)

// FuzzRead checks that no JSON makes Read panic. It also checks that Read finds every image that
// the decoder of Kubernetes finds, or refuses the object.
func FuzzRead(f *testing.F) {
	for _, o := range objects(everything()) {
		f.Add(marshal(f, o))
	}
	f.Add([]byte(`{"spec":{"containers":[{"image":"a","Image":"b"}],"Containers":[{"image":"c"}]}}`))
	f.Add([]byte(`{"spec":{"containers":[{"image":"a"}],"containers":null}}`))
	f.Add([]byte(`{"spec":{"containers":[{"image":"a"}],"volumes":[{"image":{"reference":"b"}},null]}}`))
	f.Add([]byte(`{"spec":{"containers":[{"\u0069mage":"\ud800","image":null}]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, k := range Builtin() {
			got, err := k.Read(raw)
			if err != nil || k.Name != "Pod" {
				continue
			}
			var pod corev1.Pod
			if json.Unmarshal(raw, &pod) != nil {
				continue // the API server refuses it
			}
			var refs []string
			for _, i := range got.Images {
				refs = append(refs, i.Image)
			}
			slices.Sort(refs)
			if diff := cmp.Diff(seenByKubernetes(pod.Spec), refs); diff != "" {
				t.Errorf("images (-Kubernetes +got):\n%s", diff)
			}
		}
	})
}
