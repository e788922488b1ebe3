package install

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/process"
)

// testMetrics scrapes as the ServiceMonitor does: with a token, and with the CA in the webhook's
// Secret.
func (b *bed) testMetrics(t *testing.T) {
	b.install(t)
	defer b.uninstall(t)
	port, err := process.FreePort()
	must(t, err)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	b.manager(t, "--metrics-secure", "--metrics-bind-address="+address)
	for _, name := range []string{"prometheus", "nobody"} {
		must(t,
			b.Create(t.Context(), &corev1.ServiceAccount{
				ObjectMeta: metav1.ObjectMeta{Namespace: covered, Name: name},
			}))
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "prometheus"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "countersign-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: covered, Name: "prometheus"}},
	}
	must(t, b.Create(t.Context(), binding))
	defer func() { must(t, b.Delete(t.Context(), binding)) }()
	secret := &corev1.Secret{}
	must(t,
		b.Get(t.Context(), client.ObjectKey{Namespace: operator.Namespace, Name: "countersign-webhook-certificate"},
			secret))
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(secret.Data["ca.crt"]) {
		t.Fatal("got no CA in the Secret, want one")
	}
	scrape := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}}
	for name, c := range map[string]struct {
		token string
		code  int
	}{
		"without a token":       {"", http.StatusUnauthorized},
		"with a made-up one":    {"made-up", http.StatusUnauthorized},
		"of somebody else":      {b.token(t, covered, "nobody"), http.StatusForbidden},
		"of who may read them":  {b.token(t, covered, "prometheus"), http.StatusOK},
		"of the operator's own": {b.token(t, operator.Namespace, "countersign-manager"), http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			var code int
			var body []byte
			poll.Await(t, "a response", func() error {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/metrics", nil)
				if err != nil {
					return err
				}
				if c.token != "" {
					req.Header.Set("Authorization", "Bearer "+c.token)
				}
				resp, err := scrape.Do(req)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				code = resp.StatusCode
				body, err = io.ReadAll(resp.Body)
				return err
			})
			if code != c.code || strings.Contains(string(body), "countersign_gate_ready") != (code == http.StatusOK) {
				t.Errorf("got status %d, want %d, and metrics only with 200; %d bytes: %.200s", code, c.code, len(body),
					body)
			}
		})
	}
	b.testMetricsByHand(t, address)
}

// testMetricsByHand runs the commands of docs/metrics.md, section "A look by hand". It leaves out
// kubectl port-forward, which needs a node. Instead of curl it sends the request itself, with the
// token and the CA from the commands.
func (b *bed) testMetricsByHand(t *testing.T, address string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	must(t, err)
	_, section, _ := strings.Cut(string(page), "## A look by hand")
	section, _, _ = strings.Cut(section, "\n## ")
	dir, run := t.TempDir(), 0
	sh := func(command string) string {
		run++
		cmd := exec.CommandContext(t.Context(), "sh", "-c", `kubectl() { "$KUBECTL" "$@"; }; `+command)
		cmd.Dir, cmd.Env = dir, append(append(os.Environ(), "KUBECTL="+b.kube.Kubectl), b.kube.KubectlEnv()...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	var token string
	for line := range strings.Lines(section) {
		command, ok := strings.CutPrefix(line, "$ ")
		switch {
		case !ok, strings.HasPrefix(command, "kubectl port-forward"):
		case strings.HasPrefix(command, "curl "):
			_, command, _ = strings.Cut(command, "$(")
			command, _, _ = strings.Cut(command, ")")
			token = sh(command)
		default:
			sh(command)
		}
	}
	if run != 4 || token == "" {
		t.Fatalf("got %d commands and token %q, want 4 commands, the last one with a token", run, token)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/metrics", nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	look := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}}
	resp, err := look.Do(req)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if !strings.Contains(string(body), "countersign_gate_ready 1") {
		t.Errorf("got status %d and %.300s, want countersign_gate_ready 1", resp.StatusCode, body)
	}
	out, err := b.kube.RunKubectl(t.Context(), "", "delete", "clusterrolebinding/countersign-metrics-look")
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	out, err = b.kube.RunKubectl(t.Context(), "", "delete", "-n", "default", "serviceaccount/countersign-metrics")
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
