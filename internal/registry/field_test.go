package registry

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/internal/trust"
)

// A certificate of a bundle that Go cannot parse is named and does not affect the others.
func TestBundleWithAnOddCertificate(t *testing.T) {
	ca := newCA(t)
	s := serve(t, ca, answer(http.StatusOK, "application/json", `{}`))
	c := newClient(t, Config{Server: s.URL, CABundle: string(tlstest.OddCertificate(ca.PEM)) + string(ca.PEM)})
	if _, err := c.Get(t.Context(), repository, file, 10); err != nil {
		t.Error(err)
	}
	if got := c.Skipped(); len(got) != 1 ||
		!strings.Contains(got[0], `certificate 1 ("CN=test CA"): negative serial number`) {
		t.Errorf("got skipped %q", got)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// As with other clients, the Host header does not contain the default port: for the server, its
// token service and a redirect.
func TestDefaultPortIsNotInTheHost(t *testing.T) {
	for _, host := range []string{"notary.example.com", "[2001:db8::1]", "notary.example.com:4443"} {
		var requests []string
		server := "https://" + host
		if !strings.HasSuffix(host, "4443") {
			server += ":443"
		}
		c := newClient(t, Config{Server: server})
		c.http.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			requests = append(requests, cmp.Or(r.Host, r.URL.Host))
			rec := httptest.NewRecorder()
			switch {
			case r.URL.Path == "/token":
				_, _ = rec.WriteString(`{"token":"t"}`)
			case r.Header.Get("Authorization") == "":
				rec.Header().Set("WWW-Authenticate", `Bearer realm="`+server+`/token"`)
				rec.WriteHeader(http.StatusUnauthorized)
			case r.URL.Path == file:
				http.Redirect(rec, r, server+"/moved", http.StatusFound)
			default:
				_, _ = rec.WriteString(`{}`)
			}
			resp := rec.Result()
			resp.Request = r
			return resp, nil
		})
		if _, err := c.Get(t.Context(), repository, file, 10); err != nil {
			t.Fatal(err)
		}
		if len(requests) != 4 {
			t.Errorf("got %d requests", len(requests))
		}
		for i, got := range requests {
			if got != host {
				t.Errorf("request %d to %s: got Host %s, want %s", i, server, got, host)
			}
		}
	}
}

// expires_in is a number in the specification, but some servers send a string.
func TestTokenLifeAsServersWriteIt(t *testing.T) {
	for lifetime, want := range map[string]time.Duration{
		`300`: 290 * time.Second, `"300"`: 290 * time.Second, `300.0`: 290 * time.Second, `3e2`: 290 * time.Second,
		`"soon"`: 50 * time.Second, `null`: 50 * time.Second, `{}`: 50 * time.Second, `-1`: 50 * time.Second,
		`"NaN"`: 50 * time.Second,
		`"Inf"`: maxTokenLife - tokenMargin, `1e300`: maxTokenLife - tokenMargin, `"-Inf"`: 50 * time.Second,
		`10`: 5 * time.Second,
	} {
		token, life, ok := readToken(fmt.Appendf(nil, `{"token":"t","expires_in":%s}`, lifetime))
		if !ok || token != "t" || life != want {
			t.Errorf("expires_in %s: got %q for %s, %v; want %s", lifetime, token, life, ok, want)
		}
	}
}

