// Package registryserver runs an OCI registry over TLS in the test process.
package registryserver

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// Server is an OCI registry over TLS. It runs in this process and stores images in memory.
type Server struct {
	// Host is its host and port, the first part of an image name.
	Host string
	// CA issued its certificate.
	CA *tlstest.CA

	server *httptest.Server
}

// Start runs a registry on a free loopback port with a new certificate.
func Start() (*Server, error) {
	ca, err := tlstest.NewCA("Registry test CA")
	if err != nil {
		return nil, err
	}
	cert, err := ca.Issue(pkix.Name{CommonName: "registry"})
	if err != nil {
		return nil, err
	}
	server := httptest.NewUnstartedServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)),
		registry.WithReferrersSupport(true)))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
	server.StartTLS()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		server.Close()
		return nil, err
	}
	return &Server{Host: net.JoinHostPort("localhost", port), CA: ca, server: server}, nil
}

// Run runs a registry until the test ends.
func Run(t testing.TB) *Server {
	t.Helper()
	r, err := Start()
	if err != nil {
		t.Fatalf("starting the registry: %v", err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Errorf("stopping the registry: %v", err)
		}
	})
	return r
}

// Stop ends the registry.
func (r *Server) Stop() error {
	r.server.Close()
	return nil
}

// Options returns what go-containerregistry needs to push to the registry.
func (r *Server) Options(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.CA.Pool()}}),
	}
}

// Image is an image in the registry.
type Image struct {
	// Repository is the image's name with the registry's host and without the tag.
	Repository string
	Tag        string
	// Digest is "sha256:" and the hash of the manifest, Hex the hash alone, and Size the manifest's
	// length in bytes. A Notary client signs hash and size.
	Digest, Hex string
	Size        int64
}

// Reference returns the name of the image with its tag.
func (i Image) Reference() string { return i.Repository + ":" + i.Tag }

// Push makes an image with random content, and pushes it with a path and tag such as "acme/app:v1".
func (r *Server) Push(ctx context.Context, pathAndTag string) (Image, error) {
	ref, err := name.NewTag(r.Host+"/"+pathAndTag, name.StrictValidation)
	if err != nil {
		return Image{}, fmt.Errorf("naming the image to push: %w", err)
	}
	img, err := random.Image(256, 1)
	if err != nil {
		return Image{}, fmt.Errorf("making an image: %w", err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.CA.Pool()}}
	defer transport.CloseIdleConnections()
	if err := remote.Write(ref, img, remote.WithContext(ctx), remote.WithTransport(transport)); err != nil {
		return Image{}, fmt.Errorf("pushing %s: %w", ref, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return Image{}, fmt.Errorf("computing the digest of %s: %w", ref, err)
	}
	size, err := img.Size()
	if err != nil {
		return Image{}, fmt.Errorf("computing the size of %s: %w", ref, err)
	}
	return Image{
		Repository: strings.TrimSuffix(ref.String(), ":"+ref.TagStr()), Tag: ref.TagStr(),
		Digest: digest.String(), Hex: digest.Hex, Size: size,
	}, nil
}
