// Package lookaside serves signatures of the format simpleSigning: a web server on loopback, as
// containers-registries.d(5) has it, and OpenPGP keys that sign for it.
package lookaside

import (
	"bytes"
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// Server is a lookaside server.
type Server struct {
	// URL is its address, and CA issued its certificate.
	URL string
	CA  *tlstest.CA

	folder string
	server *httptest.Server
}

// Run runs a server without signatures until the test ends.
func Run(t testing.TB) *Server {
	t.Helper()
	s := &Server{folder: t.TempDir()}
	var err error
	if s.CA, err = tlstest.NewCA("Lookaside test CA"); err != nil {
		t.Fatal(err)
	}
	cert, err := s.CA.Issue(pkix.Name{CommonName: "lookaside"})
	if err != nil {
		t.Fatal(err)
	}
	s.server = httptest.NewUnstartedServer(http.FileServer(http.Dir(s.folder)))
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}, MinVersion: tls.VersionTLS12}
	s.server.StartTLS()
	t.Cleanup(s.Stop)
	s.URL = strings.Replace(s.server.URL, "127.0.0.1", "localhost", 1)
	return s
}

// Stop ends the server.
func (s *Server) Stop() { s.server.Close() }

// Sign adds a signature to those on an image. reference is its name with the tag, and digest the
// digest of its manifest, with sha256:.
func (s *Server) Sign(key *Key, reference, digest string) error {
	var message bytes.Buffer
	w, err := openpgp.Sign(&message, []*openpgp.Entity{key.entity}, nil, nil)
	if err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	if _, err := fmt.Fprintf(w, `{"critical":{"type":"atomic container signature","image":`+
		`{"docker-manifest-digest":%q},"identity":{"docker-reference":%q}},"optional":{}}`, digest,
		reference); err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	_, path, _ := strings.Cut(reference, "/")
	path, _, _ = strings.Cut(path, ":")
	folder := filepath.Join(s.folder, path+"@"+strings.Replace(digest, ":", "=", 1))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	others, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, fmt.Sprintf("signature-%d", len(others)+1)), message.Bytes(), 0o600)
}

// Key is an OpenPGP key.
type Key struct {
	// Public is the public key, armored.
	Public string

	entity *openpgp.Entity
}

// NewKey makes a key of a name.
func NewKey(name string) (*Key, error) {
	entity, err := openpgp.NewEntity(name, "", name+"@example.com", nil)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	var public bytes.Buffer
	w, err := armor.Encode(&public, openpgp.PublicKeyType, nil)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	if err := entity.Serialize(w); err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return &Key{Public: public.String(), entity: entity}, nil
}
