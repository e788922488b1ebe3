package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
)

// namespace is the namespace of the demo's workloads.
const namespace = "shop"

// environment is what every story runs in: a control plane and the manager. A story adds its own
// servers.
type environment struct {
	out     io.Writer
	dir     string
	kube    *kubeserver.Server
	client  client.Client
	binary  string // of the manager
	manager *operator.Manager
	stops   []func() error // of the servers, in the order of their start
}

// server is something that start starts. what says so to the reader.
type server struct {
	what  string
	start func(context.Context) error
}

// start starts servers in order, and then the control plane and the manager. After an error the
// caller must still call stop.
func (e *environment) start(ctx context.Context, servers ...server) (err error) {
	if e.dir, err = os.MkdirTemp("", "countersign-demo-"); err != nil {
		return fmt.Errorf("making a folder for the demo: %w", err)
	}
	fmt.Fprintf(e.out, `Countersign demo: real servers on this machine's loopback interface. Logs are in %s.
The cluster has no nodes: an admitted Pod stays Pending, and no image is pulled or run.

`, e.dir)
	for _, s := range slices.Concat(servers, []server{
		{"Starting etcd, kube-apiserver and Kubernetes' controllers", e.startKube},
		{
			"Building the manager from this checkout, and starting it outside the cluster with the permissions of " +
				"its ServiceAccount", e.startManager,
		},
	}) {
		begin := time.Now()
		fmt.Fprintf(e.out, "- %s\n", s.what)
		if err := s.start(ctx); err != nil {
			return err
		}
		fmt.Fprintf(e.out, "  done after %s\n", time.Since(begin).Round(100*time.Millisecond))
	}
	return nil
}

func (e *environment) subdir(name string) (string, error) {
	dir := filepath.Join(e.dir, name)
	return dir, os.MkdirAll(dir, 0o755)
}

// stopLater makes stop call f, before what was given to stopLater earlier.
func (e *environment) stopLater(f func() error) { e.stops = append(e.stops, f) }

func (e *environment) startKube(ctx context.Context) error {
	dir, err := e.subdir("kube")
	if err != nil {
		return err
	}
	e.kube, err = kubeserver.Start(ctx, kubeserver.Options{ControllerManager: true, Dir: dir, Progress: e.out})
	if err != nil {
		return err
	}
	e.stopLater(e.kube.Stop)
	e.client, err = client.New(e.kube.Config, client.Options{})
	return err
}

func (e *environment) startManager(ctx context.Context) (err error) {
	if e.binary, err = operator.Build(ctx, e.dir, false); err != nil {
		return err
	}
	return e.runManager(ctx)
}

// runManager runs the manager that startManager has built.
func (e *environment) runManager(ctx context.Context) error {
	manager, err := operator.Start(ctx, e.kube, operator.Options{Binary: e.binary, Dir: e.dir})
	if err != nil {
		return err
	}
	e.manager = manager
	e.stopLater(manager.Stop)
	return nil
}

// tail returns the end of the manager's log.
func (e *environment) tail() string {
	if e.manager == nil {
		return "The manager did not run."
	}
	return e.manager.Tail()
}

// stop stops all servers in reverse order. It removes the demo's folder unless keepLogs is set.
func (e *environment) stop(keepLogs bool) error {
	var err error
	for _, stop := range slices.Backward(e.stops) {
		err = errors.Join(err, stop())
	}
	if e.dir != "" && !keepLogs {
		err = errors.Join(err, os.RemoveAll(e.dir))
	}
	return err
}

// explain prints commands to try while the demo keeps running: those for an image, and then how to
// sign.
func (e *environment) explain(image, signing string) {
	fmt.Fprintf(e.out, `
Everything is still running. Try in another terminal:

  export KUBECONFIG=%s
  alias kubectl=%s
  kubectl get imagepolicies,trustroots -o wide
  kubectl run again --namespace %s --image %s

%s
Metrics (here without credentials; an installation requires a token):

  curl -s %s | grep ^countersign_

The manager's log is %s.
Pods stay Pending, because the cluster has no nodes. Press Ctrl-C here to stop everything.
`, e.kube.Kubeconfig, e.kube.Kubectl, namespace, image, signing, e.manager.MetricsURL, e.manager.Log())
}
