package main

import (
	"context"

	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/signers"
)

// images is a registry with images of acme/app.
type images struct {
	registry *distribution.Server
	tags     map[string]signers.Image
}

// start starts the registry, and pushes an image for each tag.
func (i *images) start(ctx context.Context, d *demo, tags ...string) (err error) {
	if i.registry, err = distribution.Start(ctx, distribution.Options{Progress: d.out}); err != nil {
		return err
	}
	d.stopLater(i.registry.Stop)
	i.tags = make(map[string]signers.Image)
	for _, tag := range tags {
		if i.tags[tag], err = signers.Push(ctx, i.registry, "acme/app", tag); err != nil {
			return err
		}
	}
	return nil
}

// denied runs a Pod with an image by its tag, and returns an error unless it is denied with all of
// words.
func (i *images) denied(ctx context.Context, d *demo, pod, tag string, words ...string) error {
	return d.runPod(ctx, pod, i.tags[tag].Tagged()).denied(words...)
}

// pinned runs a Pod with an image by its tag, and returns an error unless it is admitted, pinned to
// its digest.
func (i *images) pinned(ctx context.Context, d *demo, pod, tag string) error {
	image := i.tags[tag]
	if err := d.runPod(ctx, pod, image.Tagged()).succeeds("pod/" + pod + " created"); err != nil {
		return err
	}
	return d.kubectl(ctx, "get", "pod", pod, "-n", namespace, "-o", `jsonpath={.spec.containers[0].image}{"\n"}`).
		succeeds(image.Tagged() + "@" + image.Digest)
}
