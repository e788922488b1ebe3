package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// startRegistry returns the host of a registry on a free loopback port.
func startRegistry(t *testing.T) string {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// keepEnvironment restores the variables that settleEnvironment changes after the test.
func keepEnvironment(t *testing.T) {
	for _, name := range []string{
		"GOOS", "GOARCH", "GOARM", "GOFLAGS", "GOEXPERIMENT", "GOAMD64", "GOARM64", "CGO_ENABLED", "GOWORK",
		"GIT_CONFIG_COUNT", "SOURCE_DATE_EPOCH",
	} {
		value, was := os.LookupEnv(name)
		t.Setenv(name, value)
		if !was {
			os.Unsetenv(name)
		}
	}
}

func TestImage(t *testing.T) {
	keepEnvironment(t)
	repository := startRegistry(t) + "/countersign/countersign"
	dist := t.TempDir()
	options := imageOptions{
		program: manager(), root: filepath.Join("..", ".."), repository: repository,
		platforms: []string{"linux/amd64", "linux/arm64"},
		version:   "v1.2.3", dist: dist,
	}
	reference, err := buildImage(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := name.NewDigest(reference)
	if err != nil {
		t.Fatalf("got no reference with a digest: %v", err)
	}
	index, err := remote.Index(digest)
	if err != nil {
		t.Fatal(err)
	}
	images := imagesOf(t, index)
	if got, want := slices.Sorted(maps.Keys(images)), []string{"linux/amd64", "linux/arm64"}; !cmp.Equal(got, want) {
		t.Errorf("got platforms %v, want %v", got, want)
	}
	for platform, image := range images {
		t.Run(platform, func(t *testing.T) {
			checkConfig(t, image, platform)
			checkContent(t, image)
			checkSBOM(t, digest, image,
				filepath.Join(dist, "countersign-"+strings.ReplaceAll(platform, "/", "-")+".spdx.json"))
		})
	}
	tagged, err := remote.Head(digest.Tag("v1.2.3"))
	if err != nil {
		t.Fatal(err)
	}
	if got := tagged.Digest.String(); got != digest.DigestStr() {
		t.Errorf("got %s under the tag v1.2.3, want %s", got, digest.DigestStr())
	}
	t.Run("version", func(t *testing.T) { checkVersion(t, images["linux/"+runtime.GOARCH], "v1.2.3") })
}

// A commit gives the same image, to the byte, for every folder, time zone and registry.
func TestReproducible(t *testing.T) {
	keepEnvironment(t)
	platform := "linux/" + runtime.GOARCH
	build := func(zone string) (digest, sbom string) {
		t.Helper()
		root, dist, host := filepath.Join(t.TempDir(), zone), t.TempDir(), startRegistry(t)
		runIn(t, ".", "git", "clone", "--quiet", "--shared", "--no-tags", filepath.Join("..", ".."), root)
		runIn(t, root, "git", "tag", "v1.2.3")
		reference, err := buildImage(t.Context(),
			imageOptions{
				program: manager(), root: root, repository: host + "/" + strings.ToLower(zone),
				platforms: []string{platform}, dist: dist,
			})
		if err != nil {
			t.Fatal(err)
		}
		ref, err := name.NewDigest(reference)
		if err != nil {
			t.Fatal(err)
		}
		image, err := remote.Image(ref)
		if err != nil {
			t.Fatal(err)
		}
		checkVersion(t, image, "v1.2.3") // from the tag
		text, err := os.ReadFile(filepath.Join(dist, "countersign-linux-"+runtime.GOARCH+".spdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		return ref.DigestStr(), string(text)
	}
	digest, sbom := build("here")
	zone := time.Local
	t.Cleanup(func() { time.Local = zone })
	time.Local = time.FixedZone("there", 9*60*60)
	t.Setenv("GOFLAGS", "-tags=other")
	again, sbomAgain := build("there")
	if digest != again {
		t.Errorf("got digests %s and %s of two builds, want the same", digest, again)
	}
	if diff := cmp.Diff(sbom, sbomAgain); diff != "" {
		t.Errorf("got different SBOMs of two builds: %s", diff)
	}
}

// Sources without git history build too. Their image has the version devel and no commit.
func TestImageOutsideOfGit(t *testing.T) {
	keepEnvironment(t)
	root := t.TempDir()
	runIn(t, filepath.Join("..", ".."), "sh", "-c", `git archive HEAD | tar -x -C "$1"`, "sh", root)
	reference, err := buildImage(t.Context(), imageOptions{
		program: manager(), root: root, repository: startRegistry(t) + "/countersign",
		platforms: []string{"linux/" + runtime.GOARCH},
		dist:      t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewDigest(reference)
	if err != nil {
		t.Fatal(err)
	}
	image, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := config.Config.Labels["org.opencontainers.image.revision"]; ok {
		t.Errorf("got the label of commit %q, want none", got)
	}
	if want := time.Unix(0, 0); !config.Created.Equal(want) {
		t.Errorf("got created %v, want %v", config.Created, want)
	}
	checkVersion(t, image, "devel")
}

func TestImageRefuses(t *testing.T) {
	keepEnvironment(t)
	for name, c := range map[string]struct {
		options imageOptions
		want    string
	}{
		"no repository": {imageOptions{}, "give the repository"},
		"a tag":         {imageOptions{repository: "registry.example.com/countersign:v1"}, "without a tag"},
		"no version": {
			imageOptions{repository: "registry.example.com/countersign", version: "1.2.3"}, "of the form v1.2.3",
		},
		"build metadata": {
			imageOptions{repository: "registry.example.com/countersign", version: "v1.2.3+dirty"}, "of the form v1.2.3",
		},
		"no platform": {
			imageOptions{repository: "registry.example.com/countersign", platforms: []string{"amd64"}},
			`platform "amd64"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.options.root, c.options.dist = filepath.Join("..", ".."), t.TempDir()
			if _, err := buildImage(t.Context(), c.options); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}

func runIn(t *testing.T, dir, command string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", command, args, err, out)
	}
}

func imagesOf(t *testing.T, index v1.ImageIndex) map[string]v1.Image {
	t.Helper()
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	images := map[string]v1.Image{}
	for _, m := range manifest.Manifests {
		image, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		images[m.Platform.String()] = image
	}
	return images
}

func checkConfig(t *testing.T, image v1.Image, platform string) {
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Platform().String(); got != platform {
		t.Errorf("got an image for %s in the entry for %s", got, platform)
	}
	if got := config.Config.User; got != "65532" {
		t.Errorf("got user %q, want 65532", got)
	}
	if got, want := config.Config.Entrypoint, []string{"/ko-app/countersign"}; !cmp.Equal(got, want) {
		t.Errorf("got entrypoint %v, want %v", got, want)
	}
	manifest, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for where, about := range map[string]map[string]string{
		"labels": config.Config.Labels, "annotations": manifest.Annotations,
	} {
		for key, want := range map[string]string{
			"title": "countersign", "version": "v1.2.3", "licenses": "Apache-2.0",
		} {
			if got := about["org.opencontainers.image."+key]; got != want {
				t.Errorf("%s: got %s %q, want %q", where, key, got, want)
			}
		}
		created, err := time.Parse(time.RFC3339, about["org.opencontainers.image.created"])
		if err != nil || !created.Equal(config.Created.Time) {
			t.Errorf("%s: got created %v (%v), want %v as in the image", where, created, err, config.Created)
		}
	}
}

// checkContent checks that an image has the base image, the licenses and the manager, and nothing
// else.
func checkContent(t *testing.T, image v1.Image) {
	files := filesOf(t, image)
	want := []string{"/etc/group", "/etc/passwd", "/etc/ssl/certs/ca-certificates.crt", "/ko-app/countersign"}
	for name, text := range files {
		if strings.HasPrefix(name, "/licenses/") && licenseNames.MatchString(path.Base(name)) && len(text) > 0 {
			continue
		}
		if !slices.Contains(want, name) {
			t.Errorf("got the file %s, want none such", name)
		}
	}
	for _, name := range append(want, "/licenses/github.com/countersign-dev/countersign/LICENSE",
		"/licenses/go/LICENSE",
		"/licenses/sigs.k8s.io/controller-runtime/LICENSE", "/licenses/github.com/prometheus/client_golang/NOTICE") {
		if files[name] == nil {
			t.Errorf("got no file %s", name)
		}
	}
	if !bytes.Contains(files["/etc/passwd"], []byte("nonroot:x:65532:65532:")) {
		t.Errorf("got /etc/passwd %q, want the user nonroot", files["/etc/passwd"])
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(files["/etc/ssl/certs/ca-certificates.crt"]) {
		t.Error("got no root certificate that can be parsed")
	}
	if n := bytes.Count(files["/etc/ssl/certs/ca-certificates.crt"], []byte("BEGIN CERTIFICATE")); n < 50 {
		t.Errorf("got %d root certificates, want at least 50", n)
	}
}

// filesOf returns the files of an image, without folders.
func filesOf(t *testing.T, image v1.Image) map[string][]byte {
	t.Helper()
	content := mutate.Extract(image)
	defer content.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(content); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeDir {
			continue
		}
		if files["/"+strings.TrimPrefix(header.Name, "/")], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// checkSBOM checks that registry and dist have the same SBOM, which names the image and its
// modules.
func checkSBOM(t *testing.T, index name.Digest, image v1.Image, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	var sbom struct {
		Version  string `json:"spdxVersion"`
		Packages []struct{ Name string }
	}
	if err := json.Unmarshal(text, &sbom); err != nil || !strings.HasPrefix(sbom.Version, "SPDX-2.") {
		t.Fatalf("%s is no SPDX document: %v, %q", path, err, sbom.Version)
	}
	names := map[string]bool{}
	for _, p := range sbom.Packages {
		names[p.Name] = true
	}
	for _, want := range []string{
		digest.String(), "github.com/countersign-dev/countersign", "sigs.k8s.io/controller-runtime",
	} {
		if !names[want] {
			t.Errorf("got no package %s in %s", want, path)
		}
	}
	pushed, err := remote.Image(index.Tag(strings.ReplaceAll(digest.String(), ":", "-") + ".sbom"))
	if err != nil {
		t.Fatal(err)
	}
	layers, err := pushed.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("got an SBOM with %d layers: %v, want 1", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if got, err := io.ReadAll(content); err != nil || !bytes.Equal(got, text) {
		t.Errorf("got an SBOM in the registry that differs from %s: %v", path, err)
	}
}

// checkVersion runs the manager of an image with --version.
func checkVersion(t *testing.T, image v1.Image, want string) {
	if image == nil || runtime.GOOS != "linux" {
		t.Skip("this machine cannot run an image of these platforms")
	}
	binary := filepath.Join(t.TempDir(), "countersign")
	if err := os.WriteFile(binary, filesOf(t, image)["/ko-app/countersign"], 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	out, err := exec.CommandContext(ctx, binary, "--version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("--version: got %v, %q, want %q", err, out, want)
	}
}
