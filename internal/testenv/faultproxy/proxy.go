// Package faultproxy runs a proxy in front of a server. The proxy injects the faults that networks,
// disks and attackers cause.
package faultproxy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/forward"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// Proxy is a reverse proxy that injects faults. Without faults it forwards requests and responses
// unchanged.
type Proxy struct {
	// URL is the proxy's address: https on a loopback port, HTTP/1.1 only.
	URL string
	// CA issued the proxy's certificate; each proxy has its own CA.
	CA *tlstest.CA

	rules     *Rules
	server    *http.Server
	done      chan struct{} // closed when the HTTP server has ended
	front     *forward.Forwarder
	transport *http.Transport

	mu             sync.Mutex
	certificate    tls.Certificate
	latest, backup map[string][]byte // bodies of responses with status 200, by path
}

// Start starts a proxy in front of the server at a URL, whose certificate issuer signed. The server
// may stop before the proxy does.
func Start(server string, issuer *tlstest.CA) (*Proxy, error) {
	behind, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("reading the URL of the server: %w", err)
	}
	ca, err := tlstest.NewCA("fault proxy test CA")
	if err != nil {
		return nil, err
	}
	cert, err := ca.Issue(pkix.Name{CommonName: "fault-proxy"})
	if err != nil {
		return nil, err
	}
	f := &Proxy{
		CA: ca, certificate: cert.TLS, rules: NewRules(), done: make(chan struct{}), latest: map[string][]byte{},
		transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: issuer.Pool(), MinVersion: tls.VersionTLS12}},
	}
	respond := func(w http.ResponseWriter, r *http.Request, fault Fault) { f.respond(w, r, behind, fault) }
	f.server = &http.Server{
		Handler:   f.rules.Before(respond),
		TLSConfig: &tls.Config{GetCertificate: f.serving, MinVersion: tls.VersionTLS12},
		// HTTP/1.1 only: one connection for each request in flight
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:          log.New(io.Discard, "", 0), // some tests make handshakes fail
		ReadHeaderTimeout: time.Minute,
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the proxy: %w", err)
	}
	if f.front, err = forward.To(listener.Addr().String()); err != nil {
		listener.Close()
		return nil, err
	}
	go func() {
		defer close(f.done)
		_ = f.server.ServeTLS(listener, "", "")
	}()
	_, port, err := net.SplitHostPort(f.front.Address)
	f.URL = "https://localhost:" + port
	return f, err
}

// Run runs a proxy in front of the server at a URL, whose certificate issuer signed, until the test
// ends.
func Run(t testing.TB, server string, issuer *tlstest.CA) *Proxy {
	t.Helper()
	f, err := Start(server, issuer)
	if err != nil {
		t.Fatalf("starting the proxy in front of %s: %v", server, err)
	}
	t.Cleanup(f.Stop)
	return f
}

// Stop ends the proxy, and the requests that hang in it.
func (f *Proxy) Stop() {
	f.rules.Stop()
	f.front.Disconnect()
	_ = f.server.Close()
	<-f.done
	f.transport.CloseIdleConnections()
}

// Set replaces the faults for requests that arrive from now on. The first fault that matches a
// request applies to it. Without faults the proxy forwards everything.
func (f *Proxy) Set(faults ...Fault) { f.rules.Set(faults) }

// Requests returns the requests that arrived since the start or the last Reset. A connection
// without a request is not among them, for example one whose client refused the certificate.
func (f *Proxy) Requests() []Request { return f.rules.recorded() }

// Peak returns the greatest number of requests that were in flight at once since the start or the
// last Reset. A request whose response has begun no longer counts.
func (f *Proxy) Peak() int { return f.rules.peakInFlight() }

// Reset clears the recorded requests and the peak.
func (f *Proxy) Reset() { f.rules.reset() }

// Connections returns the number of connections that the proxy accepted since the start. It accepts
// none while it is disconnected.
func (f *Proxy) Connections() int64 { return f.front.Accepted() }

// Disconnect refuses new connections, and drops the open ones.
func (f *Proxy) Disconnect() { f.front.Disconnect() }

// Reconnect ends a Disconnect. The address stays the same.
func (f *Proxy) Reconnect() error { return f.front.Connect() }

// Serve replaces the serving certificate, and drops the connections that used the previous one.
func (f *Proxy) Serve(cert *tlstest.Certificate) {
	f.mu.Lock()
	f.certificate = cert.TLS
	f.mu.Unlock()
	f.front.Drop()
}

// BackUp copies the latest response for each file. Faults that are Old serve this copy.
func (f *Proxy) BackUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.backup = maps.Clone(f.latest)
}

func (f *Proxy) serving(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &f.certificate, nil
}

// respond forwards a request, and applies the fault to the response.
func (f *Proxy) respond(w http.ResponseWriter, r *http.Request, behind *url.URL, fault Fault) {
	if old, ok := f.backedUp(r.URL.Path); ok && fault.Old {
		body, length := fault.spoil(old)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(length))
		_, err := io.Copy(w, body)
		if err != nil {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		return
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(behind) },
		Transport:     f.transport,
		ErrorLog:      log.New(io.Discard, "", 0),
		FlushInterval: -1, // the client receives the bytes before a cut
		ModifyResponse: func(r *http.Response) error {
			if fault.setHeader(r.Header); r.Request.Method == http.MethodHead {
				return nil
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			if r.StatusCode == http.StatusOK {
				f.keep(r.Request.URL.Path, body)
			}
			spoilt, length := fault.spoil(body)
			r.Body, r.ContentLength = io.NopCloser(spoilt), int64(length)
			r.Header.Set("Content-Length", strconv.Itoa(length))
			return nil
		},
	}
	proxy.ServeHTTP(w, r)
}

func (f *Proxy) keep(path string, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latest[plain(path)] = body
}

func (f *Proxy) backedUp(path string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	body, ok := f.backup[plain(path)]
	return bytes.Clone(body), ok
}

// plain returns the path of a metadata file without the hash in its name.
func plain(path string) string {
	return regexp.MustCompile(`\.[0-9a-f]{64}\.json$`).ReplaceAllString(path, ".json")
}
