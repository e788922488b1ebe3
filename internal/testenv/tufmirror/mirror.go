// Package tufmirror publishes the trusted root of a Sigstore instance in a TUF repository, and
// serves it over TLS. The metadata is made and signed by go-tuf.
package tufmirror

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// TrustedRoot is the path of the trusted root in the repository.
const TrustedRoot = "trusted_root.json"

// Mirror is a TUF repository with consistent snapshots, and its server behind a proxy.
type Mirror struct {
	// Proxy is the server.
	*faultproxy.Proxy

	t         testing.TB
	root      *metadata.Metadata[metadata.RootType]
	targets   *metadata.Metadata[metadata.TargetsType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	timestamp *metadata.Metadata[metadata.TimestampType]
	signers   map[string][]signature.Signer // by role

	mu    sync.Mutex
	files map[string][]byte
}

// Run serves a repository until the test ends. It has version 1 of its metadata, which expires at a
// time, and no target.
func Run(t testing.TB, expires time.Time) *Mirror {
	t.Helper()
	m := &Mirror{
		t: t, root: metadata.Root(expires), targets: metadata.Targets(expires), snapshot: metadata.Snapshot(expires),
		timestamp: metadata.Timestamp(expires), signers: map[string][]signature.Signer{}, files: map[string][]byte{},
	}
	for _, role := range []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP} {
		m.addKey(role)
	}
	m.serve()
	m.writeRoot()
	m.write()
	return m
}

func (m *Mirror) serve() {
	m.t.Helper()
	ca, err := tlstest.NewCA("TUF mirror test CA")
	if err != nil {
		m.t.Fatal(err)
	}
	cert, err := ca.Issue(pkix.Name{CommonName: "tuf-mirror"})
	if err != nil {
		m.t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		m.mu.Lock()
		raw, ok := m.files[req.URL.Path]
		m.mu.Unlock()
		if !ok {
			http.NotFound(w, req)
			return
		}
		_, _ = w.Write(raw) // a client may have gone
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // some tests drop connections
	server.StartTLS()
	m.t.Cleanup(server.Close)
	m.Proxy = faultproxy.Run(m.t, strings.Replace(server.URL, "127.0.0.1", "localhost", 1), ca)
}

func (m *Mirror) addKey(role string) {
	m.t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		m.t.Fatal(err)
	}
	key, err := metadata.KeyFromPublicKey(private.Public())
	if err == nil {
		err = m.root.Signed.AddKey(key, role)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	signer, err := signature.LoadSigner(private, crypto.SHA256)
	if err != nil {
		m.t.Fatal(err)
	}
	m.signers[role] = append(m.signers[role], signer)
}

// Root returns the first root.json.
func (m *Mirror) Root() []byte { return m.File("/1.root.json") }

// Publish publishes a trusted root in new versions of the metadata.
func (m *Mirror) Publish(trustedRoot []byte) {
	m.t.Helper()
	file, err := metadata.TargetFile().FromBytes(TrustedRoot, trustedRoot)
	if err != nil {
		m.t.Fatal(err)
	}
	m.targets.Signed.Targets[TrustedRoot] = file
	m.targets.Signed.Version++
	m.Put(m.TargetFile(trustedRoot), trustedRoot)
	m.publish()
}

// Withdraw publishes new versions of the metadata without a trusted root.
func (m *Mirror) Withdraw() {
	m.t.Helper()
	m.targets.Signed.Targets = map[string]*metadata.TargetFiles{}
	m.targets.Signed.Version++
	m.publish()
}

// Renew signs new versions of the snapshot and the timestamp, which expire at a time.
func (m *Mirror) Renew(expires time.Time) {
	m.t.Helper()
	m.snapshot.Signed.Expires, m.timestamp.Signed.Expires = expires.UTC(), expires.UTC()
	m.publish()
}

// RotateKeys replaces the keys of all roles in a new version of the root.
func (m *Mirror) RotateKeys() {
	m.t.Helper()
	before := m.signers[metadata.ROOT]
	for role, of := range m.root.Signed.Roles {
		for _, id := range slices.Clone(of.KeyIDs) {
			if err := m.root.Signed.RevokeKey(id, role); err != nil {
				m.t.Fatal(err)
			}
		}
		m.signers[role] = nil
		m.addKey(role)
	}
	own := m.signers[metadata.ROOT]
	m.signers[metadata.ROOT] = slices.Concat(own, before)
	m.root.Signed.Version++
	m.writeRoot()
	m.signers[metadata.ROOT] = own
	m.targets.Signed.Version++
	m.publish()
}

func (m *Mirror) publish() {
	m.t.Helper()
	m.snapshot.Signed.Version++
	m.timestamp.Signed.Version++
	m.write()
}

func (m *Mirror) writeRoot() {
	m.t.Helper()
	raw := signed(m.t, m.root, m.signers[metadata.ROOT])
	m.Put(fmt.Sprintf("/%d.root.json", m.root.Signed.Version), raw)
}

// write signs the targets, the snapshot and the timestamp.
func (m *Mirror) write() {
	m.t.Helper()
	m.snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(m.targets.Signed.Version)
	m.timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(m.snapshot.Signed.Version)
	m.Put(fmt.Sprintf("/%d.targets.json", m.targets.Signed.Version),
		signed(m.t, m.targets, m.signers[metadata.TARGETS]))
	m.Put(fmt.Sprintf("/%d.snapshot.json", m.snapshot.Signed.Version),
		signed(m.t, m.snapshot, m.signers[metadata.SNAPSHOT]))
	m.Put("/timestamp.json", signed(m.t, m.timestamp, m.signers[metadata.TIMESTAMP]))
}

func signed[T metadata.Roles](t testing.TB, file *metadata.Metadata[T], signers []signature.Signer) []byte {
	t.Helper()
	file.ClearSignatures()
	for _, signer := range signers {
		if _, err := file.Sign(signer); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := file.ToBytes(false)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TargetFile returns the path at which the server has a trusted root.
func (*Mirror) TargetFile(trustedRoot []byte) string {
	sum := sha256.Sum256(trustedRoot)
	return "/targets/" + hex.EncodeToString(sum[:]) + "." + TrustedRoot
}

// File returns a file of the server.
func (m *Mirror) File(path string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.files[path]
}

// Put replaces a file of the server, which nobody need have signed.
func (m *Mirror) Put(path string, content []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[path] = content
}

// Files returns all files of the server, for Restore.
func (m *Mirror) Files() map[string][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.files)
}

// Restore replaces all files of the server, as by one that shows an older state.
func (m *Mirror) Restore(files map[string][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files = maps.Clone(files)
}
