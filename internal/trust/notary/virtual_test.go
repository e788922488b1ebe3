package notary

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/canonicaljson"
	"github.com/countersign-dev/countersign/internal/trust"
)

const testGUN = "registry.example.com/acme/app"

// testNow returns the current time of every test.
func testNow() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

type m = map[string]any

// keysObject returns a "keys" object.
func keysObject(keys ...*testKey) m {
	out := m{}
	for _, k := range keys {
		out[k.id] = m{
			"keytype": k.keyType, "keyval": m{"private": nil, "public": base64.StdEncoding.EncodeToString(k.public)},
		}
	}
	return out
}

func roleObject(threshold int, keys ...*testKey) m {
	ids := []string{}
	for _, k := range keys {
		ids = append(ids, k.id)
	}
	return m{"keyids": ids, "threshold": threshold}
}

// canonicalJSON is an independent generator: for printable ASCII, the output of encoding/json for
// maps is canonical. Raw messages stay unchanged.
func canonicalJSON(t testing.TB, v any) []byte {
	t.Helper()
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

func sealed(t testing.TB, signed m, keys ...*testKey) []byte {
	t.Helper()
	message := canonicalJSON(t, signed)
	signable := inCanonicalForm(message)
	sigs := []m{}
	for _, k := range keys {
		sigs = append(sigs, m{
			"keyid": k.id, "method": k.method, "sig": base64.StdEncoding.EncodeToString(k.sign(t, signable)),
		})
	}
	return append(canonicalJSON(t, m{"signed": json.RawMessage(message), "signatures": sigs}), '\n')
}

// inCanonicalForm returns the canonical form, which is signed. Invalid messages stay unchanged.
func inCanonicalForm(message []byte) []byte {
	form, err := canonicaljson.Encode(message)
	if err != nil {
		return message
	}
	return form
}

// vrole is one signed file of a virtual repository, with the role that signs it.
type vrole struct {
	name      string
	keys      []*testKey // the parent lists these
	signers   []*testKey // the actual signers; nil: keys
	threshold int
	version   int
	expires   time.Time
	paths     []string
	targets   m
	mutate    func(signed m)             // before it is signed
	rewrite   func(raw []byte) []byte    // before it is hashed
	extra     map[string]json.RawMessage // unknown fields
}

// virtual is a generated repository, served over HTTP.
type virtual struct {
	t        testing.TB
	gun      string
	roles    map[string]*vrole
	metas    map[string]m // listed length and hashes of each file
	mutate   map[string]func(meta m)
	unlist   map[string]bool
	mu       sync.Mutex
	files    map[string][]byte // by name on the server
	serve    map[string]http.HandlerFunc
	received []string
	server   *httptest.Server
	current  map[string][]byte // by role
}

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// entry returns a target whose manifest is content.
func entry(content string) m {
	sum := sha256.Sum256([]byte(content))
	return m{"length": len(content), "hashes": m{"sha256": base64.StdEncoding.EncodeToString(sum[:])}}
}

// newVirtual creates a repository with ECDSA keys, in which ci and qa have signed v1.
func newVirtual(t testing.TB) *virtual {
	t.Helper()
	v := &virtual{
		t: t, gun: testGUN, roles: map[string]*vrole{}, mutate: map[string]func(m){}, unlist: map[string]bool{},
		files: map[string][]byte{}, serve: map[string]http.HandlerFunc{},
	}
	for _, name := range []string{"root", "timestamp", "snapshot", "targets"} {
		v.roles[name] = &vrole{
			name: name, keys: []*testKey{newKey(t, "ecdsa", "")}, threshold: 1, version: 5,
			expires: testNow().AddDate(1, 0, 0),
		}
	}
	v.roles["root"].keys = []*testKey{newRootKey(t)}
	v.roles["timestamp"].expires = testNow().AddDate(0, 0, 14)
	v.delegate("targets/ci", entry("one"))
	v.delegate("targets/qa", entry("one"))
	v.server = httptest.NewServer(v)
	t.Cleanup(v.server.Close)
	v.publish()
	return v
}

// delegate adds a delegation with its own key, which has signed v1.
func (v *virtual) delegate(name string, v1 m) *vrole {
	v.t.Helper()
	r := &vrole{
		name: name, keys: []*testKey{newKey(v.t, "ecdsa", "")}, threshold: 1, version: 5,
		expires: testNow().AddDate(1, 0, 0), paths: []string{""}, targets: m{},
	}
	if v1 != nil {
		r.targets["v1"] = v1
	}
	v.roles[name] = r
	return r
}

func (v *virtual) role(name string) *vrole {
	v.t.Helper()
	if v.roles[name] == nil {
		v.t.Fatalf("got no role %s", name)
	}
	return v.roles[name]
}

// build signs the file of a role.
func (v *virtual) build(r *vrole, signed m) []byte {
	signed["version"] = r.version
	signed["expires"] = r.expires.Format(time.RFC3339Nano)
	for name, raw := range r.extra {
		signed[name] = raw
	}
	if r.mutate != nil {
		r.mutate(signed)
	}
	signers := r.signers
	if signers == nil {
		signers = r.keys
	}
	raw := sealed(v.t, signed, signers...)
	if r.rewrite != nil {
		raw = r.rewrite(raw)
	}
	return raw
}

func (v *virtual) targetsFile(r *vrole) m {
	signed := m{"_type": "Targets", "targets": m{}}
	if r.targets != nil {
		signed["targets"] = r.targets
	}
	var keys []*testKey
	roles := []m{}
	for _, name := range slices.Sorted(maps.Keys(v.roles)) {
		child := v.roles[name]
		if rest, ok := strings.CutPrefix(name, r.name+"/"); ok && !strings.Contains(rest, "/") {
			keys = append(keys, child.keys...)
			o := roleObject(child.threshold, child.keys...)
			o["name"], o["paths"] = name, child.paths
			roles = append(roles, o)
		}
	}
	signed["delegations"] = m{"keys": keysObject(keys...), "roles": roles}
	return signed
}

// publish signs every file again, with the hashes of the listed files, and serves them from now on.
func (v *virtual) publish() {
	v.t.Helper()
	v.current = map[string][]byte{}
	v.metas = map[string]m{}
	names := slices.Sorted(maps.Keys(v.roles))
	for _, name := range names {
		if strings.HasPrefix(name, "targets") {
			v.put(name, v.build(v.roles[name], v.targetsFile(v.roles[name])))
		}
	}
	root := m{"_type": "Root", "consistent_snapshot": false, "roles": m{}}
	var keys []*testKey
	for _, name := range []string{"root", "timestamp", "snapshot", "targets"} {
		r := v.roles[name]
		root["roles"].(m)[name] = roleObject(r.threshold, r.keys...)
		keys = append(keys, r.keys...)
	}
	root["keys"] = keysObject(keys...)
	raw := v.files[fmt.Sprintf("%d.root.json", v.roles["root"].version)]
	if raw == nil { // a root version is published once
		raw = v.build(v.roles["root"], root)
	}
	v.put("root", raw)
	listed := m{}
	for name, meta := range v.metas {
		if !v.unlist[name] {
			listed[name] = meta
		}
	}
	v.put("snapshot", v.build(v.roles["snapshot"], m{"_type": "Snapshot", "meta": listed}))
	v.put("timestamp",
		v.build(v.roles["timestamp"], m{"_type": "Timestamp", "meta": m{"snapshot": v.metas["snapshot"]}}))
}

// put serves the file of a role by name, by hash and, for a root, by version.
func (v *virtual) put(name string, raw []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	sum, long := sha256.Sum256(raw), sha512.Sum512(raw)
	v.metas[name] = m{"length": len(raw), "hashes": m{
		"sha256": base64.StdEncoding.EncodeToString(sum[:]), "sha512": base64.StdEncoding.EncodeToString(long[:]),
	}}
	if change := v.mutate[name]; change != nil {
		change(v.metas[name])
	}
	v.current[name] = raw
	v.files[name+".json"] = raw
	v.files[name+"."+hex.EncodeToString(sum[:])+".json"] = raw
	if name == "root" {
		v.files[fmt.Sprintf("%d.root.json", v.roles["root"].version)] = raw
	}
}

// bump raises the versions of roles, so that publish changes them.
func (v *virtual) bump(names ...string) {
	for _, name := range names {
		v.roles[name].version++
	}
}

// ServeHTTP implements http.Handler. v.serve overrides the file of a role, whatever name or hash
// the request has.
func (v *virtual) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/v2/"+v.gun+"/_trust/tuf/")
	v.mu.Lock()
	v.received = append(v.received, name)
	raw := v.files[name]
	role, _, _ := strings.Cut(name, ".")
	if strings.HasSuffix(name, ".root.json") {
		role = "N.root"
	}
	override := v.serve[role]
	v.mu.Unlock()
	switch {
	case override != nil:
		override(w, r)
	case name == "/v2/":
		_, _ = io.WriteString(w, "{}")
	case raw == nil:
		notFound(w, r)
	default:
		_, _ = w.Write(raw)
	}
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusNotFound)
	_, _ = io.WriteString(w,
		`{"errors":[{"code":"METADATA_NOT_FOUND","message":"You have requested metadata that does not exist.","detail":null}]}`)
}

