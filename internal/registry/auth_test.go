package registry

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv"
	"github.com/countersign-dev/countersign/internal/trust"
)

// tokens answers every token request with issued-token-<n>.
func tokens() http.HandlerFunc {
	var n atomic.Int64
	return func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"token":"issued-token-%d","expires_in":300}`, n.Add(1))
	}
}

// guarded answers 401 with a challenge unless the request carries a token that begins with issued-token.
func guarded(challenge string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer issued-token") {
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{}`))
	}
}

func bearer(realm string) string {
	return `Bearer realm="` + realm + `",service="notary",scope="repository:evil/other:push,pull"`
}

func basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte("reader:"+password))
}

func TestTokenFlow(t *testing.T) {
	ca := newCA(t)
	token := serve(t, ca, tokens())
	s := serve(t, ca, guarded(bearer(token.URL+"/token?keep=this")))
	c := newClient(t, Config{
		Server: s.URL, CABundle: string(ca.PEM), Username: "reader", Password: password, TokenServices: []string{token.Host},
	})
	for range 3 {
		if _, err := c.Get(t.Context(), repository, file, 100); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Get(t.Context(), "registry.example.com/acme/other", "/v2/x", 100); err != nil {
		t.Fatal(err)
	}
	asked := token.seen()
	if len(asked) != 2 {
		t.Fatalf("%d tokens were asked for, want one for each of two repositories", len(asked))
	}
	q := asked[0].URL.Query()
	if q.Get("scope") != "repository:"+repository+":pull" || q.Get("service") != "notary" || q.Get("keep") != "this" {
		t.Errorf("asked for a token with %v, want the scope to be the client's own", q)
	}
	want := []string{"", "Bearer issued-token-1", "Bearer issued-token-1", "Bearer issued-token-1", "", "Bearer issued-token-2"}
	if got := s.authorizations(); !slices.Equal(got, want) {
		t.Errorf("server saw %q, want %q", got, want)
	}
	if got := token.authorizations(); got[0] != basic() {
		t.Errorf("token service saw %q, want the credentials", got[0])
	}
}

// Threat: credentials sent to another host, by token realm.
func TestCredentialsGoOnlyToHostsTheyAreFor(t *testing.T) {
	ca := newCA(t)
	tests := map[string]struct {
		listed func(token *recorder) []string
		want   string
	}{
		"listed":                      {func(r *recorder) []string { return []string{r.Host} }, basic()},
		"not listed":                  {func(*recorder) []string { return nil }, ""},
		"another host listed":         {func(*recorder) []string { return []string{"auth.example.com"} }, ""},
		"same host with another port": {func(*recorder) []string { return []string{"localhost", "localhost:1"} }, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			token := serve(t, ca, tokens())
			s := serve(t, ca, guarded(bearer(token.URL+"/token")))
			c := newClient(t, Config{
				Server: s.URL, CABundle: string(ca.PEM), Username: "reader", Password: password, TokenServices: tt.listed(token),
			})
			if _, err := c.Get(t.Context(), repository, file, 100); err != nil {
				t.Fatal(err)
			}
			if got := token.authorizations(); !slices.Equal(got, []string{tt.want}) {
				t.Errorf("token service saw %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("the server is its own token service", func(t *testing.T) {
		issue := tokens()
		var s *recorder
		s = serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				issue(w, r)
				return
			}
			guarded(bearer(s.URL+"/token"))(w, r)
		})
		c := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM), Username: "reader", Password: password})
		if _, err := c.Get(t.Context(), repository, file, 100); err != nil {
			t.Fatal(err)
		}
		if got := s.authorizations(); !slices.Equal(got, []string{"", basic(), "Bearer issued-token-1"}) {
			t.Errorf("server saw %q", got)
		}
	})
}

// Threat: credentials sent to another host, by redirect.
func TestAuthorizationIsNotRedirected(t *testing.T) {
	ca := newCA(t)
	thief := serve(t, ca, answer(http.StatusOK, "application/json", `{"token":"issued-token"}`))
	away := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, thief.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}
	cfg := Config{CABundle: string(ca.PEM), Username: "reader", Password: password}

	t.Run("with a token", func(t *testing.T) {
		token := serve(t, ca, tokens())
		s := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				away(w, r)
				return
			}
			guarded(bearer(token.URL))(w, r)
		})
		cfg := cfg
		cfg.Server, cfg.TokenServices = s.URL, []string{token.Host}
		_, err := newClient(t, cfg).Get(t.Context(), repository, file, 100)
		wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, "redirected", thief.Host)
	})
	t.Run("with a password", func(t *testing.T) {
		s := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				away(w, r)
				return
			}
			guarded(`Basic realm="x"`)(w, r)
		})
		cfg := cfg
		cfg.Server = s.URL
		_, err := newClient(t, cfg).Get(t.Context(), repository, file, 100)
		wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, "redirected", thief.Host)
	})
	t.Run("by the token service", func(t *testing.T) {
		token := serve(t, ca, away)
		s := serve(t, ca, guarded(bearer(token.URL)))
		cfg := cfg
		cfg.Server, cfg.TokenServices = s.URL, []string{token.Host}
		_, err := newClient(t, cfg).Get(t.Context(), repository, file, 100)
		wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, "redirected", thief.Host)
	})
	if n := len(thief.seen()); n != 0 {
		t.Errorf("%d requests reached the other host: %q", n, thief.authorizations())
	}
}

