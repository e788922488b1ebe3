// Package build builds the programs that the tests and the demo run. It builds them once per
// version, from the pinned modules under hack/ into the user's cache folder. Only the go command
// uses a network.
package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/process"
)

// KubeBinaries are the paths of the executables of a control plane and of a node.
type KubeBinaries struct {
	// Controllers runs some of Kubernetes' controllers: see hack/kube/controllers.
	Etcd, APIServer, Controllers, Kubectl string
	// ControllerManager, Scheduler, Proxy and Kubelet are built only on request, by name.
	ControllerManager, Scheduler, Proxy, Kubelet string
}

// NotaryBinaries are the paths of the Notary v1 executables.
type NotaryBinaries struct {
	Client, Server, Signer string
}

// Kube builds the named commands if the cache does not hold them, and reports on progress. Without
// names it builds the control plane, and nothing of a node. If the user has set KUBEBUILDER_ASSETS,
// Kube uses the executables in that folder and builds only the others.
func Kube(ctx context.Context, progress io.Writer, commands ...string) (KubeBinaries, error) {
	tools := kubeTools()
	if len(commands) > 0 {
		maps.Copy(tools.packages, tools.named)
		maps.DeleteFunc(tools.packages, func(name, _ string) bool { return !slices.Contains(commands, name) })
	}
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	given := make(map[string]string)
	for name := range tools.packages {
		if path := filepath.Join(assets, name); assets != "" && isExecutable(path) {
			given[name] = path
			delete(tools.packages, name)
		}
	}
	dir, err := build(ctx, progress, tools)
	if err != nil {
		return KubeBinaries{}, err
	}
	path := func(name string) string {
		if p, ok := given[name]; ok {
			return p
		}
		return filepath.Join(dir, name)
	}
	return KubeBinaries{
		Etcd: path("etcd"), APIServer: path("kube-apiserver"), Controllers: path("kube-controllers"),
		Kubectl:           path("kubectl"),
		ControllerManager: path("kube-controller-manager"), Scheduler: path("kube-scheduler"),
		Proxy: path("kube-proxy"), Kubelet: path("kubelet"),
	}, nil
}

// Notary builds the Notary server, signer and client if the cache does not hold them, and reports
// on progress.
func Notary(ctx context.Context, progress io.Writer) (NotaryBinaries, error) {
	dir, err := build(ctx, progress, notaryTools())
	if err != nil {
		return NotaryBinaries{}, err
	}
	return NotaryBinaries{
		Client: filepath.Join(dir, "notary"),
		Server: filepath.Join(dir, "notary-server"),
		Signer: filepath.Join(dir, "notary-signer"),
	}, nil
}

// Distribution builds the distribution registry if the cache does not hold it, reports on progress,
// and returns its path.
func Distribution(ctx context.Context, progress io.Writer) (string, error) {
	dir, err := build(ctx, progress, distributionTools())
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "registry"), nil
}

// Cosign builds the cosign client if the cache does not hold it, reports on progress, and returns
// its path.
func Cosign(ctx context.Context, progress io.Writer) (string, error) {
	dir, err := build(ctx, progress, cosignTools())
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "cosign"), nil
}

// Notation builds the notation client if the cache does not hold it, reports on progress, and
// returns its path.
func Notation(ctx context.Context, progress io.Writer) (string, error) {
	dir, err := build(ctx, progress, notationTools())
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "notation"), nil
}

// Helm builds the Helm client if the cache does not hold it, reports on progress, and returns its
// path.
func Helm(ctx context.Context, progress io.Writer) (string, error) {
	dir, err := build(ctx, progress, helmTools())
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "helm"), nil
}

// build returns the folder that holds the executables of a toolset, and builds those that are
// missing. A file lock keeps concurrent test packages from building twice. Each executable gets its
// final name only when it is complete.
func build(ctx context.Context, progress io.Writer, tools toolset) (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, "hack", tools.name)
	version, digest, err := pinned(source, tools)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache folder: %w", err)
	}
	dir := filepath.Join(cache, "countersign", fmt.Sprintf("%s-%s-%s", tools.name, version, digest))
	if len(missing(dir, tools.packages)) == 0 {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making the cache folder: %w", err)
	}
	unlock, err := Lock(ctx, progress, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()

	names := missing(dir, tools.packages)
	if len(names) > 0 {
		fmt.Fprintf(progress, "Building the %s servers (%s) into %s.\n%s\n", tools.name, version, dir, tools.notice)
	}
	flags := []string{"-ldflags", strings.ReplaceAll(tools.ldflags, "VERSION", version)}
	for _, gcflags := range tools.gcflags {
		flags = append(flags, "-gcflags", gcflags)
	}
	if len(tools.fixes) > 0 && len(names) > 0 {
		modfile, err := fixSource(ctx, source, dir, tools)
		if err != nil {
			return "", err
		}
		defer os.RemoveAll(filepath.Dir(modfile))
		flags = append(flags, "-modfile", modfile)
	}
	for i, name := range names {
		start := time.Now()
		fmt.Fprintf(progress, "  [%d/%d] %s ... ", i+1, len(names), name)
		if err := buildOne(ctx, source, dir, name, tools.packages[name], flags); err != nil {
			fmt.Fprintln(progress, "failed")
			return "", err
		}
		fmt.Fprintf(progress, "%s\n", time.Since(start).Round(time.Second))
	}
	return dir, nil
}

