package testenv

import (
	"crypto/tls"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	. "github.com/onsi/gomega"
)

func TestKubeWithControllers(t *testing.T) {
	g := NewWithT(t)
	ctx := t.Context()
	k := RunKube(t, KubeOptions{ControllerManager: true})

	out, err := k.RunKubectl(ctx, "", "get", "imagepolicies,trustroots")
	g.Expect(err).NotTo(HaveOccurred(), out)
	g.Eventually(func() (string, error) { return k.RunKubectl(ctx, "", "get", "serviceaccount", "default") }).
		WithTimeout(30 * time.Second).Should(ContainSubstring("default"))
	out, err = k.RunKubectl(ctx, "", "create", "deployment", "web", "--image=registry.example.com/acme/app:v1")
	g.Expect(err).NotTo(HaveOccurred(), out)
	g.Eventually(func() (string, error) { return k.RunKubectl(ctx, "", "get", "pods", "-o", "name") }).
		WithTimeout(30*time.Second).Should(HavePrefix("pod/web-"), "the controller manager makes the Deployment's Pod")
	_, err = k.RunKubectl(ctx, "", "get", "no-such-kind")
	g.Expect(err).To(HaveOccurred(), "a failed command is an error")
}

func TestProcessesEndWithStop(t *testing.T) {
	k, err := StartKube(t.Context(), KubeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(k.processes) != 2 {
		t.Errorf("%d processes run, want etcd and the API server", len(k.processes))
	}
	if err := k.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, p := range k.processes {
		select {
		case <-p.done:
		default:
			t.Errorf("%s (%s) is still running after Stop", p.name, strconv.Itoa(p.PID()))
		}
	}
}

func TestStartShowsTheLogOfWhatFailed(t *testing.T) {
	_, err := StartKube(t.Context(), KubeOptions{APIServerArgs: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("got %v, want the API server's own complaint", err)
	}
}

func TestRegistry(t *testing.T) {
	ctx := t.Context()
	r := RunRegistry(t)
	image, err := r.Push(ctx, "acme/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(image.Reference())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.CA.Pool()}}
	defer transport.CloseIdleConnections()
	got, err := remote.Head(ref, remote.WithContext(ctx), remote.WithTransport(transport))
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest.String() != image.Digest || got.Size != image.Size || image.Digest != "sha256:"+image.Hex {
		t.Errorf("registry holds %s of %d bytes, pushed %+v", got.Digest, got.Size, image)
	}
}
