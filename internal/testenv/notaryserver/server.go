// Package notaryserver runs a real Notary v1 server, its signer and a token service. It also runs
// the notary command, and makes keys for signers.
package notaryserver

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/forward"
	"github.com/countersign-dev/countersign/internal/testenv/process"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/internal/testenv/tokenserver"
)

// audience is the name of the server in tokens.
const audience = "notary"

// Auth are the credentials of a Notary server, and what needs none.
type Auth = tokenserver.Auth

// publisher is the base name of the files that hold the publishers' client certificate.
const publisher = "publisher"

// Options are the options of a Notary server. The zero value is a server that requires no
// credentials and signs timestamps and snapshots itself, with ed25519 keys.
type Options struct {
	// Signer runs the real signer, which the server calls over mutual TLS. The keys of timestamps
	// and snapshots are then ecdsa.
	Signer bool
	// Auth makes the server require a token. The token service runs in this process.
	Auth *Auth
	// ClientCertificates makes the server require a client certificate of its CA. A Client sends
	// one.
	ClientCertificates bool
	// Host is the IP address of the server, for example one that Pods reach. Empty: loopback, as
	// localhost.
	Host string
	// Dir holds configuration, logs and trust directories. Empty: a temporary folder that Stop
	// removes.
	Dir string
	// Progress receives messages about builds. Nil: os.Stderr.
	Progress io.Writer
}

// Server is a running Notary v1 server. It stores metadata in memory, so a restart loses everything
// that was published.
type Server struct {
	// URL is the server's base URL: https, on a loopback port unless the options name a host.
	URL string
	// CA issued the server's certificate.
	CA *tlstest.CA
	// TokenService is the host and port of the token service; empty without one.
	TokenService string

	options    Options
	dir        string
	ownsDir    bool
	binaries   build.NotaryBinaries
	serverPort int
	publisher  *tlstest.Certificate // client certificate
	server     *process.Process
	signer     *process.Process
	tokens     *tokenserver.Server
	front      *forward.Forwarder
}

// Start builds the Notary binaries if needed, and runs a server on free loopback ports with new
// certificates. It returns when the server's health check succeeds.
func Start(ctx context.Context, options Options) (_ *Server, err error) {
	if options.Progress == nil {
		options.Progress = os.Stderr
	}
	n := &Server{options: options, dir: options.Dir}
	defer func() {
		if err != nil {
			_ = n.Stop()
		}
	}()
	if n.binaries, err = build.Notary(ctx, options.Progress); err != nil {
		return nil, err
	}
	if n.dir == "" {
		if n.dir, err = os.MkdirTemp("", "countersign-notary-"); err != nil {
			return nil, fmt.Errorf("making a folder for the Notary server: %w", err)
		}
		n.ownsDir = true
	}
	if n.CA, err = tlstest.NewCA("Notary test CA"); err != nil {
		return nil, err
	}
	if n.serverPort, err = process.FreePort(); err != nil {
		return nil, err
	}
	if n.front, err = forward.At(cmp.Or(options.Host, "127.0.0.1"),
		net.JoinHostPort("127.0.0.1", strconv.Itoa(n.serverPort))); err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(n.front.Address)
	if err != nil {
		return nil, err
	}
	n.URL = "https://" + net.JoinHostPort(cmp.Or(options.Host, "localhost"), port)
	if n.publisher, err = n.CA.Issue(pkix.Name{CommonName: publisher}); err != nil {
		return nil, err
	}
	if err := n.configure(ctx); err != nil {
		return nil, err
	}
	return n, n.startServer(ctx)
}

// Run runs a Notary server until the test ends.
func Run(t testing.TB, options Options) *Server {
	t.Helper()
	n, err := Start(t.Context(), options)
	if err != nil {
		t.Fatalf("starting the Notary server: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(n.server.Tail())
		}
		if err := n.Stop(); err != nil {
			t.Errorf("stopping the Notary server: %v", err)
		}
	})
	return n
}

