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

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

const (
	signatureType = "application/vnd.example.signature"
	maxRole       = 64 // bytes
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
	var roles []string
	for _, signature := range list {
		m, err := r.images.Manifest(ctx, about.Pulled, signature.Digest)
		if err != nil {
			return nil, missing(err)
		}
		var manifest v1.Manifest
		if err := json.Unmarshal(m.Body, &manifest); err != nil || len(manifest.Layers) != 1 {
			return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: not a signature", signature.Digest)
		}
		role, err := r.images.Blob(ctx, about.Pulled, manifest.Layers[0].Digest.String(), maxRole)
		if err != nil {
			return nil, missing(err)
		}
		roles = append(roles, string(role))
	}
	slices.Sort(roles)
	return slices.Compact(roles), nil
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
