//go:build node && linux

package node

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/countersign-dev/countersign/internal/testenv/registryserver"
)

// localRegistry is a registry without TLS, which containerd accepts on localhost. It runs in this
// process and stores images in memory.
type localRegistry struct {
	port   int
	server *http.Server
	pushed int
}

// startRegistry starts a registry on a loopback port. Port 0 means a free port.
func startRegistry(port int) (*localRegistry, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("listening for the registry: %w", err)
	}
	quiet := log.New(io.Discard, "", 0)
	r := &localRegistry{
		port:   l.Addr().(*net.TCPAddr).Port,
		server: &http.Server{Handler: registry.New(registry.Logger(quiet)), ErrorLog: quiet},
	}
	go func() { _ = r.server.Serve(l) }()
	return r, nil
}

// host returns the host and port with which the names of its images begin.
func (r *localRegistry) host() string { return fmt.Sprintf("localhost:%d", r.port) }

func (r *localRegistry) stop() { _ = r.server.Close() }

func arch() string { return runtime.GOARCH }

// workload makes an image with one static program, and a text that makes its digest unique.
func workload(program, text string) (v1.Image, error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	for path, body := range map[string][]byte{"sleep": content, "text": []byte(text)} {
		if err := archive.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(body))}); err != nil {
			return nil, err
		}
		if _, err := archive.Write(body); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1),
		static.NewLayer(layer.Bytes(), types.OCIUncompressedLayer))
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch()
	config.Config.Entrypoint, config.Config.User = []string{"/sleep"}, "65532"
	return mutate.ConfigFile(image, config)
}

// push pushes a new image with a path and tag. It may replace another image.
func (r *localRegistry) push(ctx context.Context, program, pathAndTag string) (registryserver.Image, error) {
	ref, err := name.NewTag(r.host() + "/" + pathAndTag)
	if err != nil {
		return registryserver.Image{}, err
	}
	r.pushed++
	image, err := workload(program, fmt.Sprintf("%s %d\n", pathAndTag, r.pushed))
	if err != nil {
		return registryserver.Image{}, fmt.Errorf("making %s: %w", ref, err)
	}
	if err := remote.Write(ref, image, remote.WithContext(ctx)); err != nil {
		return registryserver.Image{}, fmt.Errorf("pushing %s: %w", ref, err)
	}
	return described(ref, image)
}

// described returns the name, digest and size of an image, which a Notary client signs.
func described(ref name.Tag, image v1.Image) (registryserver.Image, error) {
	digest, err := image.Digest()
	if err != nil {
		return registryserver.Image{}, err
	}
	size, err := image.Size()
	return registryserver.Image{
		Repository: ref.Context().Name(), Tag: ref.TagStr(), Digest: digest.String(), Hex: digest.Hex, Size: size,
	}, err
}

// restore pushes every image of a folder to a repository, by digest.
func (r *localRegistry) restore(ctx context.Context, dir, repository string) (map[string]registryserver.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the built images: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	restored := make(map[string]registryserver.Image)
	for _, m := range manifest.Manifests {
		ref, err := name.NewDigest(repository + "@" + m.Digest.String())
		if err != nil {
			return nil, err
		}
		if m.MediaType.IsIndex() {
			child, err := index.ImageIndex(m.Digest)
			if err != nil {
				return nil, err
			}
			if err := remote.WriteIndex(ref, child, remote.WithContext(ctx)); err != nil {
				return nil, fmt.Errorf("pushing %s: %w", ref, err)
			}
		} else {
			child, err := index.Image(m.Digest)
			if err != nil {
				return nil, err
			}
			if err := remote.Write(ref, child, remote.WithContext(ctx)); err != nil {
				return nil, fmt.Errorf("pushing %s: %w", ref, err)
			}
		}
		restored[ref.String()] = registryserver.Image{
			Repository: repository, Digest: m.Digest.String(), Hex: m.Digest.Hex, Size: m.Size,
		}
	}
	return restored, nil
}
