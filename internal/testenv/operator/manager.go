// Package operator runs the manager of this repository outside of a control plane, with the rights
// of config/rbac. It can run several managers behind one address.
package operator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/process"
)

// Namespace is the operator's namespace in tests and in the demo.
const Namespace = "countersign-system"

// Options are the options of a manager.
type Options struct {
	// Binary is the path that Build returned.
	Binary string
	// Dir is the folder of its log.
	Dir string
	// Args are further flags.
	Args []string
	// Env are further environment variables, in the form NAME=value.
	Env []string
	// MayMissRights allows that the API server denies the manager a request for lack of a right. It
	// is for a test that removes rights, or restarts the API server, which has loaded no rights at
	// first.
	MayMissRights bool
	// APIServer is the URL of the API server for the manager. Empty: the API server's own URL.
	APIServer string
}

// Manager is the operator, which runs outside of the cluster. The API server calls its webhook on
// loopback.
type Manager struct {
	*process.Process
	// WebhookURL is the URL of its webhook server.
	WebhookURL string
	// MetricsURL is the URL of its metrics.
	MetricsURL string
	// Binary is the path of its program.
	Binary string
	health string
}

// Start starts the manager as the operator's ServiceAccount. It returns when the manager is ready
// and both webhook configurations exist.
func Start(ctx context.Context, k *kubeserver.Server, options Options) (*Manager, error) {
	c, err := client.New(k.Config, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	config, err := kubeconfig(ctx, c, k, options.APIServer, options.Dir)
	if err != nil {
		return nil, err
	}
	webhook, err := process.FreePort()
	if err != nil {
		return nil, err
	}
	health, err := process.FreePort()
	if err != nil {
		return nil, err
	}
	metrics, err := process.FreePort()
	if err != nil {
		return nil, err
	}
	m := &Manager{
		WebhookURL: fmt.Sprintf("https://127.0.0.1:%d", webhook),
		MetricsURL: fmt.Sprintf("http://127.0.0.1:%d/metrics", metrics),
		Binary:     options.Binary,
		health:     fmt.Sprintf("127.0.0.1:%d", health),
	}
	env := append(os.Environ(), options.Env...)
	m.Process, err = process.Start("countersign", options.Dir, env, options.Binary, append([]string{
		"--kubeconfig", config, "--namespace", Namespace,
		"--webhook-port", fmt.Sprint(webhook), "--webhook-url", m.WebhookURL,
		"--health-probe-bind-address", m.health, "--metrics-bind-address", fmt.Sprintf("127.0.0.1:%d", metrics),
		"--metrics-secure=false",
		"--shutdown-delay=0", // no load balancer has to notice the end, unless Args say so
	}, options.Args...)...)
	if err != nil {
		return nil, err
	}
	err = m.Await(ctx, func(ctx context.Context) error {
		if err := m.Ready(ctx); err != nil {
			return err
		}
		return configured(ctx, c)
	})
	if err != nil {
		_ = m.Stop()
		return nil, err
	}
	return m, nil
}

// configured returns nil if both webhook configurations exist.
func configured(ctx context.Context, c client.Client) error {
	key := client.ObjectKey{Name: "countersign"}
	return errors.Join(
		c.Get(ctx, key, &admissionv1.ValidatingWebhookConfiguration{}),
		c.Get(ctx, key, &admissionv1.MutatingWebhookConfiguration{}),
	)
}

// Ready returns nil if the manager's readiness probe succeeds.
func (m *Manager) Ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.health+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the manager is not ready: %s", resp.Status)
	}
	return nil
}

// Run builds the manager with the race detector, and runs it until the test ends.
func Run(t testing.TB, k *kubeserver.Server, args ...string) *Manager {
	t.Helper()
	return RunWith(t, k, Options{Args: args})
}

// RunWith runs a manager until the test ends. If the options name no binary, it builds one with the
// race detector. It sets Dir itself.
func RunWith(t testing.TB, k *kubeserver.Server, options Options) *Manager {
	t.Helper()
	options.Dir = t.TempDir()
	if options.Binary == "" {
		binary, err := Build(t.Context(), options.Dir, true)
		if err != nil {
			t.Fatal(err)
		}
		options.Binary = binary
	}
	m, err := Start(t.Context(), k, options)
	if err != nil {
		t.Fatalf("starting the manager: %v", err)
	}
	t.Cleanup(func() {
		if err := m.Stop(); err != nil {
			t.Errorf("stopping the manager: %v", err)
		}
		if log, err := os.ReadFile(m.Log()); err != nil || bytes.Contains(log, []byte("DATA RACE")) {
			t.Errorf("a data race in the manager, or its log cannot be read (%v):\n%s", err, log)
		} else if missed := rightMissed(log); missed != "" && !options.MayMissRights {
			t.Errorf("config/rbac lacks a right: %s", missed)
		}
		if t.Failed() {
			t.Log(m.Tail())
		}
	})
	return m
}

// rightMissed returns the first log line about a request that the API server denied for lack of a
// right.
func rightMissed(log []byte) string {
	for line := range bytes.Lines(log) {
		if bytes.Contains(line, []byte("is forbidden: User")) {
			return string(line)
		}
	}
	return ""
}
