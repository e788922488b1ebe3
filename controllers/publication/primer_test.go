package publication

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/running"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/testenv/controlplane"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/trustroot"
)

// A replica becomes ready though the signing server never answers: it stops waiting before its
// fetches end.
func TestReadyThoughTheSigningServerHangs(t *testing.T) {
	t.Parallel()
	server := notaryserver.Run(t, notaryserver.Options{})
	faults := faultproxy.Run(t, server.URL, server.CA)
	faults.Set(faultproxy.Fault{Hang: true})
	tr, okRoot := objects()[0].(*v1alpha1.TrustRoot)
	pol, okPolicy := objects()[1].(*v1alpha1.ImagePolicy)
	if !okRoot || !okPolicy {
		t.Fatal("there is no trust root or no policy")
	}
	tr.Spec.Notary.Server, tr.Spec.Notary.CABundle = faults.URL, v1alpha1.PEMBundle(faults.CA.PEM)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "runs"}}
	for i := range 2 * loadsAtOnce {
		pod.Spec.Containers = append(pod.Spec.Containers,
			corev1.Container{Name: fmt.Sprintf("c%d", i), Image: fmt.Sprintf("registry.example.com/acme/app-%d:v1", i)})
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}}
	c := controlplane.Run(t, tr, pol, account, pod)
	decisions := store.New(store.Options{Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO})
	tracker := store.NewTracker(decisions, clock.RealClock{}, func(string) {})
	running := running.Needs{Client: c, Live: c, Store: decisions, Clock: clock.RealClock{}}
	primer := &Primer{Client: c, Store: decisions, Tracker: tracker, Running: running}
	builder := trustroot.Builder{Reader: c, Namespace: "default", Formats: trustFormats()}
	material, err := builder.Gather(t.Context(), tr)
	if err != nil {
		t.Fatal(err)
	}
	decisions.PutRoot(tr.Name, builder.Build(tr, material))
	compiled, err := policy.Compile(pol.Name, &pol.Spec)
	if err != nil {
		t.Fatal(err)
	}
	decisions.PutPolicy(compiled, "1")
	if primer.Ready() == nil {
		t.Error("the primer is ready before it has started")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := primer.Start(ctx); err != nil || ctx.Err() != nil {
		t.Fatal(err, ctx.Err())
	}
	if err := primer.Ready(); err != nil {
		t.Errorf("the primer is not ready: %v", err)
	}
	if len(faults.Requests()) == 0 {
		t.Error("the signing server got no requests")
	}
	if s := tracker.Status("acme"); s.Tracked == 0 || s.Failing > 0 {
		t.Errorf("%d of %d fetches have failed, want none: the primer waited for their end", s.Failing, s.Tracked)
	}
}
