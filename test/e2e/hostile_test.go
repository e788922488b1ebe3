package e2e

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/test/handmade"
)

// hostile is a signing server whose responses cost a client as much as possible.
type hostile struct {
	url string
	ca  []byte

	mu       sync.Mutex
	files    map[string][]byte
	requests map[string]int // by path
	// unpinned makes the root of a version of any repository, with keys that no trust root pins.
	// Nil: the server has no such roots.
	unpinned func(repository string, version int) []byte
}

// newest is the version of the newest root that no trust root pins. A client fetches all versions
// up to it.
const newest = 128

func newHostile(t *testing.T) *hostile {
	t.Helper()
	ca, err := tlstest.NewCA("hostile server test CA")
	must(t, err)
	serving, err := ca.Issue(pkix.Name{CommonName: "localhost"})
	must(t, err)
	h := &hostile{ca: ca.PEM, files: map[string][]byte{}, requests: map[string]int{}}
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{serving.TLS}, MinVersion: tls.VersionTLS12}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	h.url = "https://localhost" + server.URL[strings.LastIndex(server.URL, ":"):]
	return h
}

// ServeHTTP implements http.Handler.
func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	body := h.find(r.URL.Path)
	if body == nil {
		w.WriteHeader(http.StatusNotFound)
		body = []byte(`{"errors":[{"code":"METADATA_NOT_FOUND","message":"none"}]}`)
	}
	_, _ = w.Write(body)
}

func (h *hostile) find(path string) []byte {
	h.mu.Lock()
	raw, unpinned := h.files[path], h.unpinned
	h.requests[path]++
	h.mu.Unlock()
	repository, file, ok := strings.Cut(strings.TrimPrefix(path, "/v2/"), "/_trust/tuf/")
	switch {
	case path == "/v2/":
		return []byte("{}")
	case path == "/v2/_trust/changefeed":
		return []byte(`{"records":[` + strings.Repeat(`{},`, 300_000) + `{}]}`)
	case raw != nil || unpinned == nil || !ok:
		return raw
	case file == "root.json":
		return unpinned(repository, newest)
	case file == "timestamp.json":
		return []byte("[" + strings.Repeat(`{"":0},`, 70_000) + "0]")
	}
	version, _ := strconv.Atoi(strings.TrimSuffix(file, ".root.json"))
	if version < 1 {
		return nil
	}
	return unpinned(repository, version)
}

// publish adds or replaces files.
func (h *hostile) publish(files map[string][]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.Copy(h.files, files)
}

// fetched returns the number of requests for a file.
func (h *hostile) fetched(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.requests[path]
}

// offerUnpinned makes the server offer, for every repository, a chain of roots, each as large
// as a root may be.
func (h *hostile) offerUnpinned(t *testing.T) {
	t.Helper()
	var mu sync.Mutex
	keys := map[string]*handmade.Key{}
	made := map[string][]byte{}
	bulk := json.RawMessage("[" + strings.Repeat(`{"":0},`, 70_000) + "0]")
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unpinned = func(repository string, version int) []byte {
		mu.Lock()
		defer mu.Unlock()
		if keys[repository] == nil {
			keys[repository] = handmade.NewKey(t).Certified(t, repository)
		}
		name, k := fmt.Sprint(repository, version), keys[repository]
		if made[name] == nil {
			only := handmade.Only(k)
			made[name] = k.Seal(t, "Root", version, time.Hour, handmade.Object{
				"consistent_snapshot": false, "keys": handmade.Listed(k), "x": bulk,
				"roles": handmade.Object{"root": only, "targets": only, "snapshot": only, "timestamp": only},
			})
		}
		return made[name]
	}
}
