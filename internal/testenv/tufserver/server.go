// Package tufserver serves repositories of The Update Framework that are made with go-tuf's
// metadata API, on a loopback port over https.
package tufserver

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// Server is a file server with TUF repositories.
type Server struct {
	// URL is its address.
	URL string
	// CA issued its certificate.
	CA *tlstest.CA

	server *httptest.Server

	mu       sync.Mutex
	files    map[string][]byte
	requests []string
	fault    func(path string, w http.ResponseWriter) bool
	username string
	password string
}

// Start starts a server without files.
func Start() (*Server, error) {
	ca, err := tlstest.NewCA("TUF server test CA")
	if err != nil {
		return nil, err
	}
	cert, err := ca.Issue(pkix.Name{CommonName: "tuf-server"})
	if err != nil {
		return nil, err
	}
	s := &Server{CA: ca, files: map[string][]byte{}}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}, MinVersion: tls.VersionTLS12}
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0) // some tests drop connections
	s.server.StartTLS()
	s.URL = strings.Replace(s.server.URL, "127.0.0.1", "localhost", 1)
	return s, nil
}

// Run starts a server and stops it when the test ends.
func Run(t testing.TB) *Server {
	t.Helper()
	s, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Stop ends the server.
func (s *Server) Stop() { s.server.Close() }

// Require makes the server refuse requests without these credentials.
func (s *Server) Require(username, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.username, s.password = username, password
}

// Fault makes answer serve each request. If it returns false, the server serves it instead. Nil: no
// fault.
func (s *Server) Fault(answer func(path string, w http.ResponseWriter) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = answer
}

// Down makes the server drop all connections.
func (s *Server) Down() {
	s.Fault(func(string, http.ResponseWriter) bool { panic(http.ErrAbortHandler) })
}

// Requests returns the paths that were requested since the last call, in order.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.requests
	s.requests = nil
	return all
}

// Files returns all files by path, and Restore serves them instead of the present ones.
func (s *Server) Files() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string][]byte, len(s.files))
	for path, raw := range s.files {
		all[path] = raw
	}
	return all
}

// Restore serves files that Files has returned.
func (s *Server) Restore(files map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = files
}

// put serves a file.
func (s *Server) put(path string, raw []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[path] = raw
}

func (s *Server) serve(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	path := req.URL.EscapedPath()
	s.requests = append(s.requests, path)
	raw, ok := s.files[path]
	fault, username, password := s.fault, s.username, s.password
	s.mu.Unlock()
	if fault != nil && fault(path, w) {
		return
	}
	if name, word, _ := req.BasicAuth(); username != "" && (name != username || word != password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="TUF"`)
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return
	}
	if !ok {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
	_, _ = w.Write(raw)
}
