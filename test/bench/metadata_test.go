package bench

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
)

type object = map[string]any

// key is a key pair as signed metadata lists it.
type key struct {
	private  *ecdsa.PrivateKey
	kind     string
	public   []byte
	id, bare string // bare is the canonical ID
}

func newKey(tb testing.TB) *key {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(tb, err)
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	check(tb, err)
	k := &key{private: private, kind: "ecdsa", public: der}
	k.id = keyID(k.kind, k.public)
	k.bare = k.id
	return k
}

// certified is the key with a certificate of a name, as root keys and those of Docker's signers have one.
func (k *key) certified(tb testing.TB, name string) *key {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.private.Public(), k.private)
	check(tb, err)
	c := &key{private: k.private, kind: "ecdsa-x509", public: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), bare: k.bare}
	c.id = keyID(c.kind, c.public)
	return c
}

func keyID(kind string, public []byte) string {
	sum := sha256.Sum256(fmt.Appendf(nil, `{"keytype":%q,"keyval":{"private":null,"public":%q}}`, kind, base64.StdEncoding.EncodeToString(public)))
	return hex.EncodeToString(sum[:])
}

// canonical is the canonical form of metadata: for printable ASCII, encoding/json's form of maps.
func canonical(tb testing.TB, v any) []byte {
	tb.Helper()
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	check(tb, e.Encode(v))
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

func (k *key) seal(tb testing.TB, kind string, lifetime time.Duration, signed object) []byte {
	tb.Helper()
	signed["_type"], signed["version"], signed["expires"] = kind, 1, time.Now().Add(lifetime).Format(time.RFC3339Nano)
	message := canonical(tb, signed)
	sum := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(rand.Reader, k.private, sum[:])
	check(tb, err)
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return canonical(tb, object{
		"signed":     json.RawMessage(message),
		"signatures": []object{{"keyid": k.id, "method": "ecdsa", "sig": base64.StdEncoding.EncodeToString(signature)}},
	})
}

func listed(keys ...*key) object {
	all := object{}
	for _, k := range keys {
		all[k.id] = object{"keytype": k.kind, "keyval": object{"private": nil, "public": base64.StdEncoding.EncodeToString(k.public)}}
	}
	return all
}

// signers are the keys of an organisation: one root key, certified for each repository, and a key of each role in all of them.
type signers struct {
	root  *key
	roles map[string]*key
}

func newSigners(tb testing.TB) *signers {
	tb.Helper()
	s := &signers{root: newKey(tb), roles: map[string]*key{}}
	for _, role := range roles() {
		s.roles[role] = newKey(tb).certified(tb, role)
	}
	return s
}

// digestHex is the made-up digest of an image.
func digestHex(repository string, i int) string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s %d", repository, i)))
}

// publish signs a repository as Notary's client does, with all tags signed by every role, and puts its files under the paths that a
// Notary server has them at.
func (s *signers) publish(tb testing.TB, repository string, files map[string][]byte) {
	tb.Helper()
	const long, short = 3 * 365 * 24 * time.Hour, 14 * 24 * time.Hour
	prefix := "/v2/" + repository + "/_trust/tuf/"
	meta := object{}
	put := func(name string, raw []byte) {
		short, long := sha256.Sum256(raw), sha512.Sum512(raw)
		meta[name] = object{"length": len(raw), "hashes": object{
			"sha256": base64.StdEncoding.EncodeToString(short[:]), "sha512": base64.StdEncoding.EncodeToString(long[:]),
		}}
		files[prefix+name+".json"] = raw
		files[prefix+name+"."+hex.EncodeToString(short[:])+".json"] = raw
	}
	signed := object{}
	for i := range tags {
		sum, err := hex.DecodeString(digestHex(repository, i))
		check(tb, err)
		signed[tag(i)] = object{"length": 1000 + i, "hashes": object{"sha256": base64.StdEncoding.EncodeToString(sum)}}
	}
	none := object{"keys": object{}, "roles": []object{}}
	var keys []*key
	var delegations []object
	for _, role := range roles() {
		k := s.roles[role]
		put("targets/"+role, k.seal(tb, "Targets", long, object{"targets": signed, "delegations": none}))
		keys = append(keys, k)
		delegations = append(delegations, object{"name": "targets/" + role, "keyids": []string{k.id}, "threshold": 1, "paths": []string{""}})
	}
	root, targets, snapshot, timestamp := s.root.certified(tb, repository), newKey(tb), newKey(tb), newKey(tb)
	put("targets", targets.seal(tb, "Targets", long, object{"targets": object{}, "delegations": object{"keys": listed(keys...), "roles": delegations}}))
	only := func(k *key) object { return object{"keyids": []string{k.id}, "threshold": 1} }
	put("root", root.seal(tb, "Root", 10*365*24*time.Hour, object{
		"consistent_snapshot": false, "keys": listed(root, targets, snapshot, timestamp),
		"roles": object{"root": only(root), "targets": only(targets), "snapshot": only(snapshot), "timestamp": only(timestamp)},
	}))
	put("snapshot", snapshot.seal(tb, "Snapshot", long, object{"meta": meta}))
	put("timestamp", timestamp.seal(tb, "Timestamp", short, object{"meta": object{"snapshot": meta["snapshot"]}}))
}

// published are n repositories.
func published(tb testing.TB, n int) (*signers, map[string][]byte) {
	tb.Helper()
	s, files := newSigners(tb), make(map[string][]byte)
	for i := range n {
		s.publish(tb, repositoryName(i), files)
	}
	return s, files
}

// pin is the configuration that pins the root key.
func (s *signers) pin() notary.Config {
	return notary.Config{Name: "acme-notary", RootKeyIDs: []string{s.root.bare}}
}

// memory is a Notary server whose files are at hand.
type memory map[string][]byte

// Get implements notary.Getter.
func (m memory) Get(_ context.Context, _, path string, _ int64) ([]byte, error) {
	if raw, ok := m[path]; ok {
		return raw, nil
	}
	return nil, fmt.Errorf("%s: %w", path, trust.ErrNotFound)
}

// each does something for every number below n, a few at once, and fails with the first error.
func each(tb testing.TB, n, atOnce int, do func(ctx context.Context, i int) error) {
	tb.Helper()
	group, ctx := errgroup.WithContext(tb.Context())
	group.SetLimit(atOnce)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	check(tb, group.Wait())
}

// isTimestamp tells the one file that a refresh asks for.
func isTimestamp(path string) bool { return strings.HasSuffix(path, "/timestamp.json") }
