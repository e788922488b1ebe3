package testenv

import (
	"testing"
	"time"
)

// RunNotary runs a Notary server until the test ends.
func RunNotary(t testing.TB, options NotaryOptions) *Notary {
	t.Helper()
	n, err := StartNotary(t.Context(), options)
	if err != nil {
		t.Fatalf("starting the Notary server: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(n.server.Tail())
		}
		if err := n.Stop(); err != nil {
			t.Errorf("stopping the Notary server: %v", err)
		}
	})
	return n
}

// RunClient returns a client of a Notary server with a fresh trust directory.
func RunClient(t testing.TB, n *Notary) *NotaryClient {
	t.Helper()
	c, err := n.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// RunKube runs a control plane until the test ends.
func RunKube(t testing.TB, options KubeOptions) *Kube {
	t.Helper()
	k, err := StartKube(t.Context(), options)
	if err != nil {
		t.Fatalf("starting the control plane: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(k.Tail())
		}
		if err := k.Stop(); err != nil {
			t.Errorf("stopping the control plane: %v", err)
		}
	})
	return k
}

// RunRegistry runs a registry until the test ends.
func RunRegistry(t testing.TB) *Registry {
	t.Helper()
	r, err := StartRegistry()
	if err != nil {
		t.Fatalf("starting the registry: %v", err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Errorf("stopping the registry: %v", err)
		}
	})
	return r
}

// Await polls until ok returns nil, and fails the test with its last error after a minute.
func Await(t testing.TB, what string, ok func() error) {
	t.Helper()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s: %v", what, err)
		}
	}
}
