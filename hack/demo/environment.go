package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/registryserver"
)

// namespace is the namespace of the demo's workloads.
const namespace = "shop"

// environment holds the servers that the demo starts.
type environment struct {
	out      io.Writer
	dir      string
	kube     *kubeserver.Server
	notary   *notaryserver.Server
	signer   *notaryserver.Client
	registry *registryserver.Server
	client   client.Client
	manager  *operator.Manager
	images   map[string]registryserver.Image // by tag
	pin      notaryserver.RootPin
}

// start starts every server, dependencies first. After an error the caller must still call stop.
func (e *environment) start(ctx context.Context) (err error) {
	if e.dir, err = os.MkdirTemp("", "countersign-demo-"); err != nil {
		return fmt.Errorf("making a folder for the demo: %w", err)
	}
	fmt.Fprintf(e.out, `Countersign demo: real servers on this machine's loopback interface. Logs are in %s.
The cluster has no nodes: an admitted Pod stays Pending, and no image is pulled or run.

`, e.dir)
	for _, part := range []struct {
		what  string
		start func(context.Context) error
	}{
		{"Starting a TLS registry, and pushing newly made images to it", e.startRegistry},
		{
			"Starting notary-server and notary-signer (Docker Content Trust) with a new CA and new keys",
			e.startNotary,
		},
		{
			"Creating the Notary repository with the delegations targets/ci and targets/qa",
			e.initialise,
		},
		{"Starting etcd, kube-apiserver and Kubernetes' controllers", e.startKube},
		{
			"Building the manager from this checkout, and starting it outside the cluster with the permissions of " +
				"its ServiceAccount", e.startManager,
		},
	} {
		begin := time.Now()
		fmt.Fprintf(e.out, "- %s\n", part.what)
		if err := part.start(ctx); err != nil {
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

func (e *environment) startRegistry(ctx context.Context) (err error) {
	if e.registry, err = registryserver.Start(); err != nil {
		return err
	}
	e.images = make(map[string]registryserver.Image)
	for _, tag := range []string{"v0", "v1", "v2", "v3"} {
		if _, err := e.push(ctx, tag); err != nil {
			return err
		}
	}
	return nil
}

// push makes a new image and pushes it as tag. An existing tag moves to the new image.
func (e *environment) push(ctx context.Context, tag string) (registryserver.Image, error) {
	image, err := e.registry.Push(ctx, "acme/app:"+tag)
	if err == nil {
		e.images[tag] = image
	}
	return image, err
}

func (e *environment) startNotary(ctx context.Context) error {
	dir, err := e.subdir("notary")
	if err != nil {
		return err
	}
	e.notary, err = notaryserver.Start(ctx, notaryserver.Options{Signer: true, Dir: dir, Progress: e.out})
	return err
}

// initialise creates the Notary repository, as its administrator does once.
func (e *environment) initialise(ctx context.Context) (err error) {
	if e.signer, err = e.notary.NewClient(); err != nil {
		return err
	}
	if _, err := e.signer.CreateRepository(ctx, e.repository(), "ci", "qa"); err != nil {
		return err
	}
	e.pin, err = e.signer.Root(e.repository())
	return err
}

func (e *environment) startKube(ctx context.Context) error {
	dir, err := e.subdir("kube")
	if err != nil {
		return err
	}
	e.kube, err = kubeserver.Start(ctx, kubeserver.Options{ControllerManager: true, Dir: dir, Progress: e.out})
	if err != nil {
		return err
	}
	e.client, err = client.New(e.kube.Config, client.Options{})
	return err
}

func (e *environment) startManager(ctx context.Context) error {
	binary, err := operator.Build(ctx, e.dir, false)
	if err != nil {
		return err
	}
	e.manager, err = operator.Start(ctx, e.kube, operator.Options{Binary: binary, Dir: e.dir})
	return err
}

// repository returns the name of the signed repository, which the registry and the Notary server
// share.
func (e *environment) repository() string { return e.registry.Host + "/acme/app" }

const (
	up   = true
	down = false
)

// server stops the Notary server, or starts it again. The server keeps its metadata in memory, so
// server suspends the process and makes its address refuse connections.
func (e *environment) server(up bool) error {
	if up {
		return errors.Join(e.notary.Server().Resume(), e.notary.Reconnect())
	}
	e.notary.Disconnect()
	return e.notary.Server().Pause()
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
	if e.manager != nil {
		err = e.manager.Stop()
	}
	if e.kube != nil {
		err = errors.Join(err, e.kube.Stop())
	}
	if e.notary != nil {
		err = errors.Join(err, e.notary.Stop())
	}
	if e.registry != nil {
		err = errors.Join(err, e.registry.Stop())
	}
	if e.dir != "" && !keepLogs {
		err = errors.Join(err, os.RemoveAll(e.dir))
	}
	return err
}

// explain prints commands to try while the demo keeps running.
func (e *environment) explain() {
	fmt.Fprintf(e.out, `
Everything is still running, and the Notary server is up again. Try in another terminal:

  export KUBECONFIG=%s
  alias kubectl=%s
  kubectl get imagepolicies,trustroots -o wide
  kubectl run again --namespace %s --image %s:v3

To sign as CI and QA with the notary client:

%s

  notary addhash -p %[4]s v3 %[6]d --sha256 %[7]s -r targets/ci -r targets/qa
  notary remove  -p %[4]s v3 -r targets/qa

Metrics (here without credentials; an installation requires a token):

  curl -s %[9]s | grep ^countersign_

The manager's log is %[8]s.
Pods stay Pending, because the cluster has no nodes. Press Ctrl-C here to stop everything.
`, e.kube.Kubeconfig, e.kube.Kubectl, namespace, e.repository(), e.signer.Shell("  "),
		e.images["v3"].Size, e.images["v3"].Hex, e.manager.Log(), e.manager.MetricsURL)
}
