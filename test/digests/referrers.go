package digests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

const (
	signatureType = "application/vnd.example.signature"
	maxRole       = 64 // bytes
	maxAtOnce     = 8  // signatures that are fetched side by side
)

// NewRoot returns a Root that reads real registries: it resolves tags, and finds the signatures of
// Sign.
func NewRoot(images *registry.Images, interval time.Duration, now func() time.Time) *bydigest.Root {
	return &bydigest.Root{
		Registry: images, Verifier: verifier{source: referrers{images}}, Interval: interval, Now: now,
	}
}

// referrers finds signatures as referrers of an image. Each has one layer: the name of a role.
type referrers struct{ images *registry.Images }

func (r referrers) signedBy(ctx context.Context, about trust.Subject) ([]string, error) {
	list, err := r.images.Referrers(ctx, about.Pulled, about.Digest, signatureType)
	if err != nil {
		return nil, err
	}
	roles := make([]string, len(list))
	side, ctx := errgroup.WithContext(ctx)
	side.SetLimit(maxAtOnce)
	for i, signature := range list {
		side.Go(func() (err error) {
			roles[i], err = r.role(ctx, about.Pulled, signature.Digest)
			return err
		})
	}
	if err := side.Wait(); err != nil {
		return nil, err
	}
	slices.Sort(roles)
	return slices.Compact(roles), nil
}

// role returns the role of one signature.
func (r referrers) role(ctx context.Context, repository, digest string) (string, error) {
	m, err := r.images.Manifest(ctx, repository, digest, registry.MaxManifest)
	if err != nil {
		return "", missing(err)
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(m.Body, &manifest); err != nil || len(manifest.Layers) != 1 {
		return "", trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: not a signature", digest)
	}
	role, err := r.images.Blob(ctx, repository, manifest.Layers[0].Digest.String(), maxRole)
	if err != nil {
		return "", missing(err)
	}
	return string(role), nil
}

// missing makes the absence of a part of a signature a fault.
func missing(err error) error {
	if errors.Is(err, trust.ErrNotFound) {
		return trust.NewFault(v1alpha1.ReasonMetadataInvalid, "a part of a signature is missing: %w", err)
	}
	return err
}

// Sign pushes a signature of a role on an image that is in a registry, named by its digest.
func Sign(image name.Digest, role string, options ...remote.Option) error {
	subject, err := remote.Head(image, options...)
	if err != nil {
		return fmt.Errorf("reading %s: %w", image, err)
	}
	signature, err := mutate.AppendLayers(
		mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), signatureType),
		static.NewLayer([]byte(role), "application/octet-stream"))
	if err != nil {
		return err
	}
	referrer, ok := mutate.Subject(signature, *subject).(v1.Image)
	if !ok {
		return errors.New("the signature is no image")
	}
	digest, err := referrer.Digest()
	if err != nil {
		return err
	}
	return remote.Write(image.Digest(digest.String()), referrer, options...)
}
