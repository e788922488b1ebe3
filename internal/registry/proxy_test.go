package registry

import (
	"net/http"
	"os"
	"os/exec"
	"testing"
)

// proxied is set in a second process of the test binary, which sends a request like the manager
// with a proxy in its environment. net/http reads the environment once per process.
const proxied = "COUNTERSIGN_TEST_PROXIED"

// The client uses the proxy of the environment, which OLM sets.
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
		t.Fatalf("sending a request through the proxy: %v\n%s", err, out)
	}
	requests := proxy.seen()
	if len(requests) == 0 {
		t.Fatal("got no request at the proxy")
	}
	if r := requests[0]; r.Method != http.MethodConnect || r.Host != "notary.example.com:443" {
		t.Errorf("got request %s %s at the proxy", r.Method, r.Host)
	}
}
