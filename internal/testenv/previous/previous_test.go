package previous

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv/build"
)

// releases returns the versions in a changelog, the newest first, and whether it lists unreleased
// changes.
func releases(t *testing.T, root string) (versions []string, unreleased bool) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^## \[(\d+\.\d+\.\d+)\]`).FindAllStringSubmatch(string(text), -1) {
		versions = append(versions, m[1])
	}
	_, since, _ := strings.Cut(string(text), "## [Unreleased]")
	since, _, _ = strings.Cut(since, "\n## ")
	return versions, strings.TrimSpace(since) != ""
}

// TestPreviousIsTheChangelogs checks that Version is the newest release in the changelog. In the
// commit that cuts a release it is the second newest.
func TestPreviousIsTheChangelogs(t *testing.T) {
	root, err := build.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	versions, unreleased := releases(t, root)
	switch {
	case len(versions) == 0:
		t.Fatal("the changelog lists no release")
	case versions[0] == Version:
	case len(versions) > 1 && versions[1] == Version && !unreleased:
	default:
		t.Errorf(
			"got version %s, want the newest of the changelog's %v (unreleased changes: %t); set it in "+
				"internal/testenv/previous/previous.go",
			Version, versions, unreleased)
	}
}

// TestPreviousIsThatRelease checks that Commit cut the release Version, and that the built files
// name it.
func TestPreviousIsThatRelease(t *testing.T) {
	p := Run(t)
	if versions, unreleased := releases(t, p.Source); len(versions) == 0 || versions[0] != Version || unreleased {
		t.Errorf("the changelog of commit %s lists %v (unreleased changes: %t), want %s as the newest", Commit,
			versions, unreleased, Version)
	}
	out, err := gitCommand(t.Context(), nil, "-C", p.Source, "status", "--porcelain", "--branch")
	if err != nil || strings.TrimSpace(out) != "## HEAD (no branch)" {
		t.Errorf("got git status %q (%v), want a clean clone with a detached HEAD", out, err)
	}
	manifests, err := os.ReadFile(p.Manifests)
	if err != nil || !strings.Contains(string(manifests), Image) {
		t.Errorf("the manifests do not name %s (%v)", Image, err)
	}
}

// TestCloneWithoutTheCommit checks that the error says how to fetch a commit that is missing, and
// that cloneCommit leaves no folder behind.
func TestCloneWithoutTheCommit(t *testing.T) {
	root, err := build.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	shallow := filepath.Join(t.TempDir(), "shallow")
	if _, err := gitCommand(t.Context(), nil, "clone", "--quiet", "--depth=1", "file://"+Run(t).Source,
		shallow); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ from, commit, want string }{
		"shallow":        {shallow, Commit, "git fetch --unshallow"},
		"unknown commit": {root, strings.Repeat("0123456789", 4), "git fetch origin main"},
		"no repository":  {t.TempDir(), Commit, "no clone with a history"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "release")
			err := cloneCommit(t.Context(), c.from, dir, c.commit)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("got %v for %s, want no such folder", err, dir)
			}
		})
	}
}
