package simplesigning

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	repository = "registry.example.com/acme/app"
	digestA    = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB    = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// Keys are made, then signatures, and now is later.
var (
	born   = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	signed = born.Add(10 * time.Hour)
	now    = born.Add(20 * time.Hour)
)

func at(when time.Time) *packet.Config {
	return &packet.Config{Time: func() time.Time { return when }, Algorithm: packet.PubKeyAlgoEdDSA}
}

// newEntity returns a key, of Ed25519 unless the configuration says otherwise.
func newEntity(t testing.TB, cfg *packet.Config) *openpgp.Entity {
	t.Helper()
	if cfg == nil {
		cfg = at(born)
	}
	e, err := openpgp.NewEntity("test", "", "test@example.com", cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// armored returns the public part of keys.
func armored(t testing.TB, entities ...*openpgp.Entity) string {
	t.Helper()
	var out bytes.Buffer
	w, err := armor.Encode(&out, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entities {
		if err := e.Serialize(w); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return out.String()
}

// document returns what is signed of an image.
func document(reference, digest string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},`+
		`"type":"atomic container signature"},"optional":{"creator":"test","timestamp":1767261600}}`, reference, digest)
}

// sign returns a message by keys.
func sign(t testing.TB, cfg *packet.Config, content []byte, by ...*openpgp.Entity) []byte {
	t.Helper()
	if cfg == nil {
		cfg = at(signed)
	}
	var out bytes.Buffer
	w, err := openpgp.Sign(&out, by, nil, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// ok returns a good signature on digestA by a key.
func ok(t testing.TB, by *openpgp.Entity) []byte {
	t.Helper()
	return sign(t, nil, document(repository+":v1", digestA), by)
}

// compressed returns a message in a compressed packet.
func compressed(t testing.TB, algorithm packet.CompressionAlgo, message []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := packet.SerializeCompressed(nopCloser{&out}, algorithm, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(message); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return out.Bytes()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// lookaside is a file server with the signatures on images.
type lookaside struct {
	*httptest.Server
	ca *tlstest.CA

	mu       sync.Mutex
	files    map[string][]byte
	answer   func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	requests []*http.Request
}

func newLookaside(t testing.TB) *lookaside {
	t.Helper()
	ca, err := tlstest.NewCA("lookaside")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(pkix.Name{CommonName: "lookaside"})
	if err != nil {
		t.Fatal(err)
	}
	l := &lookaside{ca: ca, files: map[string][]byte{}}
	l.Server = httptest.NewUnstartedServer(l)
	l.Config.ErrorLog = log.New(io.Discard, "", 0)
	l.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
	l.StartTLS()
	l.URL = strings.Replace(l.URL, "127.0.0.1", "localhost", 1)
	t.Cleanup(l.Close)
	return l
}

func (l *lookaside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	l.requests = append(l.requests, r)
	answer, data := l.answer, l.files[r.URL.Path]
	l.mu.Unlock()
	switch {
	case answer != nil && answer(w, r):
	case data == nil:
		http.NotFound(w, r)
	default:
		w.Write(data)
	}
}

// put puts signatures on digestA of the repository there.
func (l *lookaside) put(signatures ...[]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files = map[string][]byte{}
	for i, data := range signatures {
		l.files[fmt.Sprintf("/sigs/acme/app@%s/signature-%d", strings.Replace(digestA, ":", "=", 1), i+1)] = data
	}
}

// fault makes the server answer otherwise; nil: as ever.
func (l *lookaside) fault(answer func(w http.ResponseWriter, r *http.Request) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = answer
}

// of returns a role with a threshold and keys.
func of(t testing.TB, name string, threshold int32, keys ...*openpgp.Entity) v1alpha1.SimpleSigningRole {
	t.Helper()
	return v1alpha1.SimpleSigningRole{
		Name: v1alpha1.RoleName(name), Threshold: threshold,
		Keys: []v1alpha1.OpenPGPKey{v1alpha1.OpenPGPKey(armored(t, keys...))},
	}
}

// spec returns a TrustRoot that reads the lookaside server.
func (l *lookaside) spec(roles ...v1alpha1.SimpleSigningRole) *v1alpha1.TrustRoot {
	tr := &v1alpha1.TrustRoot{}
	tr.Spec.SimpleSigning = &v1alpha1.SimpleSigningSpec{
		Roles: roles, Lookaside: l.URL + "/sigs/", LookasideCABundle: v1alpha1.RegistryCABundle(l.ca.PEM),
	}
	return tr
}

func build(t testing.TB, tr *v1alpha1.TrustRoot) *Root {
	t.Helper()
	return buildAt(t, tr, now)
}

func buildAt(t testing.TB, tr *v1alpha1.TrustRoot, when time.Time) *Root {
	t.Helper()
	root, err := Format{Clock: func() time.Time { return when }, Timeout: 2 * time.Second}.Build(tr, nil)
	if err != nil {
		t.Fatal(err)
	}
	return root.(*Root)
}

func about() trust.Subject {
	return trust.Subject{Repository: repository, Pulled: repository, Digest: digestA}
}

func fetch(t testing.TB, root *Root) trust.Evidence {
	t.Helper()
	e, err := root.Fetch(t.Context(), about(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// provenBy returns the roles that have signed, for a tag or with an empty one by digest alone.
func provenBy(e trust.Evidence, tag string) []string {
	var roles []string
	for _, st := range e.Statements(tag, "") {
		name := st.Role
		if st.TagOnly {
			name += " under " + st.Tag
		}
		if !slices.Contains(roles, name) {
			roles = append(roles, name)
		}
	}
	return roles
}

// because returns the rejections of the role ci for the tag v1.
func because(e trust.Evidence) string {
	var all []string
	for _, r := range e.Rejected([]string{"ci"}, "v1", "") {
		all = append(all, r.By+" "+r.Why)
	}
	return strings.Join(all, "; ")
}

// gpg returns a file that GnuPG has made (testdata/make.sh).
func gpg(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// handmade returns a message whose signature has been edited before it was made.
func handmade(t testing.TB, by *openpgp.Entity, content []byte, edit func(*packet.Signature)) []byte {
	t.Helper()
	s := &packet.Signature{
		Version: by.PrimaryKey.Version, SigType: packet.SigTypeBinary, PubKeyAlgo: by.PrimaryKey.PubKeyAlgo,
		Hash: crypto.SHA256, CreationTime: signed, IssuerKeyId: &by.PrimaryKey.KeyId,
	}
	edit(s)
	h, err := s.PrepareSign(nil)
	if err != nil {
		t.Fatal(err)
	}
	h.Write(content)
	if err := s.Sign(h, by.PrivateKey, nil); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	one := packet.OnePassSignature{
		Version: 3, SigType: s.SigType, Hash: s.Hash, PubKeyAlgo: s.PubKeyAlgo, KeyId: *s.IssuerKeyId, IsLast: true,
	}
	if err := one.Serialize(&out); err != nil {
		t.Fatal(err)
	}
	w, err := packet.SerializeLiteral(nopCloser{&out}, true, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(content)
	w.Close()
	if err := s.Serialize(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
