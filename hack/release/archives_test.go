package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// The archives have the binary, the licenses and the completion, the manifest for krew has their
// checksums, and a second build is identical.
func TestArchives(t *testing.T) {
	keepEnvironment(t)
	dist := t.TempDir()
	own := "linux/" + runtime.GOARCH
	o := archiveOptions{
		root: filepath.Join("..", ".."), dist: dist, version: "v1.2.3", platforms: []string{own, "windows/amd64"},
	}
	if err := buildArchives(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	var plugin krewPlugin
	manifest, err := os.ReadFile(filepath.Join(dist, "countersign-krew.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(manifest, &plugin); err != nil {
		t.Fatal(err)
	}
	if n := len(plugin.Spec.Platforms); n != 2 {
		t.Fatalf("got %d platforms in the manifest, want 2", n)
	}
	first := map[string][]byte{}
	for _, p := range plugin.Spec.Platforms {
		file := p.URI[strings.LastIndex(p.URI, "/")+1:]
		content, err := os.ReadFile(filepath.Join(dist, file))
		if err != nil {
			t.Fatal(err)
		}
		first[file] = content
		if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != p.SHA256 {
			t.Errorf("%s: got the checksum %s in the manifest, want %x", file, p.SHA256, sum)
		}
	}
	unpacked := t.TempDir()
	runIn(t, dist, "tar", "-xzf", "kubectl-countersign-linux-"+runtime.GOARCH+".tar.gz", "-C", unpacked)
	out, err := exec.CommandContext(t.Context(), filepath.Join(unpacked, "kubectl-countersign"), "--version").Output()
	if err != nil || !strings.Contains(string(out), "v1.2.3") {
		t.Errorf("--version: got %v, %q, want v1.2.3", err, out)
	}
	for _, name := range []string{completer, "licenses/" + module + "/LICENSE", "licenses/go/LICENSE"} {
		if _, err := os.Stat(filepath.Join(unpacked, name)); err != nil {
			t.Error(err)
		}
	}
	checkZip(t, first["kubectl-countersign-windows-amd64.zip"])

	o.dist = t.TempDir()
	if err := buildArchives(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for file, want := range first {
		if got, err := os.ReadFile(filepath.Join(o.dist, file)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got another archive from a second build: %v", file, err)
		}
	}
}

func checkZip(t *testing.T, content []byte) {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range r.File {
		names = append(names, f.Name)
	}
	for _, want := range []string{"kubectl-countersign.exe", "licenses/" + module + "/LICENSE"} {
		if !slices.Contains(names, want) {
			t.Errorf("got no %s in the archive for Windows", want)
		}
	}
}

func TestArchivesRefuse(t *testing.T) {
	keepEnvironment(t)
	for name, c := range map[string]struct {
		options archiveOptions
		want    string
	}{
		"no version":  {archiveOptions{version: "1.2.3"}, "of the form v1.2.3"},
		"no platform": {archiveOptions{platforms: []string{"amd64"}}, `platform "amd64"`},
	} {
		t.Run(name, func(t *testing.T) {
			c.options.root, c.options.dist = filepath.Join("..", ".."), t.TempDir()
			if err := buildArchives(t.Context(), c.options); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}
