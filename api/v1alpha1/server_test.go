package v1alpha1_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/go-logr/logr"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policyfiles"
	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
)

// The API server that the tests of this package share, and the validation of files, which agrees
// with it. TestMain makes both.
var (
	kube      *kubeserver.Server
	validator *policyfiles.Validator
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if kube, err = kubeserver.Start(context.Background(), kubeserver.Options{}); err != nil {
		return 0, fmt.Errorf("starting the API server: %w", err)
	}
	if validator, err = policyfiles.NewValidator(); err != nil {
		return 0, errors.Join(err, kube.Stop())
	}
	code = m.Run()
	return code, kube.Stop()
}

// server returns a client of the API server.
func server(t *testing.T) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, apiextensionsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(kube.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// kubectl runs the real kubectl and returns its output.
func kubectl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	binaries, err := build.Kube(t.Context(), os.Stderr, "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), binaries.Kubectl, args...)
	command.Env = append(os.Environ(), kube.KubectlEnv()...)
	output, err := command.CombinedOutput()
	return string(output), err
}
