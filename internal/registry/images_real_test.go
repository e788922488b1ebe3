package registry

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/registryserver"
	"github.com/countersign-dev/countersign/internal/trust"
)

// pushed is an image, and a signature that refers to it.
type pushed struct {
	repository, digest, manifest string
	layer                        string // the digest of the signature's one layer
	payload                      []byte
}

const signatureType = "application/vnd.example.signature"

// push pushes an image as acme/app:v1, and a manifest with one layer that refers to it.
func push(t *testing.T, host string, options ...remote.Option) pushed {
	t.Helper()
	ref, err := name.NewTag(host + "/acme/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Index(256, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, image, options...); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := image.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	p := pushed{repository: ref.Repository.Name(), digest: digest.String(), manifest: string(raw)}
	p.payload = []byte(`{"critical":{}}`)
	layer := static.NewLayer(p.payload, "application/octet-stream")
	sum, err := layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	p.layer = sum.String()
	signature, err := mutate.AppendLayers(
		mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1),
			signatureType), layer)
	if err != nil {
		t.Fatal(err)
	}
	subject := v1.Descriptor{MediaType: types.OCIImageIndex, Digest: digest, Size: int64(len(raw))}
	if subject.MediaType, err = image.MediaType(); err != nil {
		t.Fatal(err)
	}
	referrer, ok := mutate.Subject(signature, subject).(v1.Image)
	if !ok {
		t.Fatal("the signature is no image")
	}
	named, err := referrer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref.Digest(named.String()), referrer, options...); err != nil {
		t.Fatal(err)
	}
	return p
}

// read checks everything that a reader of the image needs.
func (p pushed) read(t *testing.T, images *Images) {
	t.Helper()
	ctx := t.Context()
	if got, err := images.Resolve(ctx, p.repository, "v1"); err != nil || got != p.digest {
		t.Errorf("Resolve: got %s, %v, want %s", got, err, p.digest)
	}
	if _, err := images.Resolve(ctx, p.repository, "v2"); !errors.Is(err, trust.ErrNotFound) {
		t.Errorf("Resolve of an unknown tag: got %v, want ErrNotFound", err)
	}
	if m, err := images.Manifest(ctx, p.repository, p.digest, MaxManifest); err != nil ||
		string(m.Body) != p.manifest ||
		m.Digest != p.digest || !strings.Contains(m.MediaType, "index") {
		t.Errorf("Manifest: got %s %s %q, %v", m.MediaType, m.Digest, m.Body, err)
	}
	list, err := images.Referrers(ctx, p.repository, p.digest, signatureType)
	if err != nil || len(list) != 1 {
		t.Fatalf("Referrers: got %v, %v, want one", list, err)
	}
	m, err := images.Manifest(ctx, p.repository, list[0].Digest, MaxManifest)
	if err != nil || !strings.Contains(string(m.Body), p.layer) {
		t.Errorf("Manifest of the signature: got %q, %v, want one with %s", m.Body, err, p.layer)
	}
	if got, err := images.Referrers(ctx, p.repository, list[0].Digest, ""); err != nil || len(got) != 0 {
		t.Errorf("Referrers of the signature: got %v, %v, want none", got, err)
	}
	if body, err := images.Blob(ctx, p.repository, p.layer, 1<<10); err != nil || !bytes.Equal(body, p.payload) {
		t.Errorf("Blob: got %q, %v, want %q", body, err, p.payload)
	}
	_, err = images.Blob(ctx, p.repository, p.layer, 3)
	wantFault(t, err, v1alpha1.ReasonTooLarge)
	_, err = images.Blob(ctx, p.repository, "sha256:"+strings.Repeat("0", 64), 1<<10)
	if !errors.Is(err, trust.ErrNotFound) {
		t.Errorf("Blob that is not there: got %v, want ErrNotFound", err)
	}
	if err := images.Probe(ctx, strings.SplitN(p.repository, "/", 2)[0]); err != nil {
		t.Errorf("Probe: %v", err)
	}
}

func newImages(t *testing.T, registries map[string]Config) *Images {
	t.Helper()
	images, err := NewImages(ImagesConfig{Registries: registries})
	if err != nil {
		t.Fatal(err)
	}
	return images
}

// TestImages reads real registries: one with the tag schema of referrers, and one with their API.
func TestImages(t *testing.T) {
	t.Run("tag schema", func(t *testing.T) {
		server := distribution.Run(t, distribution.Options{})
		p := push(t, server.Host, server.Options(t.Context())...)
		p.read(t, newImages(t, map[string]Config{server.Host: {CABundle: string(server.CA.PEM)}}))
	})
	t.Run("password", func(t *testing.T) {
		server := distribution.Run(t, distribution.Options{Username: "reader", Password: password})
		p := push(t, server.Host, server.Options(t.Context())...)
		p.read(t, newImages(t, map[string]Config{server.Host: {
			CABundle: string(server.CA.PEM), Username: "reader", Password: password,
		}}))
		_, err := newImages(t, map[string]Config{server.Host: {CABundle: string(server.CA.PEM)}}).
			Resolve(t.Context(), p.repository, "v1")
		wantFault(t, err, v1alpha1.ReasonUnauthorized, server.Host)
	})
	t.Run("token", func(t *testing.T) {
		server := distribution.Run(t, distribution.Options{Username: "reader", Password: password, Token: true})
		p := push(t, server.Host, server.Options(t.Context())...)
		cfg := Config{
			CABundle: string(server.CA.PEM), Username: "reader", Password: password,
			TokenServices: []string{server.Tokens.Host},
		}
		p.read(t, newImages(t, map[string]Config{server.Host: cfg}))
		cfg.Password = "wrong"
		_, err := newImages(t, map[string]Config{server.Host: cfg}).Resolve(t.Context(), p.repository, "v1")
		wantFault(t, err, v1alpha1.ReasonUnauthorized, server.Tokens.Host)
	})
	t.Run("storage host", func(t *testing.T) {
		server := distribution.Run(t, distribution.Options{Username: "reader", Password: password, Storage: true})
		p := push(t, server.Host, server.Options(t.Context())...)
		p.read(t, newImages(t, map[string]Config{
			server.Host:    {CABundle: string(server.CA.PEM), Username: "reader", Password: password},
			server.Storage: {CABundle: string(server.StorageCA.PEM)},
		}))
		if got := server.Fetched(); len(got) == 0 || strings.Join(got, "") != "" {
			t.Errorf("the storage host got Authorization headers %q, want empty ones", got)
		}
		_, err := newImages(t, map[string]Config{server.Host: {
			CABundle: string(server.CA.PEM), Username: "reader", Password: password,
		}}).Blob(t.Context(), p.repository, p.layer, 1<<10)
		wantFault(t, err, v1alpha1.ReasonTLSNotTrusted, server.Storage)
	})
	t.Run("referrers API", func(t *testing.T) {
		server := registryserver.Run(t)
		p := push(t, server.Host, server.Options(t.Context())...)
		p.read(t, newImages(t, map[string]Config{server.Host: {CABundle: string(server.CA.PEM)}}))
	})
}
