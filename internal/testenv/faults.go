package testenv

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
)

// Faults stands before a Notary server and does what networks, disks and attackers do. Without faults it passes on
// what the server says.
type Faults struct {
	// URL is where it is asked, https on a loopback port, HTTP/1.1.
	URL string
	// CA issued its certificate; each proxy has its own.
	CA *CA

	rules     *faultRules
	server    *http.Server
	done      chan struct{} // closed once the server is
	front     *forwarder
	transport *http.Transport

	mu           sync.Mutex
	certificate  tls.Certificate
	said, backup map[string][]byte
}

// StartFaults starts a proxy before a Notary server, which may stop before the proxy does.
func StartFaults(n *Notary) (*Faults, error) {
	behind, err := url.Parse(n.URL)
	if err != nil {
		return nil, fmt.Errorf("reading the URL of the Notary server: %w", err)
	}
	ca, err := NewCA("fault proxy test CA")
	if err != nil {
		return nil, err
	}
	cert, err := ca.Issue(pkix.Name{CommonName: "fault-proxy"})
	if err != nil {
		return nil, err
	}
	f := &Faults{
		CA: ca, certificate: cert.TLS, rules: newFaultRules(), done: make(chan struct{}), said: map[string][]byte{},
		transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: n.CA.Pool(), MinVersion: tls.VersionTLS12}},
	}
	answer := func(w http.ResponseWriter, r *http.Request, fault Fault) { f.answer(w, r, behind, fault) }
	f.server = &http.Server{
		Handler:           f.rules.before(answer),
		TLSConfig:         &tls.Config{GetCertificate: f.serving, MinVersion: tls.VersionTLS12},
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1 alone: a connection a request under way
		ErrorLog:          log.New(io.Discard, "", 0),                               // handshakes fail here on purpose
		ReadHeaderTimeout: time.Minute,
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the proxy: %w", err)
	}
	if f.front, err = forward(listener.Addr().String()); err != nil {
		listener.Close()
		return nil, err
	}
	go func() {
		defer close(f.done)
		_ = f.server.ServeTLS(listener, "", "")
	}()
	_, port, err := net.SplitHostPort(f.front.address)
	f.URL = "https://localhost:" + port
	return f, err
}

// RunFaults runs a proxy before a Notary server until the test ends.
func RunFaults(t testing.TB, n *Notary) *Faults {
	t.Helper()
	f, err := StartFaults(n)
	if err != nil {
		t.Fatalf("starting the proxy before the Notary server: %v", err)
	}
	t.Cleanup(f.Stop)
	return f
}

// Stop ends the proxy, and whatever hangs in it.
func (f *Faults) Stop() {
	f.rules.stop()
	f.front.disconnect()
	_ = f.server.Close()
	<-f.done
	f.transport.CloseIdleConnections()
}

// Set replaces what goes wrong, for requests that come from now on. A request meets with the first fault that
// matches; without faults all goes well.
func (f *Faults) Set(faults ...Fault) { f.rules.set(faults) }

// Requests returns what was asked for since the start or the last Reset. A connection that brought no request, as one
// whose certificate was refused, is not among it.
func (f *Faults) Requests() []Request { return f.rules.asked() }

// Peak returns the greatest number of requests that were under way at once since the start or the last Reset. One whose answer has begun is not.
func (f *Faults) Peak() int { return f.rules.mostAtOnce() }

// Reset forgets the requests that came.
func (f *Faults) Reset() { f.rules.reset() }

// Connections counts those that were made since the start. While the proxy is disconnected none is.
func (f *Faults) Connections() int64 { return f.front.accepted.Load() }

// Disconnect refuses connections, and drops those that are open.
func (f *Faults) Disconnect() { f.front.disconnect() }

// Reconnect ends a Disconnect. The address is the same as before.
func (f *Faults) Reconnect() error { return f.front.connect() }

// Serve exchanges the serving certificate, and drops the connections that saw the one before.
func (f *Faults) Serve(cert *Certificate) {
	f.mu.Lock()
	f.certificate = cert.TLS
	f.mu.Unlock()
	f.front.drop()
}

// BackUp keeps the last answer for each file, for faults that are Old.
func (f *Faults) BackUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.backup = maps.Clone(f.said)
}

func (f *Faults) serving(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &f.certificate, nil
}

// answer passes a request on, and back what was said, spoilt.
func (f *Faults) answer(w http.ResponseWriter, r *http.Request, behind *url.URL, fault Fault) {
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

func (f *Faults) keep(path string, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said[plain(path)] = body
}

func (f *Faults) before(path string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	body, ok := f.backup[plain(path)]
	return bytes.Clone(body), ok
}

// plain returns the path of a metadata file without the hash that it was asked for by.
func plain(path string) string {
	return regexp.MustCompile(`\.[0-9a-f]{64}\.json$`).ReplaceAllString(path, ".json")
}
