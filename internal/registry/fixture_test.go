package registry

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	repository = "registry.example.com/acme/app"
	file       = "/v2/" + repository + "/_trust/tuf/root.json"
	password   = "s3cret-passw0rd"
)

// A recorder is a server that records its requests.
type recorder struct {
	*httptest.Server
	Host string

	mu       sync.Mutex
	requests []*http.Request
}

// seen returns the requests so far.
func (r *recorder) seen() []*http.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

// authorizations returns the Authorization headers of the requests so far.
func (r *recorder) authorizations() []string {
	var all []string
	for _, req := range r.seen() {
		all = append(all, req.Header.Get("Authorization"))
	}
	return all
}

func newCA(t *testing.T) *tlstest.CA {
	t.Helper()
	ca, err := tlstest.NewCA("test CA")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// serve runs a handler over TLS on localhost, with a certificate of ca for the given hosts.
func serve(t *testing.T, ca *tlstest.CA, handler http.HandlerFunc, hosts ...string) *recorder {
	t.Helper()
	return serveTLS(t, ca, record(handler), hosts...)
}

// serveHTTP2 is serve with HTTP/2.
func serveHTTP2(t *testing.T, ca *tlstest.CA, handler http.HandlerFunc) *recorder {
	t.Helper()
	r := record(handler)
	r.EnableHTTP2 = true
	return serveTLS(t, ca, r)
}

func serveTLS(t *testing.T, ca *tlstest.CA, r *recorder, hosts ...string) *recorder {
	t.Helper()
	cert, err := ca.Issue(pkix.Name{CommonName: "server"}, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	r.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
	r.StartTLS()
	t.Cleanup(r.Close)
	return r.named(t, "https")
}

// servePlain runs a handler without TLS on localhost.
func servePlain(t *testing.T, handler http.HandlerFunc) *recorder {
	t.Helper()
	r := record(handler)
	r.Start()
	t.Cleanup(r.Close)
	return r.named(t, "http")
}

func record(handler http.HandlerFunc) *recorder {
	r := &recorder{}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, req.Clone(req.Context()))
		r.mu.Unlock()
		handler(w, req)
	}))
	return r
}

func (r *recorder) named(t *testing.T, scheme string) *recorder {
	t.Helper()
	_, port, err := net.SplitHostPort(r.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	r.Host = net.JoinHostPort("localhost", port)
	r.URL = scheme + "://" + r.Host
	return r
}

func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantFault checks the reason of a fault, words of its message, and that the message contains no
// secret.
func wantFault(t *testing.T, err error, reason string, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want a fault %s", reason)
	}
	if f := trust.AsFault(err, "none"); f.Reason != reason {
		t.Errorf("got fault %s (%v), want %s", f.Reason, err, reason)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("got message %v, want it to contain %q", err, word)
		}
	}
	for _, secret := range []string{password, "issued-token"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("got secret %q in the message: %v", secret, err)
		}
	}
}

func answer(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}