func (v *virtual) requests() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := v.received
	v.received = nil
	slices.Sort(out)
	return out
}

// httpGetter is a minimal Getter.
type httpGetter struct {
	url    string
	client *http.Client
}

func (g httpGetter) Get(ctx context.Context, _, path string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+path, nil)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonUnreachable, "making a request: %w", err)
	}
	client := cmp.Or(g.client, http.DefaultClient)
	resp, err := client.Do(req)
	if err != nil {
		return nil, networkFault(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, networkFault(err)
	case resp.StatusCode == http.StatusNotFound && bytes.Contains(body, []byte(`"errors"`)):
		_, code, _ := strings.Cut(string(body), `"code":"`)
		code, _, _ = strings.Cut(code, `"`)
		return nil, fmt.Errorf("%s: %w", path, &trust.NotFound{Code: code})
	case resp.StatusCode == http.StatusNotFound:
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "status 404 without a registry's error")
	case resp.StatusCode != http.StatusOK:
		return nil, trust.NewFault(v1alpha1.ReasonServerError, "status %d", resp.StatusCode)
	case int64(len(body)) > limit:
		return nil, trust.NewFault(v1alpha1.ReasonTooLarge, "more than %d bytes", limit)
	}
	return body, nil
}

func networkFault(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return trust.NewFault(v1alpha1.ReasonTimeout, "no answer in time: %w", err)
	}
	return trust.NewFault(v1alpha1.ReasonUnreachable, "no answer: %w", err)
}

