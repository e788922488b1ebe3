package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/testenv/registryserver"
)

// dct is the story of Docker Content Trust.
type dct struct {
	*demo
	notary   *notaryserver.Server
	signer   *notaryserver.Client
	registry *registryserver.Server
	images   map[string]registryserver.Image // by tag
	pin      notaryserver.RootPin
}

func (d *dct) servers() []server {
	return []server{
		{"Starting a TLS registry, and pushing newly made images to it", d.startRegistry},
		{
			"Starting notary-server and notary-signer (Docker Content Trust) with a new CA and new keys",
			d.startNotary,
		},
		{
			"Creating the Notary repository with the delegations targets/ci and targets/qa",
			d.initialise,
		},
	}
}

func (d *dct) startRegistry(ctx context.Context) (err error) {
	if d.registry, err = registryserver.Start(); err != nil {
		return err
	}
	d.stopLater(d.registry.Stop)
	d.images = make(map[string]registryserver.Image)
	for _, tag := range []string{"v0", "v1", "v2", "v3"} {
		if _, err := d.push(ctx, tag); err != nil {
			return err
		}
	}
	return nil
}

// push makes a new image and pushes it as tag. An existing tag moves to the new image.
func (d *dct) push(ctx context.Context, tag string) (registryserver.Image, error) {
	image, err := d.registry.Push(ctx, "acme/app:"+tag)
	if err == nil {
		d.images[tag] = image
	}
	return image, err
}

func (d *dct) startNotary(ctx context.Context) error {
	dir, err := d.subdir("notary")
	if err != nil {
		return err
	}
	d.notary, err = notaryserver.Start(ctx, notaryserver.Options{Signer: true, Dir: dir, Progress: d.out})
	if err != nil {
		return err
	}
	d.stopLater(d.notary.Stop)
	return nil
}

// initialise creates the Notary repository, as its administrator does once.
func (d *dct) initialise(ctx context.Context) (err error) {
	if d.signer, err = d.notary.NewClient(); err != nil {
		return err
	}
	if _, err := d.signer.CreateRepository(ctx, d.repository(), "ci", "qa"); err != nil {
		return err
	}
	d.pin, err = d.signer.Root(d.repository())
	return err
}

// repository returns the name of the signed repository, which the registry and the Notary server
// share.
func (d *dct) repository() string { return d.registry.Host + "/acme/app" }

const (
	up   = true
	down = false
)

// server stops the Notary server, or starts it again. The server keeps its metadata in memory, so
// server suspends the process and makes its address refuse connections.
func (d *dct) server(up bool) error {
	if up {
		return errors.Join(d.notary.Server().Resume(), d.notary.Reconnect())
	}
	d.notary.Disconnect()
	return d.notary.Server().Pause()
}

// keep starts the Notary server again, and prints how to sign.
func (d *dct) keep(context.Context) error {
	if err := d.server(up); err != nil {
		return err
	}
	d.explain(d.tag("v3"), fmt.Sprintf(`The Notary server is up again. To sign as CI and QA with the notary client:

%s

  notary addhash -p %[2]s v3 %[3]d --sha256 %[4]s -r targets/ci -r targets/qa
  notary remove  -p %[2]s v3 -r targets/qa
`, d.signer.Shell("  "), d.repository(), d.images["v3"].Size, d.images["v3"].Hex))
	return nil
}
