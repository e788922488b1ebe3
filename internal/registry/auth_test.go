package registry

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/trust"
)

// tokens answers every token request with issued-token-<n>.
func tokens() http.HandlerFunc {
	var n atomic.Int64
	return func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"token":"issued-token-%d","expires_in":300}`, n.Add(1))
	}
}

// guarded answers 401 with a challenge, unless the request has a token that begins with
// issued-token.
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
		Server: s.URL, CABundle: string(ca.PEM), Username: "reader", Password: password,
		TokenServices: []string{token.Host},
	})
	for range 3 {
		if _, err := c.Get(t.Context(), repository, file, 100); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Get(t.Context(), "registry.example.com/acme/other", "/v2/x", 100); err != nil {
		t.Fatal(err)
	}
	requests := token.seen()
	if len(requests) != 2 {
		t.Fatalf("got %d token requests, want one for each of two repositories", len(requests))
	}
	q := requests[0].URL.Query()
	if q.Get("scope") != "repository:"+repository+":pull" || q.Get("service") != "notary" || q.Get("keep") != "this" {
		t.Errorf("got a token request with %v, want the client's own scope", q)
	}
	want := []string{
		"", "Bearer issued-token-1", "Bearer issued-token-1", "Bearer issued-token-1", "", "Bearer issued-token-2",
	}
	if got := s.authorizations(); !slices.Equal(got, want) {
		t.Errorf("got Authorization headers %q at the server, want %q", got, want)
	}
	if got := token.authorizations(); got[0] != basic() {
		t.Errorf("got Authorization header %q at the token service, want the credentials", got[0])
	}
}

// Threat: a token realm makes the client send credentials to another host, or lets the server read
// the response of an internal service.
func TestThreatTokenServiceOfAnotherHost(t *testing.T) {
	ca := newCA(t)
	with, without := Config{Username: "reader", Password: password}, Config{}
	tests := map[string]struct {
		cfg    Config
		listed func(r *recorder) []string
		want   []string // Authorization headers at the token service
	}{
		"listed": {
			with, func(r *recorder) []string { return []string{r.Host} }, []string{basic()},
		},
		"listed, anonymous":     {without, func(r *recorder) []string { return []string{r.Host} }, []string{""}},
		"not listed":            {with, func(*recorder) []string { return nil }, nil},
		"not listed, anonymous": {without, func(*recorder) []string { return nil }, nil},
		"another host listed":   {with, func(*recorder) []string { return []string{"auth.example.com"} }, nil},
		"same host with another port": {
			without, func(*recorder) []string { return []string{"localhost", "localhost:1"} }, nil,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			token := serve(t, ca, tokens())
			s := serve(t, ca, guarded(bearer(token.URL+"/token")))
			cfg := tt.cfg
			cfg.Server, cfg.CABundle, cfg.TokenServices = s.URL, string(ca.PEM), tt.listed(token)
			_, err := newClient(t, cfg).Get(t.Context(), repository, file, 100)
			if tt.want == nil {
				wantFault(t, err, v1alpha1.ReasonUnauthorized, s.URL,
					`list "`+token.Host+`" in spec.notary.tokenServices`)
			} else if err != nil {
				t.Fatal(err)
			}
			if got := token.authorizations(); !slices.Equal(got, tt.want) {
				t.Errorf("got Authorization headers %q at the token service, want %q", got, tt.want)
			}
			for _, got := range s.authorizations() {
				if tt.want == nil && got != "" {
					t.Errorf("got Authorization headers %q at the server, want none", got)
				}
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
			t.Errorf("got Authorization headers %q at the server", got)
		}
	})
}

// Threat: a server adds a scope to the realm, so that the token grants more than the client needs.
func TestThreatScopeIsTheClientsOwn(t *testing.T) {
	ca := newCA(t)
	token := serve(t, ca, tokens())
	s := serve(t, ca, guarded(bearer(token.URL+"/token?keep=this&scope=repository:evil/other:push,pull&service=evil")))
	c := newClient(t, Config{
		Server: s.URL, CABundle: string(ca.PEM), Username: "reader", Password: password,
		TokenServices: []string{token.Host},
	})
	for _, tt := range []struct{ repository, want string }{
		{"", ""}, {repository, "repository:" + repository + ":pull"}, {catalog, "registry:catalog:*"},
	} {
		before := len(token.seen())
		if _, err := c.Get(t.Context(), tt.repository, file, 100); err != nil {
			t.Fatal(err)
		}
		requests := token.seen()[before:]
		if len(requests) != 1 {
			t.Fatalf("got %d token requests, want one", len(requests))
		}
		q := requests[0].URL.Query()
		if got := strings.Join(q["scope"], " "); got != tt.want || strings.Join(q["service"], " ") != "notary" ||
			q.Get("keep") != "this" {
			t.Errorf("repository %q: got a token request with %v, want the scope %q and the service of the challenge",
				tt.repository, q, tt.want)
		}
	}
}

// Threat: the spelling of a host looks like the server's or a listed host, but the client would
// connect to another one.
func TestThreatHostsThatLookAlike(t *testing.T) {
	const own = "https://notary.kiwi.example"
	same := []string{
		own, own + ":443", "https://NOTARY.kiwi.EXAMPLE/x", "https://notary.kiwi.example.",
		"https://listed.example:8443",
	}
	other := []string{
		"https://notary.kiwi.example:8443", "https://kiwi.example", "https://x.notary.kiwi.example",
		"https://notary.kiwi.example..", "https://listed.example",
		"https://notary.k\u0130wi.example", "https://notary.\u212aiwi.example", "https://\uff4eotary.kiwi.example",
		"https://xn--notary.kiwi.example",
		"https://notary.kiwi.example%2fx.example", "https://notary.kiwi.example@evil.example",
		"https://evil.example#@notary.kiwi.example",
		"https://evil.example?notary.kiwi.example", "https://[::1]", "https://[::1%25lo]", "https://127.1",
		"https://notary.kiwi.example\\.evil.example", "//evil.example", "evil.example",
	}
	c := newClient(t, Config{Server: own, TokenServices: []string{"listed.example:8443"}})
	for _, realm := range same {
		if _, err := c.tokenServiceURL(challenge{"bearer", map[string]string{"realm": realm}}); err != nil {
			t.Errorf("%q: %v", realm, err)
		}
	}
	from, err := url.Parse(own)
	if err != nil {
		t.Fatal(err)
	}
	for _, realm := range other {
		if u, err := c.tokenServiceURL(challenge{"bearer", map[string]string{"realm": realm}}); err == nil {
			t.Errorf("got %q accepted as a token service, at %s", realm, u.Host)
		}
		to, err := from.Parse(realm) // as net/http reads the address of a redirect
		if err != nil || realm == "evil.example" {
			continue
		}
		if err := checkRedirect(&http.Request{URL: to}, []*http.Request{{URL: from}}); err == nil {
			t.Errorf("got a redirect to %q followed, to %s", realm, to.Host)
		}
	}
	v6 := newClient(t, Config{Server: "https://[2001:db8::1]:4443", TokenServices: []string{"[2001:db8::2]:5001"}})
	for realm, allowed := range map[string]bool{
		"https://[2001:db8::1]:4443/token": true, "https://[2001:DB8::2]:5001": true, "https://[2001:db8::2]": false,
		"https://[2001:db8::1%25eth0]:4443": false,
	} {
		if _, err := v6.tokenServiceURL(
			challenge{"bearer", map[string]string{"realm": realm}}); (err == nil) != allowed {
			t.Errorf("%q: got %v, want allowed %t", realm, err, allowed)
		}
	}
}

// Threat: a redirect makes the client send credentials to another host.
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
		t.Errorf("got %d requests at the other host: %q", n, thief.authorizations())
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
		"plain http": {bearer(plain.URL), v1alpha1.ReasonUnexpectedAnswer, "not encrypted"},
		"metadata service": {
			bearer("https://169.254.169.254/latest/meta-data"), v1alpha1.ReasonAddressRefused, "169.254.169.254",
		},
		"not listed": {
			bearer("https://auth.example.com/token"), v1alpha1.ReasonUnauthorized, `list "auth.example.com" in`,
		},
		"not listed, a port": {
			bearer("https://Auth.example.com.:8443"), v1alpha1.ReasonUnauthorized, `list "auth.example.com:8443" in`,
		},
		"endless host": {
			bearer("https://" + strings.Repeat("a", 1000)), v1alpha1.ReasonUnexpectedAnswer, "no usable token service",
		},
		"no realm":         {`Bearer service="notary"`, v1alpha1.ReasonUnexpectedAnswer, "no usable token service"},
		"unreadable realm": {bearer("https://%zz"), v1alpha1.ReasonUnexpectedAnswer, "no usable token service"},
		"realm with a user": {
			bearer("https://user@auth.example.com"), v1alpha1.ReasonUnexpectedAnswer, "no usable token service",
		},
		"file": {
			bearer("file:///etc/passwd"), v1alpha1.ReasonUnexpectedAnswer, "no usable token service",
		},
		"unknown scheme":      {`Negotiate`, v1alpha1.ReasonUnauthorized, "a way other than"},
		"unreadable":          {`"`, v1alpha1.ReasonUnauthorized, "a way other than"},
		"basic, not accepted": {`Basic realm="x"`, v1alpha1.ReasonUnauthorized, "reader"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, ca, guarded(tt.challenge))
			c := newClient(t, Config{
				Server: s.URL, CABundle: string(ca.PEM), Username: "reader", Password: password,
				TokenServices: []string{plain.Host, "169.254.169.254"},
			})
			_, err := c.Get(t.Context(), repository, file, 100)
			wantFault(t, err, tt.reason, tt.words)
		})
	}
	if n := len(plain.seen()); n != 0 {
		t.Errorf("got %d unencrypted token requests: %q", n, plain.authorizations())
	}
}

