package registryserver

import (
	"crypto/tls"
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func TestRegistry(t *testing.T) {
	ctx := t.Context()
	r := Run(t)
	image, err := r.Push(ctx, "acme/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(image.Reference())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.CA.Pool()}}
	defer transport.CloseIdleConnections()
	got, err := remote.Head(ref, remote.WithContext(ctx), remote.WithTransport(transport))
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest.String() != image.Digest || got.Size != image.Size || image.Digest != "sha256:"+image.Hex {
		t.Errorf("got a manifest %s of %d bytes, want the pushed %+v", got.Digest, got.Size, image)
	}
}
