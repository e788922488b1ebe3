package main

import (
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
)

// release is an image in a registry, and its repository on a Notary server with delegations for ci
// and qa.
type release struct {
	client     *notaryserver.Client // of the repository's administrator
	repository string
	image      string // by digest
	digest     string
	size       int
	request    request           // for role ci
	keys       map[string]string // role -> file
	keyIDs     map[string]string // role -> canonical ID
}

func newRelease(t *testing.T) release {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	r := release{
		repository: strings.TrimPrefix(server.URL, "http://") + "/countersign/countersign", keys: map[string]string{},
		keyIDs: map[string]string{},
	}
	r.image = r.push(t)
	n := notaryserver.Run(t, notaryserver.Options{})
	r.client = notaryserver.RunClient(t, n)
	keys, err := r.client.CreateRepository(t.Context(), r.repository, "ci", "qa")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for role, key := range keys {
		r.keys[role], r.keyIDs[role] = write(role+".key", key.PrivatePEM), key.KeyID
	}
	pin, err := r.client.Root(r.repository)
	if err != nil {
		t.Fatal(err)
	}
	r.request = request{
		role: "ci", image: r.image, tag: "v1.2.3", url: n.URL, serverCA: write("ca.crt", n.CA.PEM),
		rootKeyID: pin.KeyID,
		key:       r.keys["ci"],
	}
	return r
}

