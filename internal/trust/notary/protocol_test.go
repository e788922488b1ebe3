package notary

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/testenv/registryserver"
	"github.com/countersign-dev/countersign/internal/trust"
)

// over returns a Root for a server, with the registry client and the pin of the repository.
func (r *realRepository) over(server, ca string) *Root {
	r.t.Helper()
	cfg := registry.Config{Server: server, CABundle: ca, PlainHTTP: true}
	if r.server.TokenService != "" {
		cfg.TokenServices = []string{r.server.TokenService}
	}
	get, err := registry.New(cfg)
	r.do(err)
	root, err := New(Config{Name: "real", RootKeyIDs: []string{r.pin().KeyID}}, get)
	r.do(err)
	return root
}

// front returns a proxy in front of a Notary server. It forwards the paths that route rewrites, and
// answers others with a web page.
func front(t *testing.T, n *notaryserver.Server, route func(path string) string) string {
	t.Helper()
	target, err := url.Parse(n.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: n.CA.Pool(), MinVersion: tls.VersionTLS12}}
	proxy.Transport = transport
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path = route(r.URL.Path); r.URL.Path == "" {
			answer(http.StatusNotFound, "text/html", "<html>Not here</html>")(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { s.Close(); transport.CloseIdleConnections() })
	return s.URL
}

// belowTrust is the route of a proxy that serves the server under /trust.
func belowTrust(path string) string {
	if rest, ok := strings.CutPrefix(path, "/trust/"); ok {
		return "/" + rest
	}
	return ""
}

// trustDataAlone is the route of a proxy that forwards only trust data.
func trustDataAlone(path string) string {
	if strings.Contains(path, "/_trust/") {
		return path
	}
	return ""
}

func answer(status int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// imageRegistry answers like an image registry, with its own error for trust data.
func imageRegistry(about string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			answer(http.StatusOK, "application/json", "{}")(w, r)
			return
		}
		answer(http.StatusNotFound, "application/json", about)(w, r)
	}
}

// If another server than Notary answers under the URL, or Notary under a wrong path, missing trust
// data is no verdict. The probe reports it before the first image.
func TestThreatServerThatIsNotTheSigningServer(t *testing.T) {
	r := newReal(t, notaryserver.Options{})
	r.sign("one", "targets/ci", "targets/qa")
	images := registryserver.Run(t)
	page := answer(http.StatusNotFound, "text/html", "<html>Not here</html>")
	notFoundText := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			answer(http.StatusOK, "application/json", "{}")(w, r)
			return
		}
		http.NotFound(w, r)
	}
	halfNotary := func(w http.ResponseWriter, r *http.Request) {
		code := "NAME_UNKNOWN"
		if strings.HasSuffix(r.URL.Path, "/root.json") {
			code = codeNotFound
		}
		imageRegistry(`{"errors":[{"code":"`+code+`"}]}`)(w, r)
	}
	serve := func(h http.HandlerFunc) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL
	}
	ca := string(r.server.CA.PEM)
	for name, c := range map[string]struct{ server, ca, words string }{
		"a path with /v2":          {r.server.URL + "/v2/", ca, "without /v2"},
		"a path that is not there": {r.server.URL + "/notary", ca, "without a path"},
		"a registry":               {"https://" + images.Host, string(images.CA.PEM), "no Notary server"},
		"a registry's other 404":   {server: serve(notFoundText), words: "image registry"},
		"NAME_UNKNOWN": {
			server: serve(imageRegistry(`{"errors":[{"code":"NAME_UNKNOWN"}]}`)), words: "NAME_UNKNOWN",
		},
		"NOT_FOUND": {
			server: serve(imageRegistry(`{"errors":[{"code":"NOT_FOUND"}]}`)), words: "NOT_FOUND",
		},
		"a proxy's page":            {server: serve(page), words: "web page"},
		"a proxy with another path": {server: front(t, r.server, belowTrust), words: "web page"},
	} {
		t.Run(name, func(t *testing.T) {
			root := r.over(c.server, c.ca)
			for _, gun := range []string{r.gun, "registry.example.com/acme/never"} {
				ev, err := root.Fetch(t.Context(), of(gun), nil)
				wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, gun)
				if ev != nil {
					t.Errorf("%s: got verdict %v, want a fault", gun, ev)
				}
			}
			err := root.Probe(t.Context(), "")
			wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, c.words)
			t.Log(err)
		})
	}
	t.Run("the protocol's words for one file alone", func(t *testing.T) {
		ev, err := r.over(serve(halfNotary), "").Fetch(t.Context(), of(r.gun), nil)
		wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, "NAME_UNKNOWN")
		if ev != nil {
			t.Errorf("got verdict %v, want a fault", ev)
		}
	})
}

// After a server has proven to be a Notary server, missing trust data is a verdict. The proof is
// its answer to the probe or a verified repository, even if /v2/ leads to another server.
func TestNotFoundIsAVerdict(t *testing.T) {
	const never = "registry.example.com/acme/never"
	isUnsigned := func(t *testing.T, root *Root) {
		t.Helper()
		ev, err := root.Fetch(t.Context(), of(never), nil)
		if _, ok := ev.(trust.Unsigned); err != nil || !ok {
			t.Errorf("got %v, %v, want the verdict that there are no signatures", ev, err)
		}
	}
	r := newReal(t, notaryserver.Options{Auth: &notaryserver.Auth{Username: "me", Password: "pw", AnonymousPull: true}})
	r.sign("one", "targets/ci")
	ca := string(r.server.CA.PEM)
	for name, server := range map[string]string{
		"server": r.server.URL, "final slash": r.server.URL + "/",
		"below a path": front(t, r.server, belowTrust) + "/trust",
	} {
		t.Run(name, func(t *testing.T) {
			isUnsigned(t, r.over(server, ca))
			if err := r.over(server, ca).Probe(t.Context(), ""); err != nil {
				t.Errorf("Probe: %v", err)
			}
		})
	}
	t.Run("trust data alone", func(t *testing.T) {
		root := r.over(front(t, r.server, trustDataAlone), ca)
		_, err := root.Fetch(t.Context(), of(never), nil)
		wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, never)
		ev, err := root.Fetch(t.Context(), of(r.gun), nil)
		r.do(err)
		wantSigned(t, ev, "v1", "ci one")
		isUnsigned(t, root)
	})
	t.Run("another answer later", func(t *testing.T) {
		v := newVirtual(t)
		root := v.root(v.config())
		if err := root.Probe(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		isUnsigned(t, root)
		v.serve["/v2/"] = notFound
		wantFault(t, root.Probe(t.Context(), ""), v1alpha1.ReasonUnexpectedAnswer)
		_, err := root.Fetch(t.Context(), of(never), nil)
		wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, never)
	})
}
