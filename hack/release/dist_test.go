package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFinish(t *testing.T) {
	var sums [2]string
	for i := range sums {
		dist := t.TempDir()
		for name, text := range map[string]string{
			"install.yaml": "a", "bundle/manifests/csv.yaml": "b", "bundle/metadata/annotations.yaml": "c",
		} {
			path := filepath.Join(dist, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(path), 0o700+os.FileMode(i*0o55)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600+os.FileMode(i*0o44)); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // the second run must keep the archives of the first
			if err := finish(dist, "v1.2.3", time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
		}
		runIn(t, dist, "sha256sum", "--check", "--strict", sumsFile)
		runIn(t, dist, "sh", "-c",
			"test \"$(tar -xzOf countersign-bundle-1.2.3.tar.gz bundle/manifests/csv.yaml)\" = b")
		text, err := os.ReadFile(filepath.Join(dist, sumsFile))
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = string(text)
	}
	if sums[0] != sums[1] {
		t.Errorf("got different checksums for the same files:\n%s\n%s", sums[0], sums[1])
	}
	var names []string
	for line := range strings.Lines(sums[0]) {
		names = append(names, strings.Fields(line)[1])
	}
	if got, want := strings.Join(names, " "), "countersign-bundle-1.2.3.tar.gz install.yaml"; got != want {
		t.Errorf("got checksums of %q, want %q", got, want)
	}
}

func TestFinishWantsPlainFiles(t *testing.T) {
	dist := t.TempDir()
	if err := os.Mkdir(filepath.Join(dist, "bundle"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dist, "bundle", "link")); err != nil {
		t.Fatal(err)
	}
	if err := finish(dist, "v1.2.3", time.Unix(1, 0)); err == nil || !strings.Contains(err.Error(), "no plain file") {
		t.Errorf("got error %v, want one about the link", err)
	}
}
