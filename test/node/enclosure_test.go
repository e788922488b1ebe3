//go:build node && linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// hidden returns folders that the parts of a node write to, whatever their configuration says. In
// the namespaces each is an empty file system in memory.
func hidden() []string {
	return []string{"/run", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers", "/var/log/pods"}
}

// tunables returns kernel settings that a kubelet changes for the whole machine. In the namespaces
// it finds the values that it wants, and so does not change the machine's.
func tunables() map[string]string {
	return map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	}
}

// enter starts this binary again in new namespaces, and waits until everything in them has ended.
func enter(ctx context.Context, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	temporary := filepath.Join(dir, "tmp")
	if err := os.Mkdir(temporary, 0o700); err != nil {
		return err
	}
	cmd.Env = append(os.Environ(), environment+"="+dir, "TMPDIR="+temporary)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Setpgid: true, Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Run(); ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", ctx.Err())
	} else if err != nil {
		return fmt.Errorf("running the tests in namespaces: %w", err)
	}
	return nil
}

// enclose sets up the mounts and the loopback interface of the namespaces. This process is the
// first in them.
func enclose() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC,
		""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	for _, dir := range hidden() {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=0755"); err != nil {
			return fmt.Errorf("hiding %s: %w", dir, err)
		}
	}
	settings := filepath.Join(os.Getenv(environment), "sysctl")
	for name, value := range tunables() {
		file := filepath.Join(settings, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := syscall.Mount(file, filepath.Join("/proc/sys", name), "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("hiding the setting %s: %w", name, err)
		}
	}
	return command("ip", "link", "set", "lo", "up")
}

// makeMountPoints makes the hidden folders that do not exist, and returns those.
func makeMountPoints() (made []string, err error) {
	for _, dir := range hidden() {
		if err := os.Mkdir(dir, 0o755); err == nil {
			made = append(made, dir)
		} else if !errors.Is(err, fs.ErrExist) {
			return made, fmt.Errorf("making a mount point: %w", err)
		}
	}
	return made, nil
}

func removeMountPoints(made []string) (err error) {
	for _, dir := range made {
		err = errors.Join(err, os.Remove(dir))
	}
	return err
}

// hierarchies returns the roots of the control groups. Version 2 has one hierarchy. Version 1 has
// one for each controller, and often one of version 2 beside them.
func hierarchies() ([]string, error) {
	const root = "/sys/fs/cgroup"
	if unified() {
		return []string{root}, nil
	}
	found, err := filepath.Glob(root + "/*/cgroup.procs")
	for i, path := range found {
		found[i] = filepath.Dir(path)
	}
	if err == nil && len(found) == 0 {
		err = errors.New("found no control groups in " + root)
	}
	return found, err
}

func unified() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// makeCgroups makes the control group of the kubelet's Pods. In version 2 it may have to enable
// controllers for the whole machine; undo disables them again.
func makeCgroups(name string) (undo func() error, err error) {
	undo = func() error { return nil }
	roots, err := hierarchies()
	if err != nil {
		return undo, err
	}
	for _, root := range roots {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			return undo, fmt.Errorf("making a control group: %w", err)
		}
	}
	if !unified() {
		return undo, nil
	}
	for _, dir := range []string{roots[0], filepath.Join(roots[0], name)} {
		enabled, err := enableControllers(dir)
		if err != nil {
			return undo, err
		}
		if dir == roots[0] {
			undo = func() error { return switchControllers(dir, "-", enabled) }
		}
	}
	return undo, nil
}

// enableControllers enables every controller of a group for the groups below it, and returns those
// that were not enabled before.
func enableControllers(dir string) (enabled []string, err error) {
	has, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return nil, fmt.Errorf("reading the controllers of a group: %w", err)
	}
	gives, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return nil, fmt.Errorf("reading the enabled controllers of a group: %w", err)
	}
	for controller := range strings.FieldsSeq(string(has)) {
		if !slices.Contains(strings.Fields(string(gives)), controller) {
			enabled = append(enabled, controller)
		}
	}
	return enabled, switchControllers(dir, "+", enabled)
}

func switchControllers(dir, sign string, controllers []string) error {
	if len(controllers) == 0 {
		return nil
	}
	text := sign + strings.Join(controllers, " "+sign)
	if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(text), 0o644); err != nil {
		return fmt.Errorf("switching controllers %s: %w", text, err)
	}
	return nil
}

// removeCgroups removes the control group and all groups below it. They are empty when the
// processes have ended.
func removeCgroups(name string) error {
	roots, err := hierarchies()
	for _, root := range roots {
		var dirs []string
		walked := filepath.WalkDir(filepath.Join(root, name), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if walked != nil && !errors.Is(walked, fs.ErrNotExist) {
			err = errors.Join(err, walked)
		}
		for i := len(dirs) - 1; i >= 0; i-- {
			err = errors.Join(err, syscall.Rmdir(dirs[i]))
		}
	}
	return err
}

// command runs a command. The error contains its output.
func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
