package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/olm"
	"github.com/countersign-dev/countersign/internal/olm/compose"
)

// The committed bundle is up to date with config/.
func TestCommittedBundleIsUpToDate(t *testing.T) {
	out := t.TempDir()
	_, err := runBundle(t, "--committed", "--out="+out)
	must(t, err)
	root := filepath.Join("..", "..")
	committed := compose.Files{}
	for name, text := range read(t, filepath.Join(root, olm.BundleDir)) {
		committed[olm.BundleDir+"/"+name] = text
	}
	committed[olm.Dockerfile], err = os.ReadFile(filepath.Join(root, olm.Dockerfile))
	must(t, err)
	if diff := cmp.Diff(committed, read(t, out)); diff != "" {
		t.Errorf("the committed bundle differs; run make bundle and commit it:\n%s", diff)
	}
}

// Version and time of the committed bundle come from the changelog.
func TestCommittedBundleFollowsTheChangelog(t *testing.T) {
	for name, tt := range map[string]struct {
		changelog string
		want      settings
	}{
		"the first": {
			"## [Unreleased]\n\n## [0.1.0] - 2026-11-30\n",
			settings{version: "0.1.0", created: "2026-11-30T00:00:00Z", image: committedRepository + ":v0.1.0"},
		},
		"an upgrade": {
			"## [0.2.0] - 2027-01-02\n\n## [0.1.1] - 2026-12-01\n\n## [0.1.0] - 2026-11-30\n",
			settings{
				version: "0.2.0", replaces: "0.1.1", created: "2027-01-02T00:00:00Z",
				image: committedRepository + ":v0.2.0",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got settings
			must(t, got.fromVersions([]byte(tt.changelog)))
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
	if err := new(settings).fromVersions([]byte("## [Unreleased]\n")); err == nil {
		t.Error("got no error for a changelog without a version")
	}
}

// --committed refuses flags that would change the committed bundle.
func TestCommittedBundleTakesNoVersion(t *testing.T) {
	if _, err := runBundle(t, "--committed", "--version=9.9.9", "--out="+t.TempDir()); err == nil ||
		!strings.Contains(err.Error(), "takes no --version") {
		t.Errorf("got %v, want a refusal of --version", err)
	}
}

// With another DIST than dist, make writes all files there.
func TestMakefileWritesToDIST(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "Makefile"))
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if recipe, ok := strings.CutPrefix(line, "\t"); ok && strings.Contains(strings.ReplaceAll(recipe, "-dist", ""),
			"dist") {
			t.Errorf("got dist instead of $(DIST): %s", line)
		}
	}
	for _, command := range []string{"./hack/bundle --out", "./hack/chart -out"} {
		if !strings.Contains(string(text), command+` "$(DIST)"`) {
			t.Errorf("got %s without $(DIST)", command)
		}
	}
}