// A certificate without a subject alternative name matches no host: Go ignores the common name.
func TestCertificateWithACommonNameOnly(t *testing.T) {
	ca := newCA(t)
	cert, err := ca.IssueNameless(pkix.Name{CommonName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	r := record(answer(http.StatusOK, "application/json", `{}`))
	r.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
	r.StartTLS()
	t.Cleanup(r.Close)
	r = r.named(t, "https")
	_, err = newClient(t, Config{Server: r.URL, CABundle: string(ca.PEM)}).Get(t.Context(), repository, file, 10)
	wantFault(t, err, v1alpha1.ReasonTLSNotTrusted, "no subject alternative name", `common name "localhost"`,
		"issue it again")
}

// serveClients runs a server that requires a client certificate of a CA.
func serveClients(t *testing.T, ca *tlstest.CA, http2 bool, handler http.HandlerFunc) *recorder {
	t.Helper()
	r := record(handler)
	cert, err := ca.Issue(pkix.Name{CommonName: "server"})
	if err != nil {
		t.Fatal(err)
	}
	r.EnableHTTP2 = http2
	r.TLS = &tls.Config{
		Certificates: []tls.Certificate{cert.TLS}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	}
	r.Config.ErrorLog = nil
	r.StartTLS()
	t.Cleanup(r.Close)
	return r.named(t, "https")
}

func clientOf(t *testing.T, ca *tlstest.CA, name string) *tlstest.Certificate {
	t.Helper()
	cert, err := ca.Issue(pkix.Name{CommonName: name})
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestClientCertificate(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	good, foreign := clientOf(t, ca, "reader"), clientOf(t, other, "stranger")
	late, err := ca.IssueExpired(pkix.Name{CommonName: "late"})
	if err != nil {
		t.Fatal(err)
	}
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		s := serveClients(t, ca, http2, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%q", r.TLS.PeerCertificates[0].Subject.CommonName)
		})
		for about, c := range map[string]struct {
			shown *tlstest.Certificate
			words string // of the fault; empty: no fault
		}{
			"good": {good, ""}, "none": {&tlstest.Certificate{}, "clientCertificateSecretRef"},
			"of another CA": {foreign, "clientCertificateSecretRef"},
			"expired":       {late, "the client certificate expired at"},
		} {
			t.Run(name+" "+about, func(t *testing.T) {
				cfg := Config{
					Server: s.URL, CABundle: string(ca.PEM), ClientCertificate: string(c.shown.CertPEM),
					ClientKey: string(c.shown.KeyPEM),
				}
				body, err := newClient(t, cfg).Get(t.Context(), repository, file, 100)
				if c.words != "" {
					// The alert of the server may be lost if it closes the connection first.
					reason := v1alpha1.ReasonTLSNotTrusted
					if f := trust.AsFault(err, ""); f.Reason == v1alpha1.ReasonUnreachable && c.shown != late {
						reason = f.Reason
					}
					wantFault(t, err, reason, c.words)
				} else if err != nil || string(body) != `"reader"` {
					t.Errorf("got %q, %v", body, err)
				}
			})
		}
	}
}

func TestUnusableClientCertificate(t *testing.T) {
	ca := newCA(t)
	one, two := clientOf(t, ca, "one"), clientOf(t, ca, "two")
	secret := strings.Split(string(one.KeyPEM), "\n")[1]
	for name, c := range map[string]struct{ cert, key, want string }{
		"another key":         {string(two.CertPEM), string(one.KeyPEM), "its key belongs to another certificate"},
		"no key":              {string(one.CertPEM), "", "its key cannot be read"},
		"key is text":         {string(one.CertPEM), secret, "its key cannot be read"},
		"no certificate":      {"", string(one.KeyPEM), "not a PEM certificate"},
		"certificate is text": {"hello", string(one.KeyPEM), "not a PEM certificate"},
		"key first":           {string(one.KeyPEM), string(one.KeyPEM), "not a PEM certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(Config{Server: "https://notary.example.com", ClientCertificate: c.cert, ClientKey: c.key})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	_, err := New(Config{
		Server: "http://notary.example.com", PlainHTTP: true, ClientCertificate: string(one.CertPEM),
		ClientKey: string(one.KeyPEM),
	})
	if err == nil || !strings.Contains(err.Error(), "https only") {
		t.Errorf("over http: got %v", err)
	}
}

// The client presents its certificate only to the server: not to a token service on another host or
// port, and not after a redirect there, although they request one.
func TestThreatClientCertificateIsForTheServerAlone(t *testing.T) {
	ca := newCA(t)
	shown := clientOf(t, ca, "reader")
	var seen []*x509.Certificate
	tokens := record(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.TLS.PeerCertificates...)
		fmt.Fprint(w, `{"token":"issued-token"}`)
	})
	cert := clientOf(t, ca, "tokens")
	tokens.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}, ClientAuth: tls.RequestClientCert}
	tokens.StartTLS()
	t.Cleanup(tokens.Close)
	tokens = tokens.named(t, "https")
	server := serveClients(t, ca, false, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+tokens.URL+`/token"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{}`)
	})
	c := newClient(t, Config{
		Server: server.URL, CABundle: string(ca.PEM), TokenServices: []string{tokens.Host},
		ClientCertificate: string(shown.CertPEM), ClientKey: string(shown.KeyPEM),
	})
	if _, err := c.Get(t.Context(), repository, file, 10); err != nil {
		t.Fatal(err)
	}
	if len(tokens.seen()) != 1 || len(seen) != 0 {
		t.Errorf("got %d requests and %d certificates at the token service", len(tokens.seen()), len(seen))
	}
}

// The client does not present its certificate to an https:// proxy.
func TestThreatNoClientCertificateForAProxy(t *testing.T) {
	ca := newCA(t)
	shown := clientOf(t, ca, "reader")
	var showed int
	proxy := record(func(http.ResponseWriter, *http.Request) {})
	cert := clientOf(t, ca, "proxy")
	proxy.TLS = &tls.Config{
		Certificates: []tls.Certificate{cert.TLS}, ClientAuth: tls.RequestClientCert,
		VerifyConnection: func(s tls.ConnectionState) error { showed += len(s.PeerCertificates); return nil },
	}
	proxy.StartTLS()
	t.Cleanup(proxy.Close)
	target, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Config{
		Server: "https://notary.example.com", CABundle: string(ca.PEM),
		ClientCertificate: string(shown.CertPEM), ClientKey: string(shown.KeyPEM),
	})
	c.http.Transport = c.transport(ca.Pool(), &shown.TLS, func(*http.Request) (*url.URL, error) { return target, nil })
	_, err = c.Get(t.Context(), repository, file, 10)
	wantFault(t, err, v1alpha1.ReasonUnreachable, "NO_PROXY")
	if showed != 0 {
		t.Error("got the certificate presented to the proxy")
	}
}
