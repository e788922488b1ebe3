package main

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/flags"
)

// TestMain runs the manager where a test started this program as one.
func TestMain(m *testing.M) {
	if os.Getenv("COUNTERSIGN_TEST_MANAGER") != "" {
		main()
		return
	}
	m.Run()
}

// The manager logs in the format of its flags, from the first line on.
func TestLog(t *testing.T) {
	const config = `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]}`
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"default": {nil, `^\{"level":"info","ts":"[^"]+","msg":"Started",`},
		"error": {
			[]string{"--log-level=error"}, `^\{"level":"error","ts":"[^"]+","msg":"Could not start yet, `,
		},
		"text":            {[]string{"--log-format=text"}, `^\d{4}-\S+\tINFO\tStarted\t\{`},
		"not the manager": {[]string{"check-gate"}, `^countersign: --namespace and --policy must be set`},
		"refused":         {[]string{"--log-format=xml"}, `^countersign: --log-format=xml: must be json or text`},
	} {
		t.Run(name, func(t *testing.T) {
			manager := exec.CommandContext(t.Context(), os.Args[0], append(c.args, "--kubeconfig="+kubeconfig)...)
			manager.Env = append(os.Environ(), "COUNTERSIGN_TEST_MANAGER=1")
			stderr, err := manager.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := manager.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(stderr).ReadString('\n')
			if err != nil || !regexp.MustCompile(c.want).MatchString(line) {
				t.Errorf("the first line is %q, %v; want %s", line, err, c.want)
			}
			_ = manager.Process.Kill() // it may have ended
			_ = manager.Wait()
		})
	}
}

// client-go logs in the format of the flag, too.
func TestLogOfLibraries(t *testing.T) {
	// client-go logs the Warning header of a response.
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Warning", `299 - "said by the API server"`)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer api.Close()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	config := `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], ` +
		`clusters: [{name: c, cluster: {server: "` + api.URL + `"}}]}`
	if err := os.WriteFile(kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for format, want := range map[string]string{
		"json": `^\{"level":"info",.*"logger":"client","msg":"Warning: said by the API server"`,
		"text": `^\d{4}-\S+\tINFO\tclient\t.*said by the API server`,
	} {
		t.Run(format, func(t *testing.T) {
			manager := exec.CommandContext(t.Context(), os.Args[0], "--log-format="+format, "--kubeconfig="+kubeconfig)
			manager.Env = append(os.Environ(), "COUNTERSIGN_TEST_MANAGER=1")
			stderr, err := manager.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := manager.Start(); err != nil {
				t.Fatal(err)
			}
			said := ""
			for lines := bufio.NewScanner(stderr); said == "" && lines.Scan(); {
				if strings.Contains(lines.Text(), "said by the API server") {
					said = lines.Text()
				}
			}
			if !regexp.MustCompile(want).MatchString(said) {
				t.Errorf("client-go's line is %q, want %s", said, want)
			}
			_ = manager.Process.Kill() // it may have ended
			_ = manager.Wait()
		})
	}
}

// Without --use-pull-secrets nothing can read the Secrets of other namespaces: no part has a
// reader.
func TestPullSecretsAreOffByDefault(t *testing.T) {
	found := newPullSecrets(nil, flags.Options{})
	if found != nil || found.Keychain() != nil {
		t.Error("got a reader of pull secrets, want none")
	}
}
