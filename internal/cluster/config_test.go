package cluster

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// The manager connects to the API server through the proxy of the kubeconfig only. The proxy of the
// environment is for signing servers.
func TestAPIServerIsReachedDirectly(t *testing.T) {
	for name, tt := range map[string]struct{ setting, want string }{
		"no proxy named": {"", ""},
		"a proxy named":  {"proxy-url: http://proxy.example.com:3128", "http://proxy.example.com:3128"},
	} {
		file := filepath.Join(t.TempDir(), "kubeconfig")
		text := fmt.Sprintf(
			`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c, cluster: {server: "https://api.example.com", %s}}]}`,
			tt.setting)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for how, flag := range map[string]string{"by flag": file, "by environment": ""} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Setenv("KUBECONFIG", file)
				config, err := Config(flag)
				if err != nil {
					t.Fatal(err)
				}
				if config.Proxy == nil {
					t.Fatal("the config has no Proxy function, so it uses the proxy of the environment")
				}
				request, err := http.NewRequest(http.MethodGet, config.Host, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				got := ""
				if u, err := config.Proxy(request); err != nil {
					t.Fatal(err)
				} else if u != nil {
					got = u.String()
				}
				if got != tt.want {
					t.Errorf("the proxy is %q, want %q", got, tt.want)
				}
			})
		}
	}
}
