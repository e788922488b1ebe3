package inventory

import (
	"fmt"
	"testing"

	"github.com/countersign-dev/countersign/internal/compliance"
)

// Each of 10,000 Pods is in one batch, and no workload is in two.
func TestBatches(t *testing.T) {
	var pods []compliance.Pod
	for i := range 10_000 {
		pods = append(pods, compliance.Pod{
			Workload: compliance.Workload{Namespace: "shop", Kind: "Deployment", Name: fmt.Sprint(i % 3000)},
			Images:   []compliance.Image{{Spec: fmt.Sprintf("example.com/%d", i)}},
		})
	}
	in, total := map[compliance.Workload]int{}, 0
	all := batches(pods)
	for n, batch := range all {
		for _, p := range batch {
			if before, known := in[p.Workload]; known && before != n {
				t.Fatalf("%v: got it in the batches %d and %d, want one", p.Workload, before, n)
			}
			in[p.Workload], total = n, total+1
		}
		if len(batch) > batchImages+10 {
			t.Errorf("batch %d: got %d images, want about %d", n, len(batch), batchImages)
		}
	}
	if total != len(pods) || len(all) < 20 {
		t.Errorf("got %d Pods in %d batches, want %d in at least 20", total, len(all), len(pods))
	}
}
