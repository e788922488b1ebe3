// Package previous builds the previous release. Upgrade tests start from it.
package previous

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/process"
)

// The version of the previous release, and the commit of its tag. docs/release.md says when they
// change. A test compares them with the changelog.
const (
	Version = "0.1.0"
	Commit  = "a605c54c87bf10ba24fe7c5bf3949e5f83abfa22"
)

// Image is the operator's image in the manifests and the chart of the previous release.
const Image = "registry.example.com/countersign/countersign:v" + Version

// Release is the previous release, built from its own sources by its own make targets.
type Release struct {
	// Source is a clone whose HEAD is Commit.
	Source string
	// Manager is the path of the program, Manifests of the installation for kubectl, and Chart of
	// the archive for Helm.
	Manager, Manifests, Chart string
}

// Build builds the previous release if the cache does not hold it, and reports on progress. The
// user's cache folder keeps it under the commit's name, so Build builds it once.
func Build(ctx context.Context, progress io.Writer) (*Release, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("finding the cache folder: %w", err)
	}
	dir := filepath.Join(cache, "countersign", "release-"+Version+"-"+Commit[:12])
	p := &Release{
		Source:    dir,
		Manager:   filepath.Join(dir, "bin", "countersign"),
		Manifests: filepath.Join(dir, "dist", "install.yaml"),
		Chart:     filepath.Join(dir, "dist", "countersign-"+Version+".tgz"),
	}
	if p.built() {
		return p, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("making the cache folder: %w", err)
	}
	unlock, err := build.Lock(ctx, progress, dir+".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if p.built() {
		return p, nil
	}
	fmt.Fprintf(progress, "Building release %s (commit %s) into %s, which takes about a minute.\n", Version,
		Commit[:12], dir)
	root, err := build.ModuleRoot()
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(dir); err != nil { // files of an interrupted build
		return nil, fmt.Errorf("removing an unfinished build: %w", err)
	}
	if err := cloneCommit(ctx, root, dir, Commit); err != nil {
		return nil, fmt.Errorf("release %s: %w", Version, err)
	}
	for _, target := range []string{"build", "install-yaml", "chart"} {
		cmd := exec.CommandContext(ctx, "make", "--no-print-directory", target, "VERSION="+Version, "IMAGE="+Image,
			"COMPONENTS=")
		cmd.Dir, cmd.Env = dir, cleanEnviron()
		process.Tie(cmd)
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("make %s of release %s: %w\n%s", target, Version, err, out)
		}
	}
	for _, path := range []string{p.Manager, p.Manifests, p.Chart} {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("finding what release %s has built: %w", Version, err)
		}
	}
	return p, os.WriteFile(p.mark(), nil, 0o600)
}

// Run builds the previous release for a test.
func Run(t testing.TB) *Release {
	t.Helper()
	p, err := Build(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// mark is the path of a file that Build writes when the release is complete.
func (p *Release) mark() string { return filepath.Join(p.Source, "dist", ".built") }

func (p *Release) built() bool {
	_, err := os.Stat(p.mark())
	return err == nil
}

// cloneCommit clones a repository into a new folder, with the history of one commit, and checks the
// commit out. It does not use "git clone": that refuses a repository of another user, for example
// if tests run as root.
func cloneCommit(ctx context.Context, root, dir, commit string) error {
	from := []string{"-c", "safe.directory=" + root, "-C", root}
	if out, err := gitCommand(ctx, nil, append(from, "rev-parse", "--is-shallow-repository")...); err != nil {
		return fmt.Errorf("commit %s is needed, and %s is no clone with a history: %w", commit, root, err)
	} else if strings.TrimSpace(out) == "true" {
		return fmt.Errorf(
			"commit %s is needed with its history, and %s is a shallow clone; run: git fetch --unshallow",
			commit, root)
	}
	if _, err := gitCommand(ctx, nil, append(from, "cat-file", "-e", commit+"^{commit}")...); err != nil {
		return fmt.Errorf("commit %s is not in %s; run: git fetch origin main (%w)", commit, root, err)
	}
	if _, err := gitCommand(ctx, nil, "init", "--quiet", dir); err != nil {
		return err
	}
	pack := filepath.Join(dir, ".git", "previous.pack")
	out, err := os.Create(pack)
	if err != nil {
		return fmt.Errorf("making a clone: %w", err)
	}
	cmd := exec.CommandContext(ctx, "git", append(from, "pack-objects", "--revs", "--stdout", "-q")...)
	var problems strings.Builder
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = cleanEnviron(), strings.NewReader(commit+"\n"), out, &problems
	process.Tie(cmd)
	if err := errors.Join(cmd.Run(), out.Close()); err != nil {
		return fmt.Errorf("reading commit %s: %w\n%s", commit, err, problems.String())
	}
	in, err := os.Open(pack)
	if err != nil {
		return fmt.Errorf("making a clone: %w", err)
	}
	defer in.Close()
	if _, err := gitCommand(ctx, in, "-C", dir, "index-pack", "--stdin"); err != nil {
		return err
	}
	if _, err := gitCommand(ctx, nil, "-C", dir, "-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach",
		commit); err != nil {
		return err
	}
	return os.Remove(pack)
}

func gitCommand(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	var out, problems strings.Builder
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = cleanEnviron(), stdin, &out, &problems
	process.Tie(cmd)
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, problems.String())
	}
	return out.String(), nil
}

// cleanEnviron returns the environment without variables of make and git. If make or git runs this
// program, its variables are about another folder.
func cleanEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(
			[]string{"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "VERSION", "IMAGE", "COMPONENTS"}, name) ||
			slices.Contains(
				[]string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"}, name)
	})
}
