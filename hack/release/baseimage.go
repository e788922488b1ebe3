package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user is the user of the manager, unless the cluster sets another.
const user = "65532"

// baseIndex returns the base image for each platform. It has root certificates, the name of the
// user and licenses, and nothing else: no shell, and no packages whose vulnerabilities would need
// tracking. It is reproducible to the byte.
func baseIndex(created time.Time, platforms []v1.Platform, licenses []packed) (v1.ImageIndex, error) {
	content, err := baseContent(created, licenses)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("packing the base image: %w", err)
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range platforms {
		image, err := baseImage(layer, created, platform)
		if err != nil {
			return nil, fmt.Errorf("making the base image for %s: %w", platform, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &platform},
		})
	}
	return index, nil
}

func baseImage(layer v1.Layer, created time.Time, platform v1.Platform) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.Append(image, mutate.Addendum{
		Layer:     layer,
		MediaType: types.OCILayer,
		History: v1.History{
			Created: v1.Time{Time: created}, Comment: "root certificates, the user nonroot and licenses",
		},
	})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = platform.OS, platform.Architecture, platform.Variant
	config.Created = v1.Time{Time: created}
	config.Config.User = user
	config.Config.WorkingDir = "/"
	return mutate.ConfigFile(image, config)
}

// baseContent returns the single layer of the base image as a tar. USTAR splits names of more than
// 100 bytes at a slash.
func baseContent(created time.Time, licenses []packed) ([]byte, error) {
	var content bytes.Buffer
	w := tar.NewWriter(&content)
	files := []packed{
		{name: "etc/"},
		{"etc/group", []byte("root:x:0:\nnonroot:x:" + user + ":\n")},
		{
			"etc/passwd",
			[]byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:" + user + ":" + user + ":nonroot:/:/sbin/nologin\n"),
		},
		{name: "etc/ssl/"},
		{name: "etc/ssl/certs/"},
		{"etc/ssl/certs/ca-certificates.crt", rootCertificates()},
	}
	for _, f := range append(files, licenses...) {
		header := &tar.Header{
			Name: f.name, Typeflag: tar.TypeReg, Mode: 0o444, Size: int64(len(f.text)), ModTime: created,
			Format: tar.FormatUSTAR,
		}
		if f.text == nil {
			header.Typeflag, header.Mode = tar.TypeDir, 0o555
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("packing %s: %w", f.name, err)
		}
		if _, err := w.Write(f.text); err != nil {
			return nil, fmt.Errorf("packing %s: %w", f.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("packing the base image: %w", err)
	}
	return content.Bytes(), nil
}

// rootCertificates returns Mozilla's roots as PEM. It omits roots that are trusted only for
// certificates issued before a date, because a PEM file cannot express that.
func rootCertificates() []byte {
	var text bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}))
		}
	}
	return text.Bytes()
}