func TestRedirectOnTheSameHostIsFollowed(t *testing.T) {
	ca := newCA(t)
	s := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == file {
			http.Redirect(w, r, "/moved", http.StatusFound)
			return
		}
		_, _ = w.Write([]byte(r.URL.Path))
	})
	body, err := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM)}).Get(t.Context(), repository, file, 100)
	if err != nil || string(body) != "/moved" {
		t.Errorf("got %q, %v", body, err)
	}
}

func TestTokenServicesThatAreNotUsed(t *testing.T) {
	ca := newCA(t)
	plain := servePlain(t, tokens())
	tests := map[string]struct {
		challenge string
		reason    string
		words     string
	}{
		"plain http":          {bearer(plain.URL), v1alpha1.ReasonUnexpectedAnswer, "not encrypted"},
		"metadata service":    {bearer("https://169.254.169.254/latest/meta-data"), v1alpha1.ReasonAddressRefused, "169.254.169.254"},
		"no realm":            {`Bearer service="notary"`, v1alpha1.ReasonUnexpectedAnswer, "no usable token service"},
		"unreadable realm":    {bearer("https://%zz"), v1alpha1.ReasonUnexpectedAnswer, "no usable token service"},
		"realm with a user":   {bearer("https://user@auth.example.com"), v1alpha1.ReasonUnexpectedAnswer, "no usable token service"},
		"file":                {bearer("file:///etc/passwd"), v1alpha1.ReasonUnexpectedAnswer, "no usable token service"},
		"unknown scheme":      {`Negotiate`, v1alpha1.ReasonUnauthorized, "a way other than"},
		"unreadable":          {`"`, v1alpha1.ReasonUnauthorized, "a way other than"},
		"basic, not accepted": {`Basic realm="x"`, v1alpha1.ReasonUnauthorized, "reader"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, ca, guarded(tt.challenge))
			c := newClient(t, Config{
				Server: s.URL, CABundle: string(ca.PEM), Username: "reader", Password: password, TokenServices: []string{plain.Host},
			})
			_, err := c.Get(t.Context(), repository, file, 100)
			wantFault(t, err, tt.reason, tt.words)
		})
	}
	if n := len(plain.seen()); n != 0 {
		t.Errorf("%d token requests went out unencrypted: %q", n, plain.authorizations())
	}
}

func TestTokenAnswers(t *testing.T) {
	ca := newCA(t)
	tests := map[string]struct {
		handler http.HandlerFunc
		reason  string // empty: the token is used
		words   string
	}{
		"token":          {answer(200, "application/json", `{"token":"issued-token"}`), "", ""},
		"access_token":   {answer(200, "application/json", `{"access_token":"issued-token"}`), "", ""},
		"none":           {answer(200, "application/json", `{}`), v1alpha1.ReasonUnexpectedAnswer, "no token"},
		"with a newline": {answer(200, "application/json", `{"token":"issued-token\r\nX-Evil: 1"}`), v1alpha1.ReasonUnexpectedAnswer, "no token"},
		"not JSON":       {answer(200, "text/html", `<html>`), v1alpha1.ReasonUnexpectedAnswer, "no token"},
		"refused":        {answer(401, "application/json", `{"details":"bad password"}`), v1alpha1.ReasonUnauthorized, `"reader"`},
		"broken":         {answer(500, "", ""), v1alpha1.ReasonServerError, "500"},
		"endless":        {endless, v1alpha1.ReasonTooLarge, ""},
		"not accepted":   {answer(200, "application/json", `{"token":"another"}`), v1alpha1.ReasonUnauthorized, "401"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			token := serve(t, ca, tt.handler)
			s := serve(t, ca, guarded(bearer(token.URL)))
			c := newClient(t, Config{
				Server: s.URL, CABundle: string(ca.PEM), Username: "reader", Password: password, TokenServices: []string{token.Host},
			})
			_, err := c.Get(t.Context(), repository, file, 100)
			if tt.reason != "" {
				wantFault(t, err, tt.reason, tt.words)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("refused without credentials for it", func(t *testing.T) {
		token := serve(t, ca, answer(401, "", ""))
		s := serve(t, ca, guarded(bearer(token.URL)))
		c := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM), Username: "reader", Password: password})
		_, err := c.Get(t.Context(), repository, file, 100)
		wantFault(t, err, v1alpha1.ReasonUnauthorized, "list "+token.Host+" in tokenServices")
	})
}

