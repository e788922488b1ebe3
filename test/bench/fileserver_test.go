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

	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// fileServer serves metadata like a Notary server and counts requests. The benchmarks on it measure
// the manager, not the server. With the real client and server, the publication of 1,000
// repositories would take hours.
type fileServer struct {
	url   string
	ca    []byte
	files map[string][]byte
	stop  func()

	mu    sync.Mutex
	count requests
	feed  bool // whether there is a change feed
}

// requests has the numbers of all requests, of those for timestamps, and of successful reads of the
// change feed.
type requests struct{ all, timestamps, feed int }

const (
	feedPath = "/v2/_trust/changefeed"
	// publications is the change feed: one publication, of a repository that no benchmark uses.
	publications = `{"count":1,"records":[{"ID":"1","GUN":"registry.example.com/other/app","SHA256":"00","Category":"update","Version":1}]}`
)

func newFileServer(b *testing.B, files map[string][]byte) *fileServer {
	b.Helper()
	ca, err := tlstest.NewCA("signing server test CA")
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
	body := f.find(r.URL.Path)
	if body == nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		body = []byte(
			`{"errors":[{"code":"METADATA_NOT_FOUND","message":"You have requested metadata that does not exist.","detail":null}]}`)
	}
	_, _ = w.Write(body)
}

// find counts a request and returns the body at its path, or nil.
func (f *fileServer) find(path string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count.all++
	switch {
	case path == "/v2/":
		return []byte("{}")
	case path == feedPath && f.feed:
		f.count.feed++
		return []byte(publications)
	case isTimestamp(path):
		f.count.timestamps++
	}
	return f.files[path]
}

// requests returns the count so far.
func (f *fileServer) requests() requests {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// offerFeed makes the server offer a change feed from now on.
func (f *fileServer) offerFeed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.feed = true
}
