package running

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Needs returns the subjects that the running images are checked against. It lists Pods once for
// each call and watches none, so that every replica can use it when it starts.
type Needs struct {
	// Client reads the cache, and Live the Pods, of which none is cached.
	Client, Live client.Reader
	Store        *store.Store
	Clock        clock.PassiveClock
	// Exempt namespaces are left out.
	Exempt flags.Exempt
}

// Missing returns the subjects that running images are checked against and that have no evidence.
func (n Needs) Missing(ctx context.Context) ([]trust.Key, error) {
	pods, err := n.running(ctx)
	if err != nil {
		return nil, err
	}
	snapshot := n.Store.Load()
	in, err := evaluationInput(ctx, n.Client, snapshot, n.Exempt, n.Clock.Now())
	if err != nil {
		return nil, err
	}
	in.Pods = pods
	var missing []trust.Key
	for _, k := range compliance.Evaluate(in).Needs {
		if _, _, err := snapshot.Evidence(k); errors.Is(err, policy.ErrNotLoaded) {
			missing = append(missing, k)
		}
	}
	return missing, nil
}

// running returns the Pods that have not ended, of namespaces that are not exempt. Of Pods that an
// evaluation cannot distinguish, it returns one.
func (n Needs) running(ctx context.Context) ([]compliance.Pod, error) {
	var pods []compliance.Pod
	known := map[fingerprint]struct{}{}
	_, err := eachPod(ctx, n.Live, n.Exempt, func(p *corev1.Pod) error {
		pod := compliance.NewPod(p)
		key := fingerprintOf(&pod)
		if _, ok := known[key]; !ok {
			known[key] = struct{}{}
			pods = append(pods, pod)
		}
		return nil
	})
	return pods, err
}