// configure writes the server's configuration, and starts the signer and the token service.
func (n *Server) configure(ctx context.Context) error {
	if err := os.WriteFile(filepath.Join(n.dir, "ca.crt"), n.CA.PEM, 0o644); err != nil {
		return err
	}
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if n.options.Host != "" {
		hosts = append(hosts, n.options.Host)
	}
	cert, err := n.CA.Issue(pkix.Name{CommonName: "notary-server"}, hosts...)
	if err != nil {
		return err
	}
	certFile, keyFile, err := cert.Write(n.dir, "notary-server")
	if err != nil {
		return err
	}
	server := map[string]any{
		"http_addr":     net.JoinHostPort("127.0.0.1", strconv.Itoa(n.serverPort)),
		"tls_cert_file": certFile,
		"tls_key_file":  keyFile,
	}
	if n.options.ClientCertificates {
		server["client_ca_file"] = filepath.Join(n.dir, "ca.crt")
	}
	if _, _, err = n.publisher.Write(n.dir, publisher); err != nil {
		return err
	}
	config := map[string]any{
		"server":        server,
		"trust_service": map[string]any{"type": "local"},
		"logging":       map[string]any{"level": "info"},
		"storage":       map[string]any{"backend": "memory"},
		"caching":       map[string]any{"max_age": map[string]any{"current_metadata": "0"}},
	}
	if n.options.Signer {
		if config["trust_service"], err = n.startSigner(ctx, certFile, keyFile); err != nil {
			return err
		}
	}
	if n.options.Auth != nil {
		if n.tokens, err = tokenserver.Start(n.CA, audience, *n.options.Auth); err != nil {
			return err
		}
		n.TokenService = n.tokens.Host
		config["auth"] = map[string]any{"type": "token", "options": map[string]any{
			"realm": n.tokens.Realm(), "issuer": tokenserver.Issuer, "service": audience,
			"rootcertbundle": filepath.Join(n.dir, "ca.crt"),
		}}
	}
	return writeJSON(filepath.Join(n.dir, "server.json"), config)
}

func (n *Server) startSigner(ctx context.Context, clientCert, clientKey string) (trustService map[string]any,
	err error) {
	port, err := process.FreePort()
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	cert, err := n.CA.Issue(pkix.Name{CommonName: "notary-signer"})
	if err != nil {
		return nil, err
	}
	certFile, keyFile, err := cert.Write(n.dir, "notary-signer")
	if err != nil {
		return nil, err
	}
	ca := filepath.Join(n.dir, "ca.crt")
	err = writeJSON(filepath.Join(n.dir, "signer.json"), map[string]any{
		"server": map[string]any{
			"grpc_addr": address, "tls_cert_file": certFile, "tls_key_file": keyFile, "client_ca_file": ca,
		},
		"logging": map[string]any{"level": "info"},
		"storage": map[string]any{"backend": "memory"},
	})
	if err != nil {
		return nil, err
	}
	n.signer, err = process.Start("notary-signer", n.dir, nil, n.binaries.Signer, "-config",
		filepath.Join(n.dir, "signer.json"))
	if err != nil {
		return nil, err
	}
	err = n.signer.Await(ctx, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return map[string]any{
		"type": "remote", "hostname": "localhost", "port": strconv.Itoa(port), "key_algorithm": "ecdsa",
		"tls_ca_file": ca, "tls_client_cert": clientCert, "tls_client_key": clientKey,
	}, err
}

func (n *Server) startServer(ctx context.Context) (err error) {
	n.server, err = process.Start("notary-server", n.dir, nil, n.binaries.Server, "-config",
		filepath.Join(n.dir, "server.json"))
	if err != nil {
		return err
	}
	client := &http.Client{
		Timeout: 2 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: n.CA.Pool(), Certificates: []tls.Certificate{n.publisher.TLS}},
			DisableKeepAlives: true,
		},
	}
	return n.server.Await(ctx, func(ctx context.Context) error {
		return process.Healthy(ctx, client, n.URL+"/_notary_server/health")
	})
}

// SetTokenFaults replaces the faults of the token service.
func (n *Server) SetTokenFaults(faults ...faultproxy.Fault) { n.tokens.SetFaults(faults...) }

// TokensIssued returns the number of tokens that the token service has issued.
func (n *Server) TokensIssued() int64 { return n.tokens.Issued() }

// Server returns the server's process, so that a test can pause or kill it.
func (n *Server) Server() *process.Process { return n.server }

// Disconnect makes the server's address refuse connections. The server keeps its metadata.
func (n *Server) Disconnect() { n.front.Disconnect() }

// Reconnect ends a Disconnect. The address stays the same.
func (n *Server) Reconnect() error { return n.front.Connect() }

// Restart ends the server and starts another with the same address and certificate. All metadata is
// lost, and the server's own keys too, unless a signer holds them.
func (n *Server) Restart(ctx context.Context) error {
	if err := n.server.Stop(); err != nil {
		return err
	}
	return n.startServer(ctx)
}

// Stop ends the server, its signer and its token service.
func (n *Server) Stop() error {
	err := n.server.Stop()
	if n.front != nil {
		n.front.Disconnect()
	}
	if e := n.signer.Stop(); err == nil {
		err = e
	}
	n.tokens.Stop()
	if n.ownsDir {
		if e := os.RemoveAll(n.dir); err == nil {
			err = e
		}
	}
	return err
}

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", path, err)
	}
	return os.WriteFile(path, text, 0o600)
}
