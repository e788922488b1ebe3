//go:build node && linux

package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// powerCut ends everything at once and starts it again while the Notary server is down. No evidence
// may be lost.
func (b *bed) powerCut(t *testing.T) {
	b.notary.Disconnect()
	must(t, b.notary.Server().Pause())
	defer func() {
		must(t, errors.Join(b.notary.Server().Resume(), b.notary.Reconnect()))
	}()
	must(t, b.cut())
	if err := b.Create(t.Context(), pod(b.tag(signedTag)), client.DryRunAll); err == nil {
		t.Fatal("got a response of the cluster after a power cut, want an error")
	}
	b.say("  everything has ended; starting it again")
	must(t, b.start(t.Context()))
	b.await(t, "the signed image to be admitted", func(ctx context.Context) error {
		if err := b.Create(ctx, pod(b.tag(unsignedTag)), client.DryRunAll); err == nil {
			t.Fatal("the unsigned image was admitted after a power cut, want a denial")
		}
		return b.Create(ctx, pod(b.tag(signedTag)), client.DryRunAll)
	})
	b.rolledOut(t, b.Operators[1])
	b.configured(t)
	err := b.Create(t.Context(), pod(b.tag(unsignedTag)))
	refused(t, err, http.StatusServiceUnavailable, b.tag(unsignedTag), `role "ci"`, "could not be asked")
	p := pod(b.tag(signedTag))
	must(t, b.Create(t.Context(), p))
	b.pinned(t, p, signedTag, b.images[signedTag].Digest)
	must(t, b.Delete(t.Context(), p))
	b.available(t, deployed("web", b.tag("v1"), 2))
	b.awaitFor(t, refreshed, "a leader to report that the Notary server is down", func(ctx context.Context) error {
		root := &v1alpha1.TrustRoot{}
		if err := b.Get(ctx, client.ObjectKey{Name: "acme-notary"}, root); err != nil {
			return err
		}
		if !meta.IsStatusConditionFalse(root.Status.Conditions, v1alpha1.ConditionFresh) {
			return fmt.Errorf("got conditions %+v, want Fresh=False", root.Status.Conditions)
		}
		return nil
	})
	b.nothingForbidden(t)
}

// cut ends the cluster as a power cut does: it kills all processes, removes mounts and control
// groups, and empties /run.
func (c *cluster) cut() error {
	for _, p := range slices.Backward(c.parts) {
		if err := p.process.Kill(); err != nil {
			return err
		}
		p.process = nil
	}
	for {
		killed, err := c.killPods()
		if err != nil {
			return err
		}
		if killed == 0 {
			break
		}
	}
	return errors.Join(c.unmount(), removeAllIn("/run"), removeCgroups(c.Cgroup+"/kubepods"))
}

// killPods kills containerd's shims and the processes in the kubelet's control group, each by its
// id. It returns their number. All processes in this namespace belong to the test.
func (c *cluster) killPods() (killed int, err error) {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range processes {
		name, _ := os.ReadFile(dir + "/comm")
		groups, _ := os.ReadFile(dir + "/cgroup")
		stat, _ := os.ReadFile(dir + "/stat")
		if _, state, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(state, "Z") {
			continue
		}
		if !bytes.HasPrefix(name, []byte("containerd-shim")) && !bytes.Contains(groups, []byte("/"+c.Cgroup+"/")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return killed, err
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return killed, fmt.Errorf("killing %s: %w", bytes.TrimSpace(name), err)
		}
		killed++
	}
	return killed, nil
}

// unmount removes the mounts of containerd and the kubelet, the last mount first.
func (c *cluster) unmount() error {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for _, line := range slices.Backward(strings.Split(string(table), "\n")) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(fields[1], "/run/") && !strings.HasPrefix(fields[1], c.Dir+"/") {
			continue
		}
		// Containerd may have removed the folder before it was killed.
		if err := syscall.Unmount(fields[1], syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("unmounting %s: %w", fields[1], err)
		}
	}
	return nil
}

// removeAllIn removes everything in a folder.
func removeAllIn(dir string) (err error) {
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
	}
	return err
}
