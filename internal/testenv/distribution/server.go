// Package distribution runs the real distribution registry, with a storage host beside it that
// serves its blobs where a test wants redirects.
package distribution

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/crypto/bcrypt"

	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/process"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/internal/testenv/tokenserver"
)

// Options say how a registry is run. The zero value lets everyone in and serves its blobs itself.
type Options struct {
	// Username and Password are required of every client, by basic authentication. Both empty: the
	// registry requires none.
	Username, Password string
	// Token makes the registry require a token of a token service, which issues it for Username and
	// Password. The service runs in this process, and has a certificate of the registry's CA.
	Token bool
	// Readers are further users of the token service, each of whom may read some repositories.
	Readers []tokenserver.Reader
	// Storage redirects requests for blobs to a storage host, which has a certificate of StorageCA.
	Storage bool
	// Progress receives messages about builds. Nil: os.Stderr.
	Progress io.Writer
}

// audience is the name of the registry in tokens.
const audience = "registry"

// Server is a running registry on a loopback port, which holds what was pushed until it is stopped.
type Server struct {
	// Host is its host and port, as the name of an image begins.
	Host string
	// CA issued its certificate.
	CA *tlstest.CA
	// Tokens is the token service; nil: there is none.
	Tokens *tokenserver.Server
	// Storage is the host and port of the storage host, and StorageCA issued its certificate. Nil:
	// there is none.
	Storage   string
	StorageCA *tlstest.CA
	// Fetched returns the Authorization header of each request to the storage host.
	Fetched func() (authorizations []string)

	options Options
	dir     string
	binary  string
	process *process.Process
	storage *httptest.Server
}

// Start builds the registry where needed, and runs it on a free loopback port with certificates
// made on the spot. It returns once the registry answers.
func Start(ctx context.Context, options Options) (_ *Server, err error) {
	if options.Progress == nil {
		options.Progress = os.Stderr
	}
	s := &Server{options: options}
	defer func() {
		if err != nil {
			_ = s.Stop()
		}
	}()
	if s.binary, err = build.Distribution(ctx, options.Progress); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "countersign-registry-"); err != nil {
		return nil, fmt.Errorf("making a folder for the registry: %w", err)
	}
	if s.CA, err = tlstest.NewCA("Registry test CA"); err != nil {
		return nil, err
	}
	port, err := process.FreePort()
	if err != nil {
		return nil, err
	}
	s.Host = net.JoinHostPort("localhost", strconv.Itoa(port))
	if options.Storage {
		if err := s.startStorage(); err != nil {
			return nil, err
		}
	}
	if options.Token {
		auth := tokenserver.Auth{
			Username: options.Username, Password: options.Password, Readers: options.Readers,
		}
		if s.Tokens, err = tokenserver.Start(s.CA, audience, auth); err != nil {
			return nil, err
		}
	}
	if err := s.configure(port); err != nil {
		return nil, err
	}
	return s, s.start(ctx)
}

// Run runs a registry until the test ends.
func Run(t testing.TB, options Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), options)
	if err != nil {
		t.Fatalf("starting the registry: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.process.Tail())
		}
		if err := s.Stop(); err != nil {
			t.Errorf("stopping the registry: %v", err)
		}
	})
	return s
}

// Interrupt ends the registry until Restart. It keeps what was pushed.
func (s *Server) Interrupt() error { return s.process.Stop() }

// Restart starts the registry again, at the same address.
func (s *Server) Restart(ctx context.Context) error { return s.start(ctx) }

// Stop ends the registry, its storage host and its token service, and removes what they held.
func (s *Server) Stop() error {
	var errs []error
	if s.process != nil {
		errs = append(errs, s.process.Stop())
	}
	if s.storage != nil {
		s.storage.Close()
	}
	s.Tokens.Stop()
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// Options returns what go-containerregistry needs to push to the registry.
func (s *Server) Options(ctx context.Context) []remote.Option {
	authorities := s.CA.Pool()
	if s.StorageCA != nil {
		authorities.AppendCertsFromPEM(s.StorageCA.PEM)
	}
	options := []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities}}),
	}
	if s.options.Username != "" {
		options = append(options, remote.WithAuth(&authn.Basic{
			Username: s.options.Username, Password: s.options.Password,
		}))
	}
	return options
}

func (s *Server) blobs() string { return filepath.Join(s.dir, "data") }

// startStorage serves the files of the registry's storage by https, on another port and with a
// certificate of another CA.
func (s *Server) startStorage() (err error) {
	if s.StorageCA, err = tlstest.NewCA("Storage test CA"); err != nil {
		return err
	}
	cert, err := s.StorageCA.Issue(pkix.Name{CommonName: "storage"})
	if err != nil {
		return err
	}
	seen := &headers{}
	files := http.FileServer(http.Dir(s.blobs()))
	s.storage = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.add(r.Header.Get("Authorization"))
		files.ServeHTTP(w, r)
	}))
	s.Fetched = seen.all
	s.storage.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.storage.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
	s.storage.StartTLS()
	_, port, err := net.SplitHostPort(s.storage.Listener.Addr().String())
	s.Storage = net.JoinHostPort("localhost", port)
	return err
}

// configure writes the registry's configuration: YAML, of which JSON is a part.
func (s *Server) configure(port int) error {
	cert, err := s.CA.Issue(pkix.Name{CommonName: "registry"})
	if err != nil {
		return err
	}
	certFile, keyFile, err := cert.Write(s.dir, "registry")
	if err != nil {
		return err
	}
	config := map[string]any{
		"version": "0.1",
		"log":     map[string]any{"level": "warn"},
		"storage": map[string]any{"filesystem": map[string]any{"rootdirectory": s.blobs()}},
		"http": map[string]any{
			"addr": net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), "secret": "of tests",
			"tls": map[string]any{"certificate": certFile, "key": keyFile},
		},
		// Signatures refer to images that tests need not push.
		"validation": map[string]any{"disabled": true},
	}
	if s.options.Storage {
		config["middleware"] = map[string]any{"storage": []any{map[string]any{
			"name": "redirect", "options": map[string]any{"baseurl": "https://" + s.Storage + "/"},
		}}}
	}
	auth, err := s.authentication()
	if err != nil {
		return err
	}
	if auth != nil {
		config["auth"] = auth
	}
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, "config.yml"), data, 0o600)
}

// authentication returns what the configuration says of the clients that are let in.
func (s *Server) authentication() (map[string]any, error) {
	switch {
	case s.options.Token:
		authority := filepath.Join(s.dir, "ca.crt")
		return map[string]any{"token": map[string]any{
			"realm": s.Tokens.Realm(), "service": audience, "issuer": tokenserver.Issuer, "rootcertbundle": authority,
		}}, os.WriteFile(authority, s.CA.PEM, 0o600)
	case s.options.Username != "":
		hash, err := bcrypt.GenerateFromPassword([]byte(s.options.Password), bcrypt.MinCost)
		if err != nil {
			return nil, err
		}
		file := filepath.Join(s.dir, "htpasswd")
		return map[string]any{"htpasswd": map[string]any{"realm": "registry", "path": file}},
			os.WriteFile(file, fmt.Appendf(nil, "%s:%s\n", s.options.Username, hash), 0o600)
	}
	return nil, nil //nolint:nilnil // everyone is let in
}

func (s *Server) start(ctx context.Context) (err error) {
	s.process, err = process.Start("registry", s.dir, nil, s.binary, "serve", filepath.Join(s.dir, "config.yml"))
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.CA.Pool()}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	return s.process.Await(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.Host+"/v2/", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("the registry answered with status %d", resp.StatusCode)
		}
		return nil
	})
}
