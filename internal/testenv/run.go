package testenv

import (
	"errors"
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"

	"github.com/countersign-dev/countersign/api/v1alpha1"
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

// AwaitKindsGone waits until the API server tells nobody of our kinds any more, which it does for a moment after their CRDs are gone. Whoever
// installs them anew asks it.
func AwaitKindsGone(t testing.TB, k *Kube) {
	t.Helper()
	served, err := discovery.NewDiscoveryClientForConfig(k.Config)
	if err != nil {
		t.Fatal(err)
	}
	Await(t, "our kinds to be served no more", func() error {
		if _, err := served.ServerResourcesForGroupVersionWithContext(t.Context(), v1alpha1.GroupVersion.String()); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the answer is %w", err)
		}
		return nil
	})
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

// AwaitTrue is Await for what is true or not.
func AwaitTrue(t testing.TB, what string, ok func() bool) {
	t.Helper()
	Await(t, what, func() error {
		if !ok() {
			return errors.New("not yet")
		}
		return nil
	})
}