func TestTokenAnswers(t *testing.T) {
	ca := newCA(t)
	tests := map[string]struct {
		handler http.HandlerFunc
		reason  string // empty: the client uses the token
		words   string
	}{
		"token":        {answer(200, "application/json", `{"token":"issued-token"}`), "", ""},
		"access_token": {answer(200, "application/json", `{"access_token":"issued-token"}`), "", ""},
		"none":         {answer(200, "application/json", `{}`), v1alpha1.ReasonUnexpectedAnswer, "no token"},
		"of 16 KiB": {
			answer(200, "application/json", `{"token":"issued-token`+strings.Repeat("a", 16<<10-12)+`"}`), "", "",
		},
		"longer": {
			answer(200, "application/json", `{"token":"issued-token`+strings.Repeat("a", 16<<10-11)+`"}`),
			v1alpha1.ReasonUnexpectedAnswer, "no token of at most",
		},
		"64 KiB beside": {
			answer(200, "application/json", `{"token":"issued-token","x":"`+strings.Repeat("a", 64<<10)+`"}`),
			v1alpha1.ReasonTooLarge, "",
		},
		"with a newline": {
			answer(200, "application/json", `{"token":"issued-token\r\nX-Evil: 1"}`), v1alpha1.ReasonUnexpectedAnswer,
			"no token",
		},
		"not JSON": {answer(200, "text/html", `<html>`), v1alpha1.ReasonUnexpectedAnswer, "no token"},
		"refused": {
			answer(401, "application/json", `{"details":"bad password"}`), v1alpha1.ReasonUnauthorized,
			`refused a token (status 401) to user "reader"; check the user name and the password in the Secret of credentialsSecretRef, and what`,
		},
		"no right": {
			answer(403, "application/json", `{}`), v1alpha1.ReasonUnauthorized,
			`refused a token (status 403) to user "reader"; check what this user may read`,
		},
		"bad request": {
			answer(400, "application/json", `{}`), v1alpha1.ReasonUnauthorized,
			`refused a token (status 400) to user "reader"; look at its log, and whether it is the service of this server`,
		},
		"broken":       {answer(500, "", ""), v1alpha1.ReasonServerError, "500"},
		"endless":      {endless, v1alpha1.ReasonTooLarge, ""},
		"not accepted": {answer(200, "application/json", `{"token":"another"}`), v1alpha1.ReasonUnauthorized, "401"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			token := serve(t, ca, tt.handler)
			s := serve(t, ca, guarded(bearer(token.URL)))
			c := newClient(t, Config{
				Server: s.URL, CABundle: string(ca.PEM), Username: "reader", Password: password,
				TokenServices: []string{token.Host},
			})
			_, err := c.Get(t.Context(), repository, file, 100)
			if tt.reason != "" {
				wantFault(t, err, tt.reason, tt.words)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// If a token service requires a password and none is configured, the fault says so.
func TestTokenServiceThatRequiresAPassword(t *testing.T) {
	ca := newCA(t)
	token := serve(t, ca, answer(401, "application/json", `{}`))
	s := serve(t, ca, guarded(bearer(token.URL)))
	_, err := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM), TokenServices: []string{token.Host}}).Get(
		t.Context(), repository, file, 100)
	wantFault(t, err, v1alpha1.ReasonUnauthorized,
		"refused a token (status 401) without credentials; set credentialsSecretRef")
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
	c := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM), TokenServices: []string{token.Host}})
	for n := range int64(2) {
		accepted.Store(n + 1)
		if _, err := c.Get(t.Context(), repository, file, 100); err != nil {
			t.Fatalf("with token %d accepted: got %v, want none", n+1, err)
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
			t.Errorf("%s: got a lifetime of %s, want %s", body, got, want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Server: "https://notary.example.com"})
		c.authorization.Add(c.authorizationKey(repository), "Bearer t", 50*time.Second)
		<-time.After(49 * time.Second) // of the synctest clock
		if c.cachedAuthorization(repository) == "" {
			t.Error("got no cached token before its expiry")
		}
		<-time.After(2 * time.Second)
		if c.cachedAuthorization(repository) != "" {
			t.Error("got a cached token after its expiry")
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
		auth   *notaryserver.Auth
		client func(n *notaryserver.Server, c *Config)
		reason string // empty: allowed in
	}{
		"open": {nil, func(*notaryserver.Server, *Config) {}, ""},
		"anonymous pull": {&notaryserver.Auth{Username: "reader", Password: password, AnonymousPull: true},
			func(n *notaryserver.Server, c *Config) {
				c.TokenServices = []string{n.TokenService}
			}, ""},
		"anonymous pull, not listed": {
			&notaryserver.Auth{Username: "reader", Password: password, AnonymousPull: true},
			func(*notaryserver.Server, *Config) {}, v1alpha1.ReasonUnauthorized,
		},
		"credentials": {&notaryserver.Auth{Username: "reader", Password: password},
			func(n *notaryserver.Server, c *Config) {
				c.Username, c.Password, c.TokenServices = "reader", password, []string{n.TokenService}
			}, ""},
		"no credentials": {&notaryserver.Auth{Username: "reader", Password: password},
			func(n *notaryserver.Server, c *Config) {
				c.TokenServices = []string{n.TokenService}
			}, v1alpha1.ReasonUnauthorized},
		"wrong password": {&notaryserver.Auth{Username: "reader", Password: password},
			func(n *notaryserver.Server, c *Config) {
				c.Username, c.Password, c.TokenServices = "reader", "wrong", []string{n.TokenService}
			}, v1alpha1.ReasonUnauthorized},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := notaryserver.Run(t, notaryserver.Options{Auth: tt.auth})
			if err := notaryserver.RunClient(t, n).Init(t.Context(), repository); err != nil {
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
			if _, err := c.Get(t.Context(), repository+"/none", "/v2/"+repository+"/none/_trust/tuf/root.json",
				1<<20); err == nil || !strings.HasSuffix(err.Error(), trust.ErrNotFound.Error()) {
				t.Errorf("a missing repository: got %v", err)
			}
		})
	}
}
