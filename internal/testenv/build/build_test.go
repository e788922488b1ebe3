package build

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestKubebuilderAssetsAreHonoured(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"etcd", "kube-apiserver", "kubectl", "kubelet"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("KUBEBUILDER_ASSETS", dir)
	got, err := Kube(t.Context(), io.Discard, "etcd", "kube-apiserver", "kubectl", "kubelet")
	if err != nil {
		t.Fatal(err)
	}
	want := got // the paths of the other commands do not matter
	want.Etcd, want.APIServer, want.Kubectl, want.Kubelet = dir+"/etcd", dir+"/kube-apiserver", dir+"/kubectl", dir+
		"/kubelet"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLockIsHeldByOneAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := Lock(t.Context(), io.Discard, path)
	if err != nil {
		t.Fatal(err)
	}
	var progress bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if again, err := Lock(ctx, &progress, path); err == nil {
		again()
		t.Error("got the lock twice at the same time")
	}
	if !strings.Contains(progress.String(), "Waiting for another process") {
		t.Errorf("got progress %q, want it to say that it waits", progress.String())
	}
	unlock()
	again, err := Lock(t.Context(), io.Discard, path)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

// TestLockAfterItsFileIsDeleted waits for a lock whose holder deletes the file. The lock that the
// waiter gets must be the one of the new file.
func TestLockAfterItsFileIsDeleted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program", "lock")
	unlock, err := Lock(t.Context(), io.Discard, path)
	if err != nil {
		t.Fatal(err)
	}
	waits, waited := make(signal), make(chan error, 1)
	go func() {
		_, err := Lock(t.Context(), waits, path)
		waited <- err
	}()
	<-waits
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	unlock()
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	if again, err := TryLock(path); err != nil || again != nil {
		t.Errorf("got the lock twice at the same time (%v), want it held", err)
	}
}

// signal is a writer that is closed by the first write.
type signal chan struct{}

func (s signal) Write(p []byte) (int, error) {
	close(s)
	return len(p), nil
}

func TestFixFailsWhenTheSourceHasChanged(t *testing.T) {
	root, err := ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	tools := notaryTools()
	tools.fixes[0].old = "text that is not there"
	_, err = fixSource(t.Context(), filepath.Join(root, "hack", "notary"), t.TempDir(), tools)
	if err == nil || !strings.Contains(err.Error(), "0 times, expected once") {
		t.Errorf("got %v, want an error about text that occurs 0 times", err)
	}
}
