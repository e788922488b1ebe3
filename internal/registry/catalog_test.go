package registry

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
)

func TestCatalogScope(t *testing.T) {
	ca := newCA(t)
	token := serve(t, ca, tokens())
	s := serve(t, ca, guarded(bearer(token.URL+"/token")))
	c := newClient(t, Config{
		Server: s.URL, CABundle: string(ca.PEM), Username: "reader", Password: password,
		TokenServices: []string{token.Host},
	})
	if _, err := c.GetCatalog(t.Context(), "/v2/_trust/changefeed", url.Values{"change_id": {"a&b=c"}},
		100); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), repository, file, 100); err != nil {
		t.Fatal(err)
	}
	requests := token.seen()
	if len(requests) != 2 || requests[0].URL.Query().Get("scope") != "registry:catalog:*" ||
		requests[1].URL.Query().Get("scope") != "repository:"+repository+":pull" {
		t.Errorf("got token requests with %v, want one for the catalog and one for the repository", requests)
	}
	if got := s.seen()[0].URL; got.Path != "/v2/_trust/changefeed" || got.Query().Get("change_id") != "a&b=c" ||
		len(got.Query()) != 1 {
		t.Errorf("got request %s, want the given query", got)
	}
	if _, err := c.GetCatalog(t.Context(), "/v2/../x", nil, 100); err == nil {
		t.Error("got a request for a path that is not clean")
	}
}

// A real Notary server lists publications only to an account with access to the catalog.
func TestCatalogOfRealNotaryServer(t *testing.T) {
	tests := map[string]struct {
		auth   *notaryserver.Auth
		client func(n *notaryserver.Server, c *Config)
		reason string // empty: allowed in
	}{
		"open": {nil, func(*notaryserver.Server, *Config) {}, ""},
		"account that may all": {&notaryserver.Auth{Username: "reader", Password: password},
			func(n *notaryserver.Server, c *Config) {
				c.Username, c.Password, c.TokenServices = "reader", password, []string{n.TokenService}
			}, ""},
		"account that may pull": {
			&notaryserver.Auth{Username: "reader", Password: password, AnonymousPull: true},
			func(n *notaryserver.Server, c *Config) { c.TokenServices = []string{n.TokenService} },
			v1alpha1.ReasonUnauthorized,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := notaryserver.Run(t, notaryserver.Options{Auth: tt.auth})
			if err := notaryserver.RunClient(t, n).Init(t.Context(), repository); err != nil {
				t.Fatal(err)
			}
			cfg := Config{Server: n.URL, CABundle: string(n.CA.PEM)}
			tt.client(n, &cfg)
			body, err := newClient(t, cfg).GetCatalog(t.Context(), "/v2/_trust/changefeed",
				url.Values{"change_id": {"-1"}, "records": {"1"}}, 1<<20)
			if tt.reason != "" {
				wantFault(t, err, tt.reason)
				return
			}
			if err != nil || !strings.Contains(string(body), repository) {
				t.Errorf("got %q, %v; want the published repository listed", body, err)
			}
		})
	}
	t.Run("server without a list", func(t *testing.T) {
		ca := newCA(t)
		s := serve(t, ca, answer(http.StatusMethodNotAllowed, "text/plain", "no"))
		_, err := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM)}).GetCatalog(t.Context(),
			"/v2/_trust/changefeed", nil, 100)
		wantFault(t, err, v1alpha1.ReasonServerError)
	})
}
