package registry

import (
	"bytes"
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

const aboutCertificates = "client certificate"

// serveAsking runs a server that requests a client certificate but does not require it.
func serveAsking(t *testing.T, ca *tlstest.CA, http2 bool, handler http.HandlerFunc) *recorder {
	t.Helper()
	r := record(handler)
	cert, err := ca.Issue(pkix.Name{CommonName: "server"})
	if err != nil {
		t.Fatal(err)
	}
	r.EnableHTTP2 = http2
	r.TLS = &tls.Config{
		Certificates: []tls.Certificate{cert.TLS}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: ca.Pool(),
	}
	r.StartTLS()
	t.Cleanup(r.Close)
	return r.named(t, "https")
}

// If a connection has another fault, the fault does not mention the client certificate that the
// server once requested.
func TestNoHintOfACertificateElsewhere(t *testing.T) {
	ca := newCA(t)
	shown := clientOf(t, ca, "reader")
	for name, c := range map[string]struct {
		cfg   Config
		http2 bool
	}{
		"none": {}, "none, HTTP/2": {http2: true},
		"shown": {cfg: Config{ClientCertificate: string(shown.CertPEM), ClientKey: string(shown.KeyPEM)}},
	} {
		t.Run(name, func(t *testing.T) {
			var broken atomic.Bool
			s := serveAsking(t, ca, c.http2, func(w http.ResponseWriter, _ *http.Request) {
				if broken.Load() {
					panic(http.ErrAbortHandler)
				}
				fmt.Fprint(w, `{}`)
			})
			c.cfg.Server, c.cfg.CABundle = s.URL, string(ca.PEM)
			client := newClient(t, c.cfg)
			if _, err := client.Get(t.Context(), repository, file, 10); err != nil {
				t.Fatal(err)
			}
			if c.http2 { // over HTTP/1.1 the client sends the request again on a new connection
				broken.Store(true)
				_, err := client.Get(t.Context(), repository, file, 10)
				wantFault(t, err, v1alpha1.ReasonUnreachable, "closed the connection")
				if strings.Contains(err.Error(), aboutCertificates) {
					t.Errorf("on a connection that has carried a response: got %v", err)
				}
			}
			client.http.CloseIdleConnections() // force a new connection
			s.Close()
			_, err := client.Get(t.Context(), repository, file, 10)
			wantFault(t, err, v1alpha1.ReasonUnreachable, "refused")
			if strings.Contains(err.Error(), aboutCertificates) {
				t.Errorf("refused: got %v", err)
			}
		})
	}
}

// closing returns a server that answers no request. It closes each connection after the handshake,
// or with the general alert of a TLS 1.2 server (RFC 5246, section 7.4.6).
func closing(t *testing.T, ca *tlstest.CA, version uint16, ask tls.ClientAuthType, says string) (server string) {
	t.Helper()
	cert, err := ca.Issue(pkix.Name{CommonName: "server"})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	cfg := &tls.Config{
		Certificates: []tls.Certificate{cert.TLS}, ClientAuth: ask, ClientCAs: ca.Pool(), MaxVersion: version,
		MinVersion: version,
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			peer := tls.Server(generalAlert{conn}, cfg)
			if err := peer.HandshakeContext(t.Context()); err == nil && says != "" {
				_, _ = peer.Read(make([]byte, 4096)) // the request
				_, _ = peer.Write([]byte(says))
			}
			_ = conn.Close()
		}
	}()
	return fmt.Sprintf("https://localhost:%d", listener.Addr().(*net.TCPAddr).Port)
}

// generalAlert replaces the alert "bad certificate" (42) by "handshake failure" (40).
type generalAlert struct{ net.Conn }

func (c generalAlert) Write(p []byte) (int, error) {
	return c.Conn.Write(bytes.ReplaceAll(p, []byte{21, 3, 3, 0, 2, 2, 42}, []byte{21, 3, 3, 0, 2, 2, 40}))
}

// The fault mentions a client certificate only if the server requested one before it closed the
// connection.
func TestHintOfACertificate(t *testing.T) {
	ca := newCA(t)
	for name, c := range map[string]struct {
		version uint16
		client  tls.ClientAuthType
		alert   string
		reason  string
		hint    bool
	}{
		"closed": {
			tls.VersionTLS13, tls.RequestClientCert, "", v1alpha1.ReasonUnreachable, true,
		},
		"closed, TLS 1.2": {
			tls.VersionTLS12, tls.RequestClientCert, "", v1alpha1.ReasonUnreachable, true,
		},
		"closed without a certificate request": {
			tls.VersionTLS13, tls.NoClientCert, "", v1alpha1.ReasonUnreachable, false,
		},
		"a general alert, TLS 1.2": {
			tls.VersionTLS12, tls.RequireAnyClientCert, "", v1alpha1.ReasonTLSNotTrusted, true,
		},
		"no answer of HTTP": {
			tls.VersionTLS13, tls.RequestClientCert, "hello\r\n\r\n", v1alpha1.ReasonUnreachable, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := newClient(t, Config{
				Server: closing(t, ca, c.version, c.client, c.alert), CABundle: string(ca.PEM),
			})
			_, err := client.Get(t.Context(), repository, file, 10)
			wantFault(t, err, c.reason)
			if got := strings.Contains(err.Error(), "clientCertificateSecretRef"); got != c.hint {
				t.Errorf("mention of a client certificate: got %t, want %t: %v", got, c.hint, err)
			}
		})
	}
}

// The client presents no certificate to a token service on another host, so the fault does not
// blame the server's certificate.
func TestTokenServiceThatRequestsACertificate(t *testing.T) {
	ca := newCA(t)
	shown := clientOf(t, ca, "reader")
	for name, realm := range map[string]string{
		"closed": closing(t, ca, tls.VersionTLS13, tls.RequestClientCert, ""),
		"alert":  serveClients(t, ca, false, func(http.ResponseWriter, *http.Request) {}).URL,
	} {
		for about, cfg := range map[string]Config{
			"none": {}, "shown": {ClientCertificate: string(shown.CertPEM), ClientKey: string(shown.KeyPEM)},
		} {
			t.Run(name+", "+about, func(t *testing.T) {
				server := serveAsking(t, ca, false, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`/token"`)
					w.WriteHeader(http.StatusUnauthorized)
				})
				cfg.Server, cfg.CABundle, cfg.TokenServices = server.URL, string(ca.PEM), []string{
					strings.TrimPrefix(realm, "https://"),
				}
				_, err := newClient(t, cfg).Get(t.Context(), repository, file, 10)
				if err == nil || !strings.Contains(err.Error(), "the token service") ||
					!strings.Contains(err.Error(), "for the server alone") {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}