func buildOne(ctx context.Context, source, dir, name, pkg string, flags []string) error {
	tmp, err := os.MkdirTemp(dir, ".building-")
	if err != nil {
		return fmt.Errorf("making a folder to build in: %w", err)
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, name)
	args := append([]string{"build"}, flags...)
	if _, err := Go(ctx, source, append(args, "-o", out, pkg)...); err != nil {
		return fmt.Errorf("building %s: %w", name, err)
	}
	if err := os.Rename(out, filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("renaming the executable %s: %w", name, err)
	}
	return nil
}

// fixSource copies the toolset's module into a new folder in dir and applies the fixes to the copy.
// It returns the path of a go.mod that builds from the copy. It fails if the text of a fix does not
// occur exactly once: the module has changed.
func fixSource(ctx context.Context, source, dir string, tools toolset) (modfile string, err error) {
	if _, err := Go(ctx, source, "mod", "download", tools.module); err != nil { // "go list" does not download
		return "", fmt.Errorf("downloading the source of %s: %w", tools.module, err)
	}
	original, err := Go(ctx, source, "list", "-m", "-f", "{{.Dir}}", tools.module)
	if err != nil {
		return "", fmt.Errorf("finding the source of %s: %w", tools.module, err)
	}
	tmp, err := os.MkdirTemp(dir, ".fixed-")
	if err != nil {
		return "", fmt.Errorf("making a folder for fixed source: %w", err)
	}
	src := filepath.Join(tmp, "src")
	if err := os.CopyFS(src, os.DirFS(strings.TrimSpace(original))); err != nil {
		return "", fmt.Errorf("copying the source of %s: %w", tools.module, err)
	}
	for _, f := range tools.fixes {
		path := filepath.Join(src, f.file)
		text, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("reading a source file to fix: %w", err)
		}
		if n := bytes.Count(text, []byte(f.old)); n != 1 {
			return "", fmt.Errorf("%s of %s holds %q %d times, expected once", f.file, tools.module, f.old, n)
		}
		if err := os.WriteFile(path, bytes.Replace(text, []byte(f.old), []byte(f.new), 1), 0o644); err != nil {
			return "", fmt.Errorf("fixing %s: %w", f.file, err)
		}
	}
	mod, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("reading the pinned versions: %w", err)
	}
	sum, err := os.ReadFile(filepath.Join(source, "go.sum"))
	if err != nil {
		return "", fmt.Errorf("reading the pinned versions: %w", err)
	}
	modfile = filepath.Join(tmp, "go.mod")
	mod = fmt.Appendf(mod, "\nreplace %s => %s\n", tools.module, src)
	if err := os.WriteFile(modfile, mod, 0o644); err != nil {
		return "", err
	}
	return modfile, os.WriteFile(filepath.Join(tmp, "go.sum"), sum, 0o644)
}

// Go runs the go command in a folder, and returns its standard output.
func Go(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	process.Tie(cmd)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s in %s: %w\n%s", args[0], dir, err, stderr.Bytes())
	}
	return stdout.String(), nil
}

// pinned returns the version of a toolset, and a digest of everything that its executables depend
// on.
func pinned(dir string, tools toolset) (version, digest string, err error) {
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", "", fmt.Errorf("reading the pinned versions: %w", err)
	}
	sum, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return "", "", fmt.Errorf("reading the pinned versions: %w", err)
	}
	m := regexp.MustCompile(`(?m)^(?:require)?\s*` + regexp.QuoteMeta(tools.module) + `\s+(v\S+)`).FindSubmatch(mod)
	if m == nil {
		return "", "", fmt.Errorf("%s/go.mod requires no %s", dir, tools.module)
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00%q\x00%q", mod, sum, tools.ldflags, tools.gcflags, tools.fixes)
	own, err := filepath.Glob(filepath.Join(dir, "*", "*.go")) // commands in the module under hack/
	if err != nil {
		return "", "", err
	}
	for _, file := range own {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", "", fmt.Errorf("reading the source of a server: %w", err)
		}
		fmt.Fprintf(h, "\x00%s", text)
	}
	return string(m[1]), hex.EncodeToString(h.Sum(nil)[:6]), nil
}

func missing(dir string, packages map[string]string) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		if !isExecutable(filepath.Join(dir, name)) {
			names = append(names, name)
		}
	}
	return names
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// Lock takes an exclusive lock on a file, and makes the file and its folder if they are missing.
// The kernel releases the lock when the process ends, also after a crash. The holder of the lock
// may delete the file and the folder.
func Lock(ctx context.Context, progress io.Writer, path string) (unlock func(), err error) {
	for reported := false; ; {
		unlock, err := TryLock(path)
		if err != nil || unlock != nil {
			return unlock, err
		}
		if !reported {
			fmt.Fprintf(progress, "Waiting for another process that is building the same servers (%s).\n", path)
			reported = true
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %s: %w", path, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// TryLock is Lock, but returns no function if another process has the lock.
func TryLock(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("making a folder for a lock: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // the holder of the lock has just deleted the folder
	}
	if err != nil {
		return nil, fmt.Errorf("opening a lock: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil && isAt(f, path) {
		return func() { f.Close() }, nil
	}
	f.Close()
	if err == nil || errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return nil, nil
	}
	return nil, fmt.Errorf("locking %s: %w", path, err)
}

// isAt reports whether an open file is still the file at a path.
func isAt(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	found, err := os.Stat(path)
	return err == nil && os.SameFile(opened, found)
}
