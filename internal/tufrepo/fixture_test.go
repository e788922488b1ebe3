package tufrepo_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
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

	"github.com/countersign-dev/countersign/internal/canonicaljson"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

// today is the time of every test.
var today = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var topLevel = []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS}

// A key is a signing key with its form in metadata.
type key struct {
	signature.Signer
	public *metadata.Key
	id     string
}

func newKey(t testing.TB) *key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keyOf(t, private)
}

func newECDSAKey(t testing.TB) *key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keyOf(t, private)
}

func keyOf(t testing.TB, private crypto.PrivateKey) *key {
	t.Helper()
	signer, err := signature.LoadSigner(private, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return withSigner(t, signer)
}

func withSigner(t testing.TB, signer signature.Signer) *key {
	t.Helper()
	public, err := signer.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	k := &key{Signer: signer}
	if k.public, err = metadata.KeyFromPublicKey(public); err != nil {
		t.Fatal(err)
	}
	if k.id, err = k.public.ID(); err != nil {
		t.Fatal(err)
	}
	return k
}

// A repository is made with go-tuf's metadata API, and served by a loopback server behind a proxy.
type repository struct {
	t         testing.TB
	root      *metadata.Metadata[metadata.RootType]
	timestamp *metadata.Metadata[metadata.TimestampType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	targets   map[string]*metadata.Metadata[metadata.TargetsType] // targets and delegated roles
	keys      map[string][]*key                                   // the signers of a role
	hashes    bool                                                // timestamp and snapshot list them
	mutate    map[string]func(signed map[string]any)              // a role's signed part, before it is signed

	proxy *faultproxy.Proxy
	mu    sync.Mutex
	files map[string][]byte
}

// newRepository publishes a repository with version 1 of every top-level file.
func newRepository(t testing.TB) *repository {
	t.Helper()
	until := today.AddDate(1, 0, 0)
	r := &repository{
		t: t, root: metadata.Root(until), timestamp: metadata.Timestamp(until), snapshot: metadata.Snapshot(until),
		targets: map[string]*metadata.Metadata[metadata.TargetsType]{metadata.TARGETS: metadata.Targets(until)},
		keys:    map[string][]*key{}, files: map[string][]byte{}, mutate: map[string]func(map[string]any){},
	}
	for _, role := range topLevel {
		r.addKey(role, newKey(t))
	}
	r.serve()
	r.write(topLevel...)
	return r
}

func (r *repository) serve() {
	r.t.Helper()
	ca, err := tlstest.NewCA("repository")
	if err != nil {
		r.t.Fatal(err)
	}
	cert, err := ca.Issue(pkix.Name{CommonName: "repository"})
	if err != nil {
		r.t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		raw, ok := r.files[req.URL.EscapedPath()]
		r.mu.Unlock()
		if !ok {
			http.NotFound(w, req)
			return
		}
		_, _ = w.Write(raw)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // some tests drop connections
	server.StartTLS()
	r.t.Cleanup(server.Close)
	r.proxy = faultproxy.Run(r.t, strings.Replace(server.URL, "127.0.0.1", "localhost", 1), ca)
}

// put serves a file.
func (r *repository) put(path string, raw []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[path] = raw
}

// served returns a file.
func (r *repository) served(path string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.files[path]
}

// copied returns all files, and back serves them instead of the present ones.
func (r *repository) copied() map[string][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.files)
}

func (r *repository) back(files map[string][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files = maps.Clone(files)
}

// addKey adds a key to a top-level role.
func (r *repository) addKey(role string, k *key) {
	r.t.Helper()
	if err := r.root.Signed.AddKey(k.public, role); err != nil {
		r.t.Fatal(err)
	}
	r.keys[role] = append(r.keys[role], k)
}

// rotate replaces the keys of a top-level role. The old root keys sign the next root too.
func (r *repository) rotate(role string) {
	r.t.Helper()
	for _, id := range slices.Clone(r.root.Signed.Roles[role].KeyIDs) {
		if err := r.root.Signed.RevokeKey(id, role); err != nil {
			r.t.Fatal(err)
		}
	}
	old := r.keys[role]
	r.keys[role] = nil
	r.addKey(role, newKey(r.t))
	if role == metadata.ROOT {
		r.keys[role] = append(r.keys[role], old...)
	}
}

// delegate adds a delegation with a new key, and an empty file of the role.
func (r *repository) delegate(from, name string, paths ...string) *metadata.DelegatedRole {
	r.t.Helper()
	if r.targets[name] == nil {
		r.targets[name] = metadata.Targets(today.AddDate(1, 0, 0))
		r.targets[name].Signed.Version = 0
	}
	k := newKey(r.t)
	r.keys[name] = append(r.keys[name], k)
	d := r.delegations(from)
	d.Keys[k.id] = k.public
	d.Roles = append(d.Roles, metadata.DelegatedRole{
		Name: name, KeyIDs: []string{k.id}, Threshold: 1, Paths: paths,
	})
	return &d.Roles[len(d.Roles)-1]
}

// delegation returns an entry of a role.
func (r *repository) delegation(from, name string) *metadata.DelegatedRole {
	r.t.Helper()
	d := r.delegations(from)
	i := slices.IndexFunc(d.Roles, func(d metadata.DelegatedRole) bool { return d.Name == name })
	if i < 0 {
		r.t.Fatalf("%s does not delegate to %s", from, name)
	}
	return &d.Roles[i]
}

func (r *repository) delegations(from string) *metadata.Delegations {
	signed := &r.targets[from].Signed
	if signed.Delegations == nil {
		signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	}
	return signed.Delegations
}

// split splits a role into hash bins with one key, and returns their names.
func (r *repository) split(role, prefix string, bits int) []string {
	r.t.Helper()
	k := newKey(r.t)
	bins := &metadata.SuccinctRoles{KeyIDs: []string{k.id}, Threshold: 1, BitLength: bits, NamePrefix: prefix}
	r.targets[role].Signed.Delegations = &metadata.Delegations{
		Keys: map[string]*metadata.Key{k.id: k.public}, SuccinctRoles: bins,
	}
	for _, name := range bins.GetRoles() {
		r.targets[name] = metadata.Targets(today.AddDate(1, 0, 0))
		r.targets[name].Signed.Version = 0
		r.keys[name] = []*key{k}
	}
	return bins.GetRoles()
}

// sign lists a target in the file of a role.
func (r *repository) sign(role, path string, content []byte) {
	r.t.Helper()
	file, err := metadata.TargetFile().FromBytes(path, content)
	if err != nil {
		r.t.Fatal(err)
	}
	r.targets[role].Signed.Targets[path] = file
}

// publish writes new versions of roles, and of snapshot and timestamp.
func (r *repository) publish(roles ...string) {
	r.t.Helper()
	for _, role := range roles {
		switch role {
		case metadata.ROOT:
			r.root.Signed.Version++
		case metadata.TIMESTAMP, metadata.SNAPSHOT:
			r.t.Fatalf("publish(%s): it always writes it", role)
		default:
			r.targets[role].Signed.Version++
		}
	}
	r.snapshot.Signed.Version++
	r.timestamp.Signed.Version++
	r.write(append(roles, metadata.SNAPSHOT, metadata.TIMESTAMP)...)
}

// write signs and serves the files of roles, and lists their versions.
func (r *repository) write(roles ...string) {
	r.t.Helper()
	for _, role := range roles {
		if file, ok := r.targets[role]; ok {
			raw := r.signed(role, file.Signed)
			r.put(fmt.Sprintf("/%d.%s.json", file.Signed.Version, strings.ReplaceAll(role, "/", "%2F")), raw)
			r.snapshot.Signed.Meta[role+".json"] = r.meta(file.Signed.Version, raw)
		}
	}
	if slices.Contains(roles, metadata.SNAPSHOT) {
		raw := r.signed(metadata.SNAPSHOT, r.snapshot.Signed)
		r.put(fmt.Sprintf("/%d.snapshot.json", r.snapshot.Signed.Version), raw)
		r.timestamp.Signed.Meta["snapshot.json"] = r.meta(r.snapshot.Signed.Version, raw)
	}
	if slices.Contains(roles, metadata.TIMESTAMP) {
		r.put("/timestamp.json", r.signed(metadata.TIMESTAMP, r.timestamp.Signed))
	}
	if slices.Contains(roles, metadata.ROOT) {
		r.put(fmt.Sprintf("/%d.root.json", r.root.Signed.Version), r.signed(metadata.ROOT, r.root.Signed))
	}
}

func (r *repository) meta(version int64, raw []byte) *metadata.MetaFiles {
	m := metadata.MetaFile(version)
	if r.hashes {
		sum := sha256.Sum256(raw)
		m.Hashes, m.Length = metadata.Hashes{"sha256": sum[:]}, int64(len(raw))
	}
	return m
}

// signed returns a file, signed by the keys of its role.
func (r *repository) signed(role string, signed any) []byte {
	r.t.Helper()
	var fields map[string]any
	plain, err := json.Marshal(signed)
	if err == nil {
		err = json.Unmarshal(plain, &fields)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	if mutate := r.mutate[role]; mutate != nil {
		mutate(fields)
	}
	return seal(r.t, fields, r.keys[role]...)
}

// seal returns a file with the signatures of keys.
func seal(t testing.TB, fields map[string]any, keys ...*key) []byte {
	t.Helper()
	plain, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	message, err := canonicaljson.Encode(plain)
	if err != nil {
		t.Fatal(err)
	}
	signatures := []map[string]string{}
	for _, k := range keys {
		sig, err := k.SignMessage(strings.NewReader(string(message)))
		if err != nil {
			t.Fatal(err)
		}
		signatures = append(signatures, map[string]string{"keyid": k.id, "sig": hex.EncodeToString(sig)})
	}
	raw, err := json.Marshal(map[string]any{"signatures": signatures, "signed": json.RawMessage(plain)})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// requests returns the paths that were requested since the last reset, sorted.
func (r *repository) requests() []string {
	var all []string
	for _, req := range r.proxy.Requests() {
		all = append(all, req.Path)
	}
	slices.Sort(all)
	return all
}

// getter returns the client of the repository's server.
func (r *repository) getter() *registry.Files {
	r.t.Helper()
	get, err := registry.NewFiles(registry.Config{
		Server: r.proxy.URL, CABundle: string(r.proxy.CA.PEM), Timeout: 10 * time.Second,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return get
}

// client returns a client that pins the first root.
func (r *repository) client(change ...func(*tufrepo.Config)) *tufrepo.Client {
	r.t.Helper()
	cfg := tufrepo.Config{
		Name: "https://tuf.example.com", Root: r.served("/1.root.json"), TargetsPath: "/targets",
		Clock: func() time.Time { return today },
	}
	for _, c := range change {
		c(&cfg)
	}
	c, err := tufrepo.New(cfg, r.getter())
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// refreshed returns the State of a client.
func refreshed(t testing.TB, c *tufrepo.Client, held *tufrepo.State) *tufrepo.State {
	t.Helper()
	s, err := c.Refresh(t.Context(), held)
	if err != nil {
		t.Fatalf("Refresh: %v", err)
	}
	return s
}

// loaded refreshes a State and loads paths.
func loaded(t testing.TB, c *tufrepo.Client, held *tufrepo.State, paths ...string) *tufrepo.State {
	t.Helper()
	s, err := c.Load(t.Context(), refreshed(t, c, held), paths...)
	if err != nil {
		t.Fatalf("Load(%v): %v", paths, err)
	}
	return s
}

// wantFault checks the reason and words of a fault.
func wantFault(t testing.TB, err error, reason string, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want a fault %s", reason)
	}
	if f := trust.AsFault(err, "none"); f.Reason != reason {
		t.Errorf("got fault %s (%v), want %s", f.Reason, err, reason)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("got message %q, want it to contain %q", err, word)
		}
	}
}

// roles returns the roles that have signed a path, sorted.
func roles(s *tufrepo.State, path string) []string {
	all := []string{}
	for _, signed := range s.Signed(path, today).Signed {
		all = append(all, signed.Role)
	}
	slices.Sort(all)
	return all
}

// wantRoles compares the roles that have signed a path.
func wantRoles(t testing.TB, s *tufrepo.State, path string, want ...string) {
	t.Helper()
	if got := roles(s, path); !slices.Equal(got, want) {
		t.Errorf("%s: got it signed by %q, want %q; rejected: %+v", path, got, want, s.Signed(path, today).Rejected)
	}
}

// wantRejected checks that a file does not count for a path, with words of the reason.
func wantRejected(t testing.TB, s *tufrepo.State, path, file string, words ...string) {
	t.Helper()
	rejected := s.Signed(path, today).Rejected
	i := slices.IndexFunc(rejected, func(r tufrepo.Rejection) bool { return r.File == file })
	if i < 0 {
		t.Fatalf("%s: got rejections %+v, want one of %s", path, rejected, file)
	}
	for _, word := range words {
		if !strings.Contains(rejected[i].Why, word) {
			t.Errorf("%s: got %s rejected since it %q, want %q in it", path, file, rejected[i].Why, word)
		}
	}
}
