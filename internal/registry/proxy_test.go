package registry

import (
	"net/http"
	"os"
	"os/exec"
	"testing"
)

// proxied has the test binary ask a server, as the manager would where a proxy is set in its
// environment, which is read once a process.
const proxied = "COUNTERSIGN_TEST_PROXIED"

// Signing servers are reached through the proxy of the environment, which OLM passes on.
func TestProxyOfTheEnvironmentIsUsed(t *testing.T) {
	if os.Getenv(proxied) != "" {
		c := newClient(t, Config{Server: "https://notary.example.com"})
		_, _ = c.Get(t.Context(), repository, file, 1<<20) // The proxy refuses.
		return
	}
	proxy := servePlain(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	cmd := exec.Command(os.Args[0], "-test.run=^TestProxyOfTheEnvironmentIsUsed$")
	cmd.Env = append(os.Environ(), proxied+"=yes", "HTTPS_PROXY="+proxy.URL, "NO_PROXY=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("asking through the proxy: %v\n%s", err, out)
	}
	requests := proxy.seen()
	if len(requests) == 0 {
		t.Fatal("the proxy was not asked")
	}
	if r := requests[0]; r.Method != http.MethodConnect || r.Host != "notary.example.com:443" {
		t.Errorf("the proxy was asked to %s %s", r.Method, r.Host)
	}
}