// config returns a Config that pins the root key of the repository.
func (v *virtual) config() Config {
	return Config{
		Name: "acme", RootKeys: []PEM{{Field: "spec.notary.root.keys[0]", Data: string(v.roles["root"].keys[0].bare)}},
		Clock: testNow,
	}
}

func (v *virtual) root(cfg Config) *Root {
	v.t.Helper()
	r, err := New(cfg, httpGetter{url: v.server.URL})
	if err != nil {
		v.t.Fatal(err)
	}
	return r
}

// mustFetch fetches a repository that must verify.
func mustFetch(t testing.TB, r *Root, previous trust.Evidence) trust.Evidence {
	t.Helper()
	ev, err := r.Fetch(t.Context(), of(testGUN), previous)
	if err != nil {
		t.Fatalf("Fetch: %v", err)
	}
	return ev
}

// signedBy returns the roles that signed a tag with the content: "ci one".
func signedBy(ev trust.Evidence, tag string) []string {
	names := map[string]string{}
	for _, content := range []string{"one", "two", "three"} {
		names[digestOf(content)] = content
	}
	var out []string
	for _, s := range ev.Statements(tag, "") {
		out = append(out, s.Role+" "+names[s.Digest])
	}
	slices.Sort(out)
	return out
}

func wantFault(t testing.TB, err error, reason string, words ...string) {
	t.Helper()
	var f *trust.Fault
	if !errors.As(err, &f) {
		t.Fatalf("got error %v, want a fault %s", err, reason)
	}
	if f.Reason != reason {
		t.Fatalf("got fault %s (%v), want %s", f.Reason, f, reason)
	}
	for _, w := range words {
		if !strings.Contains(f.Error(), w) {
			t.Errorf("got message %q, want it to contain %q", f, w)
		}
	}
}

// publishOnly signs the named roles again and keeps the files of the others.
func (v *virtual) publishOnly(before map[string][]byte, names ...string) {
	v.t.Helper()
	for name, r := range v.roles {
		if slices.Contains(names, name) {
			continue
		}
		mutate, rewrite := r.mutate, r.rewrite
		r.rewrite = func([]byte) []byte { return before[name] }
		defer func() { r.mutate, r.rewrite = mutate, rewrite }()
	}
	v.publish()
}

// of returns the subject of a repository.
func of(repository string) trust.Subject { return trust.Subject{Repository: repository} }