func TestRefusedTokenIsAskedForAgain(t *testing.T) {
	ca := newCA(t)
	token := serve(t, ca, tokens())
	var accepted atomic.Int64
	accepted.Store(1)
	s := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer issued-token-"+strconv.FormatInt(accepted.Load(), 10) {
			w.Header().Set("WWW-Authenticate", bearer(token.URL))
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	c := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM)})
	for n := range int64(2) {
		accepted.Store(n + 1)
		if _, err := c.Get(t.Context(), repository, file, 100); err != nil {
			t.Fatalf("with token %d accepted: %v", n+1, err)
		}
	}
}

func TestTokenLife(t *testing.T) {
	tests := map[string]time.Duration{
		`{"token":"t","expires_in":300}`:                 290 * time.Second,
		`{"token":"t","expires_in":4}`:                   2 * time.Second,
		`{"token":"t"}`:                                  50 * time.Second,
		`{"token":"t","expires_in":-5}`:                  50 * time.Second,
		`{"token":"t","expires_in":9223372036854775807}`: time.Hour - 10*time.Second,
	}
	for body, want := range tests {
		if _, got, ok := readToken([]byte(body)); !ok || got != want {
			t.Errorf("%s: kept for %s, want %s", body, got, want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Server: "https://notary.example.com"})
		c.authorization.Add(repository, "Bearer t", 50*time.Second)
		<-time.After(49 * time.Second) // of the bubble's clock
		if c.held(repository) == "" {
			t.Error("token is gone before its time")
		}
		<-time.After(2 * time.Second)
		if c.held(repository) != "" {
			t.Error("token is kept past its time")
		}
	})
}

func TestBasicIsSentOnlyOverTLSAndOnlyWhenAsked(t *testing.T) {
	ca := newCA(t)
	s := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != basic() {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	c := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM), Username: "reader", Password: password})
	for range 2 {
		if _, err := c.Get(t.Context(), repository, file, 100); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.authorizations(); !slices.Equal(got, []string{"", basic(), basic()}) {
		t.Errorf("server saw %q", got)
	}
	_, err := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM)}).Get(t.Context(), repository, file, 100)
	wantFault(t, err, v1alpha1.ReasonUnauthorized, "credentialsSecretRef")
}

func TestProbeTellsAWrongPassword(t *testing.T) {
	ca := newCA(t)
	s := serve(t, ca, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED"}]}`))
	})
	c := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM), Username: "reader", Password: password})
	_, err := c.Get(t.Context(), "", "/v2/", 100)
	wantFault(t, err, v1alpha1.ReasonUnauthorized, "reader")
}

func TestRealNotaryServer(t *testing.T) {
	tests := map[string]struct {
		auth   *testenv.NotaryAuth
		client func(n *testenv.Notary, c *Config)
		reason string // empty: allowed in
	}{
		"open":           {nil, func(*testenv.Notary, *Config) {}, ""},
		"anonymous pull": {&testenv.NotaryAuth{Username: "reader", Password: password, AnonymousPull: true}, func(*testenv.Notary, *Config) {}, ""},
		"credentials": {&testenv.NotaryAuth{Username: "reader", Password: password}, func(n *testenv.Notary, c *Config) {
			c.Username, c.Password, c.TokenServices = "reader", password, []string{n.TokenService}
		}, ""},
		"no credentials": {&testenv.NotaryAuth{Username: "reader", Password: password}, func(*testenv.Notary, *Config) {}, v1alpha1.ReasonUnauthorized},
		"wrong password": {&testenv.NotaryAuth{Username: "reader", Password: password}, func(n *testenv.Notary, c *Config) {
			c.Username, c.Password, c.TokenServices = "reader", "wrong", []string{n.TokenService}
		}, v1alpha1.ReasonUnauthorized},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := testenv.RunNotary(t, testenv.NotaryOptions{Auth: tt.auth})
			if err := testenv.RunClient(t, n).Init(t.Context(), repository); err != nil {
				t.Fatal(err)
			}
			cfg := Config{Server: n.URL, CABundle: string(n.CA.PEM)}
			tt.client(n, &cfg)
			c := newClient(t, cfg)
			body, err := c.Get(t.Context(), repository, file, 1<<20)
			if tt.reason != "" {
				wantFault(t, err, tt.reason)
				return
			}
			if err != nil || !strings.Contains(string(body), `"_type":"Root"`) {
				t.Fatalf("got %q, %v", body, err)
			}
			if _, err := c.Get(t.Context(), "", "/v2/", 1000); err != nil {
				t.Errorf("probe: %v", err)
			}
			if _, err := c.Get(t.Context(), repository+"/none", "/v2/"+repository+"/none/_trust/tuf/root.json", 1<<20); err == nil || !strings.HasSuffix(err.Error(), trust.ErrNotFound.Error()) {
				t.Errorf("a repository that is not there: %v", err)
			}
		})
	}
}
