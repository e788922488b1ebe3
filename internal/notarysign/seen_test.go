package notarysign

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
)

// replay is a server that shows what it had at an earlier time.
type replay struct {
	Server

	mu       sync.Mutex // files are requested side by side
	recorded map[string][]byte
	recorder bool
	gone     bool
}

func (s *replay) Get(ctx context.Context, repository, path string, limit int64) ([]byte, error) {
	if s.gone {
		path = strings.Replace(path, gun, gun+"-gone", 1)
	}
	s.mu.Lock()
	b, ok := s.recorded[path]
	s.mu.Unlock()
	if ok && !s.recorder {
		return b, nil
	}
	b, err := s.Server.Get(ctx, repository, path, limit)
	if s.recorder && err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.recorded[path] = b
	}
	return b, err
}

// A server that shows an old state has nothing signed: a revoked tag would count again.
func TestThreatOldStateIsNotSigned(t *testing.T) {
	b := newBed(t)
	b.initialise("ci")
	pins := b.pins()
	b.sign("v1", digestA, "")
	server := &replay{Server: b.conn.Server, recorded: map[string][]byte{}, recorder: true}
	seen := &SeenFolder{Dir: t.TempDir() + "/seen", Server: b.server.URL}
	b.conn.Server, b.conn.Seen = server, seen
	open := func() (*Repository, error) { return Open(b.ctx(), b.conn, gun, pins) }
	_, err := open()
	b.must(err)
	server.recorder = false
	old := server.recorded
	server.recorded = nil
	r, err := open()
	b.must(err)
	_, err = r.Revoke("v1", "")
	b.must(err)
	b.must(r.Publish(b.ctx()))

	server.recorded = old
	_, err = open()
	if err == nil || !strings.Contains(err.Error(), "was seen before; the server offers old metadata") ||
		!strings.Contains(err.Error(), "remove "+seen.Origin(gun)) {
		t.Errorf("got %v, want that the server offers old metadata, and the file", err)
	}
	server.gone = true
	_, err = open()
	if err == nil || errors.Is(err, ErrNoRepository) || !strings.Contains(err.Error(), "had some before") {
		t.Errorf("without trust data: got %v, want that there was some before", err)
	}
	server.gone = false
	if info, err := os.Stat(seen.Origin(gun)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v; want a file of mode 0600", info, err)
	}
	b.must(os.Remove(seen.Origin(gun)))
	if _, err := open(); err != nil {
		t.Errorf("without the file: got %v, want the old state", err)
	}
	// Another server may have a repository of that name.
	b.conn.Seen = &SeenFolder{Dir: seen.Dir, Server: "https://other.example.com"}
	if _, err := open(); err != nil {
		t.Errorf("another server: got %v", err)
	}
	b.must(os.WriteFile(seen.Origin(gun), []byte("{"), 0o600))
	b.conn.Seen = seen
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("got %v for a broken file, want an error", err)
	}
}
