// Package controlplane runs reconcilers in a test, against a real API server that has the CRDs of
// the project. It is for tests of controllers alone; internal/testenv/operator runs the built
// manager.
package controlplane

import (
	"context"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/countersign-dev/countersign/internal/cluster"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
)

// Plane is an API server and a client of it. The client knows the kinds of Kubernetes and of the
// project.
type Plane struct {
	client.WithWatch
	Kube *kubeserver.Server
}

// Run starts an API server with the given objects, and stops it at the end of the test. It discards
// the log of the program.
func Run(t testing.TB, objects ...client.Object) *Plane {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	kube := kubeserver.Run(t, kubeserver.Options{})
	scheme, err := cluster.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.NewWithWatch(kube.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	p := &Plane{WithWatch: c, Kube: kube}
	for _, o := range objects {
		p.Make(t, o)
	}
	return p
}

// Make creates an object.
func (p *Plane) Make(t testing.TB, o client.Object) {
	t.Helper()
	if err := p.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// NewManager returns a manager of the API server, without metrics. connect says how; nil:
// as Kube does. Several tests of a program may have controllers of the same name.
func (p *Plane) NewManager(t testing.TB, connect *rest.Config, o ctrl.Options) ctrl.Manager {
	t.Helper()
	if connect == nil {
		connect = p.Kube.Config
	}
	o.Scheme, o.Metrics = p.Scheme(), metricsserver.Options{BindAddress: "0"}
	o.Controller = config.Controller{SkipNameValidation: new(true)}
	mgr, err := ctrl.NewManager(connect, o)
	if err != nil {
		t.Fatal(err)
	}
	return mgr
}

// Start runs a manager until stop is called, at the latest at the end of the test. stop returns the
// error of the manager.
func Start(t testing.TB, mgr ctrl.Manager) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() }) // a test that wants no error calls stop itself
	return stop
}

// HoldLease makes another process the leader for an hour. A manager leads once the lease is
// deleted.
func (p *Plane) HoldLease(t testing.TB, namespace, name string) *coordinationv1.Lease {
	t.Helper()
	now := metav1.NowMicro()
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new("another"), LeaseDurationSeconds: new(int32(3600)), AcquireTime: &now, RenewTime: &now,
		},
	}
	p.Make(t, lease)
	return lease
}
