package notarysign

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/countersign-dev/countersign/internal/registry"
)

// Resolve fetches the digest of a tag and the size of its manifest or index from the registry, with
// Docker's credentials. If a digest is given, Resolve fetches that one. The warning says that the
// tag has another digest there.
func Resolve(ctx context.Context, repository, tag, digest string) (image Image, warning string, err error) {
	repo, err := name.NewRepository(repository)
	if err != nil {
		return Image{}, "", fmt.Errorf("%q is not a repository: %w", repository, err)
	}
	options := []remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithTransport(registry.LimitTransport(remote.DefaultTransport)),
	}
	if digest == "" {
		d, err := remote.Get(repo.Tag(tag), options...)
		if err != nil {
			return Image{}, "", fmt.Errorf("fetching the digest of %s: %w", repo.Tag(tag), advise(err))
		}
		return Image{Tag: tag, Digest: d.Digest.String(), Size: int64(len(d.Manifest))}, "", nil
	}
	if _, err := v1.NewHash(digest); err != nil {
		return Image{}, "", fmt.Errorf("--digest: %q is not a digest: sha256: and 64 hexadecimal digits", digest)
	}
	d, err := remote.Get(repo.Digest(digest), options...)
	if err != nil {
		return Image{}, "", fmt.Errorf("fetching the manifest %s of %s: %w", digest, repo, advise(err))
	}
	tagged, err := remote.Head(repo.Tag(tag), options...)
	switch {
	case err == nil && tagged.Digest != d.Digest:
		warning = fmt.Sprintf("the tag %s has the digest %s in the registry; who pulls the tag gets that one", tag,
			tagged.Digest)
	case err != nil:
		warning = fmt.Sprintf("the registry has no tag %s yet", tag)
	}
	return Image{Tag: tag, Digest: digest, Size: int64(len(d.Manifest))}, warning, nil
}

// advise adds to an error of a registry what to do.
func advise(err error) error {
	if e, ok := errors.AsType[*transport.Error](err); ok {
		switch e.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return fmt.Errorf("%w; log in with 'docker login'", err)
		case http.StatusNotFound:
			return fmt.Errorf("%w; push the image first", err)
		}
	}
	return err
}
