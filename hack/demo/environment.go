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

const namespace = "shop" // where workloads run

// An environment is everything that the demo starts.
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

// start brings everything up, in the order in which it depends on each other. What runs when it
// fails is for stop.
func (e *environment) start(ctx context.Context) (err error) {
	if e.dir, err = os.MkdirTemp("", "countersign-demo-"); err != nil {
		return fmt.Errorf("making a folder for the demo: %w", err)
	}
	fmt.Fprintf(e.out, `Countersign demo: real servers on this machine's loopback interface. Logs are in %s.
There is no node: a Pod that is admitted stays Pending, and no image is pulled or run.

`, e.dir)
	for _, part := range []struct {
		what  string
		start func(context.Context) error
	}{
		{"Starting a TLS registry, and pushing images made on the spot", e.startRegistry},
		{
			"Starting notary-server with notary-signer: Docker Content Trust, with a fresh CA and fresh keys",
			e.startNotary,
		},
		{
			"Creating the repository of trust with the delegations targets/ci and targets/qa, with the notary client",
			e.initialise,
		},
		{"Starting etcd, kube-apiserver and Kubernetes' controllers", e.startKube},
		{
			"Building the manager from this checkout, and starting it out of cluster with the rights of its " +
				"ServiceAccount", e.startManager,
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

// push makes a new image and pushes it under a tag, which may have named another before.
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

// initialise does what an administrator of the repository does once.
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

// repository is the name of the signed repository, in the registry and on the Notary server alike.
func (e *environment) repository() string { return e.registry.Host + "/acme/app" }

const (
	up   = true
	down = false
)

// server stops the Notary server in a way that can be undone, since it keeps what was published in
// memory: its process is suspended, and its address refuses connections.
func (e *environment) server(up bool) error {
	if up {
		return errors.Join(e.notary.Server().Resume(), e.notary.Reconnect())
	}
	e.notary.Disconnect()
	return e.notary.Server().Pause()
}

// tail is the end of the manager's log, where it runs.
func (e *environment) tail() string {
	if e.manager == nil {
		return "The manager did not run."
	}
	return e.manager.Tail()
}

// stop ends everything, in reverse order, and removes what was written unless the logs are wanted.
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

// explain says how to go on by hand.
func (e *environment) explain() {
	fmt.Fprintf(e.out, `
Everything is still running, the Notary server too. In another terminal:

  export KUBECONFIG=%s
  alias kubectl=%s
  kubectl get imagepolicies,trustroots -o wide
  kubectl run again --namespace %s --image %s:v3

The notary client signs as CI and QA with:

%s

  notary addhash -p %[4]s v3 %[6]d --sha256 %[7]s -r targets/ci -r targets/qa
  notary remove  -p %[4]s v3 -r targets/qa

Metrics are served without credentials here; an installation asks for a token:

  curl -s %[9]s | grep ^countersign_

Pods stay Pending: no node is there to run them. The manager's log is %[8]s.
Press Ctrl-C here to stop everything.
`, e.kube.Kubeconfig, e.kube.Kubectl, namespace, e.repository(), e.signer.Shell("  "),
		e.images["v3"].Size, e.images["v3"].Hex, e.manager.Log(), e.manager.MetricsURL)
}
