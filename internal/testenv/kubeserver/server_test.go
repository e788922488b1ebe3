package kubeserver

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestKubeWithControllers(t *testing.T) {
	g := NewWithT(t)
	ctx := t.Context()
	k := Run(t, Options{ControllerManager: true})

	out, err := k.RunKubectl(ctx, "", "get", "imagepolicies,trustroots")
	g.Expect(err).NotTo(HaveOccurred(), out)
	g.Eventually(func() (string, error) { return k.RunKubectl(ctx, "", "get", "serviceaccount", "default") }).
		WithTimeout(30 * time.Second).Should(ContainSubstring("default"))
	out, err = k.RunKubectl(ctx, "", "create", "deployment", "web", "--image=registry.example.com/acme/app:v1")
	g.Expect(err).NotTo(HaveOccurred(), out)
	g.Eventually(func() (string, error) { return k.RunKubectl(ctx, "", "get", "pods", "-o", "name") }).
		WithTimeout(30*time.Second).Should(HavePrefix("pod/web-"), "the controllers make the Deployment's Pod")
	_, err = k.RunKubectl(ctx, "", "get", "no-such-kind")
	g.Expect(err).To(HaveOccurred(), "a command that fails returns an error")
}

func TestProcessesEndWithStop(t *testing.T) {
	k, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(k.processes) != 2 {
		t.Errorf("got %d processes, want etcd and the API server", len(k.processes))
	}
	if err := k.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, p := range k.processes {
		if !p.Ended() {
			t.Errorf("process %d with log %s still runs after Stop", p.PID(), p.Log())
		}
	}
}

func TestStartShowsTheLogOfAFailedServer(t *testing.T) {
	_, err := Start(t.Context(), Options{APIServerArgs: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("got %v, want the error that the API server logs", err)
	}
}
