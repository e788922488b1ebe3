// Package faultproxy stands before a server and does what networks, disks and attackers do.
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

// Proxy stands before a server and does what networks, disks and attackers do. Without faults it
// passes on what the server says.
type Proxy struct {
	// URL is where it is asked, https on a loopback port, HTTP/1.1.
	URL string
	// CA issued its certificate; each proxy has its own.
	CA *tlstest.CA

	rules     *Rules
	server    *http.Server
	done      chan struct{} // closed once the server is
	front     *forward.Forwarder
	transport *http.Transport

	mu           sync.Mutex
	certificate  tls.Certificate
	said, backup map[string][]byte
}

// Start starts a proxy before a server at a URL, whose certificate a CA issued. The server may stop
// before the proxy does.
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
		CA: ca, certificate: cert.TLS, rules: NewRules(), done: make(chan struct{}), said: map[string][]byte{},
		transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: issuer.Pool(), MinVersion: tls.VersionTLS12}},
	}
	answer := func(w http.ResponseWriter, r *http.Request, fault Fault) { f.answer(w, r, behind, fault) }
	f.server = &http.Server{
		Handler:   f.rules.Before(answer),
		TLSConfig: &tls.Config{GetCertificate: f.serving, MinVersion: tls.VersionTLS12},
		// HTTP/1.1 alone: a connection a request under way
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:          log.New(io.Discard, "", 0), // handshakes fail here on purpose
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

// Run runs a proxy before a server at a URL, whose certificate a CA issued, until the test ends.
func Run(t testing.TB, server string, issuer *tlstest.CA) *Proxy {
	t.Helper()
	f, err := Start(server, issuer)
	if err != nil {
		t.Fatalf("starting the proxy before %s: %v", server, err)
	}
	t.Cleanup(f.Stop)
	return f
}

// Stop ends the proxy, and whatever hangs in it.
func (f *Proxy) Stop() {
	f.rules.Stop()
	f.front.Disconnect()
	_ = f.server.Close()
	<-f.done
	f.transport.CloseIdleConnections()
}

// Set replaces what goes wrong, for requests that come from now on. A request meets with the first
// fault that matches; without faults all goes well.
func (f *Proxy) Set(faults ...Fault) { f.rules.Set(faults) }

// Requests returns what was asked for since the start or the last Reset. A connection that brought
// no request, as one whose certificate was refused, is not among it.
func (f *Proxy) Requests() []Request { return f.rules.asked() }

// Peak returns the greatest number of requests that were under way at once since the start or the
// last Reset. One whose answer has begun is not.
func (f *Proxy) Peak() int { return f.rules.mostAtOnce() }

// Reset forgets the requests that came.
func (f *Proxy) Reset() { f.rules.reset() }

// Connections counts those that were made since the start. While the proxy is disconnected none is.
func (f *Proxy) Connections() int64 { return f.front.Accepted() }

// Disconnect refuses connections, and drops those that are open.
func (f *Proxy) Disconnect() { f.front.Disconnect() }

// Reconnect ends a Disconnect. The address is the same as before.
func (f *Proxy) Reconnect() error { return f.front.Connect() }

// Serve exchanges the serving certificate, and drops the connections that saw the one before.
func (f *Proxy) Serve(cert *tlstest.Certificate) {
	f.mu.Lock()
	f.certificate = cert.TLS
	f.mu.Unlock()
	f.front.Drop()
}

// BackUp keeps the last answer for each file, for faults that are Old.
func (f *Proxy) BackUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.backup = maps.Clone(f.said)
}

func (f *Proxy) serving(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &f.certificate, nil
}

// answer passes a request on, and back what was said, spoilt.
func (f *Proxy) answer(w http.ResponseWriter, r *http.Request, behind *url.URL, fault Fault) {
	if old, ok := f.before(r.URL.Path); ok && fault.Old {
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
		FlushInterval: -1, // what goes before a cut does go
		ModifyResponse: func(r *http.Response) error {
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
	f.said[plain(path)] = body
}

func (f *Proxy) before(path string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	body, ok := f.backup[plain(path)]
	return bytes.Clone(body), ok
}

// plain returns the path of a metadata file without the hash that it was asked for by.
func plain(path string) string {
	return regexp.MustCompile(`\.[0-9a-f]{64}\.json$`).ReplaceAllString(path, ".json")
}
