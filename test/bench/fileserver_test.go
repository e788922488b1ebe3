package bench

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv"
)

// fileServer serves metadata as a Notary server does, and counts. Publishing a thousand repositories to a real one, by the real client,
// would take hours; what is measured over this is the verifier, and what it asks for.
type fileServer struct {
	url   string
	ca    []byte
	files map[string][]byte
	stop  func()

	mu         sync.Mutex
	requests   int
	timestamps int
}

func newFileServer(b *testing.B, files map[string][]byte) *fileServer {
	b.Helper()
	ca, err := testenv.NewCA("signing server test CA")
	check(b, err)
	serving, err := ca.Issue(pkix.Name{CommonName: "localhost"})
	check(b, err)
	f := &fileServer{files: files, ca: ca.PEM}
	server := httptest.NewUnstartedServer(f)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{serving.TLS}, MinVersion: tls.VersionTLS12}
	server.EnableHTTP2 = true
	server.StartTLS()
	f.url = "https://localhost" + server.URL[strings.LastIndex(server.URL, ":"):]
	f.stop = sync.OnceFunc(func() {
		server.CloseClientConnections()
		server.Close()
	})
	b.Cleanup(f.stop)
	return f
}

// ServeHTTP implements http.Handler.
func (f *fileServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests++
	if isTimestamp(r.URL.Path) {
		f.timestamps++
	}
	f.mu.Unlock()
	body, ok := f.files[r.URL.Path]
	switch {
	case r.URL.Path == "/v2/":
		body = []byte("{}")
	case !ok:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		body = []byte(`{"errors":[{"code":"METADATA_NOT_FOUND","message":"You have requested metadata that does not exist.","detail":null}]}`)
	}
	_, _ = w.Write(body)
}

// asked returns how many requests came so far, and how many of them were for a timestamp.
func (f *fileServer) asked() (requests, timestamps int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests, f.timestamps
}
