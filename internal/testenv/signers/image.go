package signers

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/countersign-dev/countersign/internal/testenv/distribution"
)

// Image is an image in a registry.
type Image struct {
	// Repository is its repository with the registry's host.
	Repository string
	Tag        string
	Digest     string
	Size       int64
}

// Tagged returns the image by its tag.
func (i Image) Tagged() string { return i.Repository + ":" + i.Tag }

// ByDigest returns the image by its digest.
func (i Image) ByDigest() string { return i.Repository + "@" + i.Digest }

// Push makes an image with random content, and pushes it to a repository of the registry.
func Push(ctx context.Context, registry *distribution.Server, repository, tag string) (Image, error) {
	ref, err := name.NewTag(registry.Host + "/" + repository + ":" + tag)
	if err != nil {
		return Image{}, fmt.Errorf("naming the image to push: %w", err)
	}
	image, err := random.Image(64, 1)
	if err != nil {
		return Image{}, fmt.Errorf("making an image: %w", err)
	}
	if err := remote.Write(ref, image, registry.Options(ctx)...); err != nil {
		return Image{}, fmt.Errorf("pushing %s: %w", ref, err)
	}
	digest, err := image.Digest()
	if err != nil {
		return Image{}, fmt.Errorf("computing the digest of %s: %w", ref, err)
	}
	size, err := image.Size()
	if err != nil {
		return Image{}, fmt.Errorf("computing the size of %s: %w", ref, err)
	}
	return Image{Repository: ref.Repository.Name(), Tag: tag, Digest: digest.String(), Size: size}, nil
}