// push pushes an image for two platforms as v1.2.3, and returns its reference by digest.
func (r *release) push(t *testing.T) string {
	t.Helper()
	index, err := random.Index(1024, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(r.repository + ":v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, index); err != nil {
		t.Fatal(err)
	}
	served, err := remote.Get(tag)
	if err != nil {
		t.Fatal(err)
	}
	r.digest, r.size = served.Digest.String(), len(served.Manifest)
	return r.repository + "@" + r.digest
}

// evidence fetches and verifies the repository.
func (r *release) evidence(t *testing.T) trust.Evidence {
	t.Helper()
	server, err := r.request.server()
	if err != nil {
		t.Fatal(err)
	}
	reader, err := notary.New(notary.Config{Name: "test", RootKeyIDs: []string{r.request.rootKeyID}}, server)
	if err != nil {
		t.Fatal(err)
	}
	evidence, err := reader.Fetch(t.Context(), trust.Subject{Repository: r.repository}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return evidence
}

func (r *release) signed(t *testing.T) string {
	t.Helper()
	return strings.Join(signedBy(r.evidence(t), "v1.2.3", r.digest), " ")
}

// decided returns the decision of the project's sample policy on the tag.
func (r *release) decided(t *testing.T) policy.Decision {
	t.Helper()
	sample, err := os.ReadFile(filepath.Join("..", "..", "config", "samples", "imagepolicy_countersign.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ := strings.Cut(r.repository, "/")
	var p v1alpha1.ImagePolicy
	if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(string(sample), "registry.example.com", host)),
		&p); err != nil {
		t.Fatal(err)
	}
	compiled, err := policy.Compile(p.Name, &p.Spec)
	if err != nil {
		t.Fatal(err)
	}
	set := policy.NewSet(policy.UncoveredAllow, []*policy.Policy{compiled})
	return set.Decide(policy.Request{Image: r.repository + ":v1.2.3", Now: time.Now()}, verified{t, r})
}

// verified is the trust root of the sample, with the evidence of the server.
type verified struct {
	t *testing.T
	r *release
}

// Usable implements policy.Roots.
func (v verified) Usable(root string) error {
	if root != "countersign" {
		v.t.Errorf("got TrustRoot %q in the sample, want countersign", root)
	}
	return nil
}

// Subject implements policy.Roots.
func (verified) Subject(_ string, image imageref.Ref) trust.Subject {
	return trust.Subject{Repository: image.Repository()}
}

func (verified) Tenant(trust.Key, string) (trust.Key, bool) { return trust.Key{}, false }

// Evidence implements policy.Roots.
func (v verified) Evidence(trust.Key) (trust.Evidence, time.Duration, error) {
	return v.r.evidence(v.t), 0, nil
}

func TestSign(t *testing.T) {
	r := newRelease(t)
	if got := r.signed(t); got != "" {
		t.Fatalf("got signatures by %q at first, want none", got)
	}
	roles, err := sign(t.Context(), r.request)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.signed(t); roles != "ci" || got != "ci" {
		t.Errorf("after ci signed: got roles %q, signatures by %q, want ci alone", roles, got)
	}
	if d, want := r.decided(t), `role "qa" has not signed `+
		r.digest[:len("sha256:12345678")]; d.Verdict != policy.Denied || !strings.Contains(d.Message, want) {
		t.Errorf("after ci signed: got verdict %v, %q, want a denial with %q", d.Verdict, d.Message, want)
	}
	qa := r.request
	qa.role, qa.key = "qa", r.keys["qa"]
	if roles, err = sign(t.Context(), qa); err != nil {
		t.Fatal(err)
	}
	if got := r.signed(t); roles != "ci, qa" || got != "ci qa" {
		t.Errorf("after both signed: got roles %q, signatures by %q, want ci and qa", roles, got)
	}
	if d := r.decided(t); d.Verdict != policy.Admitted || d.Digest != r.digest {
		t.Errorf("after both signed: got verdict %v, digest %q, %q, want %s to be admitted", d.Verdict, d.Digest,
			d.Message,
			r.digest)
	}
	for _, role := range []string{"ci", "qa"} {
		out, err := r.client.Run(t.Context(), "list", r.repository, "-r", "targets/"+role)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("v1.2.3 %s %d targets/%s", strings.TrimPrefix(r.digest, "sha256:"), r.size, role)
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("got %q from notary list, want %q", out, want)
		}
	}
}

// An encrypted key, as the client exports it, needs the right passphrase.
func TestSignWithEncryptedKey(t *testing.T) {
	r := newRelease(t)
	r.request.key = filepath.Join(t.TempDir(), "exported.key")
	if _, err := r.client.Run(t.Context(), "key", "export", "--key", r.keyIDs["ci"], "-o", r.request.key); err != nil {
		t.Fatal(err)
	}
	if _, err := sign(t.Context(), r.request); err == nil ||
		!strings.Contains(err.Error(), "NOTARY_DELEGATION_PASSPHRASE") {
		t.Errorf("without the passphrase: got %v, want an error that names the variable", err)
	}
	r.request.passphrase = "wrong-passphrase"
	if _, err := sign(t.Context(), r.request); err == nil {
		t.Error("with a wrong passphrase: got no error")
	}
	if got := r.signed(t); got != "" {
		t.Errorf("got signatures by %q, want none", got)
	}
	r.request.passphrase = "demo-passphrase"
	if roles, err := sign(t.Context(), r.request); err != nil || roles != "ci" {
		t.Errorf("got roles %q, error %v, want ci", roles, err)
	}
}

func TestSignRefuses(t *testing.T) {
	r := newRelease(t)
	moved := r
	moved.push(t)
	for name, c := range map[string]struct {
		change func(*request)
		want   string
	}{
		"the tag was moved": {func(*request) {}, "the tag v1.2.3 has the digest " + moved.digest},
		"another root": {
			func(q *request) { q.image, q.rootKeyID = moved.repository+"@"+moved.digest, strings.Repeat("0", 64) },
			"nothing was signed",
		},
		"no digest": {func(q *request) { q.image = r.repository + ":v1.2.3" }, "by its digest"},
		"an image that is absent": {
			func(q *request) { q.image = r.repository + "@sha256:" + strings.Repeat("0", 64) }, "reading the manifest",
		},
		"a key of another role": {
			func(q *request) { q.image, q.key = moved.repository+"@"+moved.digest, r.keys["qa"] },
			"must be signed by 1 of its keys",
		},
		"nothing given": {func(q *request) { *q = request{} }, "give NOTARY_ROOT_KEY_ID"},
	} {
		t.Run(name, func(t *testing.T) {
			q := r.request
			c.change(&q)
			if roles, err := sign(t.Context(), q); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got roles %q, error %v, want an error with %q", roles, err, c.want)
			}
		})
	}
	if got := moved.signed(t); got != "" {
		t.Errorf("got signatures by %q, want none", got)
	}
}
