package notary

import (
	"crypto/tls"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/trust"
)

// realRepository is a repository on a real Notary server, to which the real client publishes.
type realRepository struct {
	*notaryserver.Client
	t      *testing.T
	server *notaryserver.Server
	gun    string
	keys   map[string]*notaryserver.SigningKey
}

func newReal(t *testing.T, options notaryserver.Options) *realRepository {
	t.Helper()
	n := notaryserver.Run(t, options)
	r := &realRepository{Client: notaryserver.RunClient(t, n), t: t, server: n, gun: testGUN}
	var err error
	if r.keys, err = r.CreateRepository(t.Context(), r.gun, "ci", "qa"); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *realRepository) do(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// sign publishes content under the tag v1.
func (r *realRepository) sign(content string, roles ...string) {
	r.t.Helper()
	r.do(
		r.AddHash(r.t.Context(), r.gun, "v1", int64(len(content)), strings.TrimPrefix(digestOf(content), "sha256:"),
			roles...))
}

func (r *realRepository) pin() notaryserver.RootPin {
	r.t.Helper()
	pin, err := r.Root(r.gun)
	r.do(err)
	return pin
}

// reader returns a Root for the server with the machine's clock. mod changes the settings.
func (r *realRepository) reader(mod func(*Config)) *Root {
	r.t.Helper()
	cfg := Config{Name: "real"}
	mod(&cfg)
	client := &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: r.server.CA.Pool(), MinVersion: tls.VersionTLS12},
		},
	}
	r.t.Cleanup(client.CloseIdleConnections)
	root, err := New(cfg, httpGetter{url: r.server.URL, client: client})
	r.do(err)
	return root
}

func pinID(id string) func(*Config) { return func(c *Config) { c.RootKeyIDs = []string{id} } }

func wantSigned(t *testing.T, ev trust.Evidence, tag string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, signedBy(ev, tag)); diff != "" {
		t.Errorf("signed %s (-want +got):\n%s", tag, diff)
	}
}

// The life cycle of a repository, as the real client and server write it: with ed25519 keys of the
// server, and with ecdsa keys of a separate signer.
func TestRealRepository(t *testing.T) {
	for name, options := range map[string]notaryserver.Options{"local keys": {}, "signer": {Signer: true}} {
		t.Run(name, func(t *testing.T) {
			r := newReal(t, options)
			ctx := t.Context()
			pin := r.pin()
			reader := r.reader(pinID(pin.KeyID))
			if err := reader.Probe(ctx, ""); err != nil {
				t.Errorf("Probe: %v", err)
			}
			ev := mustFetch(t, reader, nil)
			wantSigned(t, ev, "v1")

			r.sign("one", "targets/ci")
			ev = mustFetch(t, reader, ev)
			wantSigned(t, ev, "v1", "ci one")
			if got := ev.Statements("v1", "")[0].Keys; !slices.Equal(got, []string{r.keys["ci"].KeyID}) {
				t.Errorf("got signers %v, want %s", got, r.keys["ci"].KeyID)
			}
			r.sign("one", "targets/qa")
			ev = mustFetch(t, reader, ev)
			wantSigned(t, ev, "v1", "ci one", "qa one")
			if again := mustFetch(t, reader, ev); again != ev {
				t.Error("got other evidence for an unchanged repository")
			}

			r.sign("two", "targets/ci")
			ev = mustFetch(t, reader, ev)
			wantSigned(t, ev, "v1", "ci two", "qa one")
			r.do(r.Remove(ctx, r.gun, "v1", "targets/qa"))
			ev = mustFetch(t, reader, ev)
			wantSigned(t, ev, "v1", "ci two")
			r.sign("three") // in targets alone, which counts for no role
			ev = mustFetch(t, reader, ev)
			wantSigned(t, ev, "v1", "ci two")

			old, _ := ev.Expiry()
			if left := time.Until(old); left < 13*24*time.Hour || left > 15*24*time.Hour {
				t.Errorf("got expiry in %s, want the 14 days of a timestamp", left)
			}
		})
	}
}

// The root rotates twice. A refresh verifies each step, and a pin of the first key still leads to
// the newest root.
func TestRealRootRotation(t *testing.T) {
	r := newReal(t, notaryserver.Options{})
	ctx := t.Context()
	first := r.pin()
	r.sign("one", "targets/ci", "targets/qa")
	byFirst := r.reader(pinID(first.KeyID))
	previous := mustFetch(t, byFirst, nil)

	r.do(r.RotateRoot(ctx, r.gun))
	r.do(r.RotateRoot(ctx, r.gun))
	r.do(r.RotateTimestampKey(ctx, r.gun))
	newest := r.pin()
	if newest.KeyID == first.KeyID {
		t.Fatal("got no root rotation")
	}
	r.sign("two", "targets/ci", "targets/qa")
	wantSigned(t, mustFetch(t, byFirst, previous), "v1", "ci two", "qa two")
	cold := mustFetch(t, byFirst, nil)
	wantSigned(t, cold, "v1", "ci two", "qa two")
	again := mustFetch(t, r.reader(pinID(newest.KeyID)), nil)
	wantSigned(t, again, "v1", "ci two", "qa two")

	// The first key is revoked: no chain may start from it, and the newest root no longer needs it.
	revoked := func(c *Config) { c.RevokedKeys = []string{first.KeyID} }
	_, err := r.reader(func(c *Config) { pinID(first.KeyID)(c); revoked(c) }).Fetch(ctx, of(r.gun), nil)
	wantFault(t, err, v1alpha1.ReasonKeyRevoked, first.KeyID, newest.KeyID)
	if _, err := r.reader(func(c *Config) { pinID(newest.KeyID)(c); revoked(c) }).Recheck(of(r.gun), cold); err != nil {
		t.Errorf("Recheck: %v", err)
	}
}

// Each way to pin a root, and pins that do not match.
func TestRealPins(t *testing.T) {
	r := newReal(t, notaryserver.Options{})
	r.sign("one", "targets/ci")
	pin := r.pin()
	stranger := newKey(t, "ecdsa", "")
	tests := map[string]struct {
		config func(*Config)
		reason string
	}{
		"key ID":      {config: pinID(pin.KeyID)},
		"public key":  {config: func(c *Config) { c.RootKeys = []PEM{{"f", string(pin.PublicKeyPEM)}} }},
		"certificate": {config: func(c *Config) { c.RootKeys = []PEM{{"f", string(pin.CertificatePEM)}} }},
		"another key": {
			config: func(c *Config) { c.RootKeys = []PEM{{"f", string(stranger.bare)}} },
			reason: v1alpha1.ReasonRootNotPinned,
		},
		"a delegation's key": {config: pinID(r.keys["ci"].KeyID), reason: v1alpha1.ReasonRootNotPinned},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ev, err := r.reader(tt.config).Fetch(t.Context(), of(r.gun), nil)
			if tt.reason != "" {
				wantFault(t, err, tt.reason, pin.KeyID, "docker trust inspect")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantSigned(t, ev, "v1", "ci one")
		})
	}
}

// A repository that is not initialised is unsigned. A delegation that was removed and added again
// has signed nothing.
func TestRealDelegations(t *testing.T) {
	r := newReal(t, notaryserver.Options{})
	ctx := t.Context()
	reader := r.reader(pinID(r.pin().KeyID))
	ev, err := reader.Fetch(ctx, of("registry.example.com/acme/never"), nil)
	if _, ok := ev.(trust.Unsigned); err != nil || !ok {
		t.Errorf("a repository that is not initialised: got %v, %v, want unsigned", ev, err)
	}
	r.sign("one", "targets/ci", "targets/qa")
	ev = mustFetch(t, reader, nil)
	wantSigned(t, ev, "v1", "ci one", "qa one")
	r.do(r.RemoveDelegation(ctx, r.gun, "targets/qa"))
	ev = mustFetch(t, reader, ev)
	wantSigned(t, ev, "v1", "ci one")

	other, err := notaryserver.NewSigningKey(notaryserver.RSA2048, r.gun)
	r.do(err)
	r.do(r.AddDelegation(ctx, r.gun, "targets/qa", []*notaryserver.SigningKey{other}))
	ev = mustFetch(t, reader, ev)
	wantSigned(t, ev, "v1", "ci one") // the file of the former key still exists

	r.do(r.AddDelegation(ctx, r.gun, "targets/dev", []*notaryserver.SigningKey{other}, "v"))
	r.do(r.ImportKey(ctx, r.gun, "dev", other))
	r.sign("one", "targets/dev")
	ev = mustFetch(t, reader, ev)
	wantSigned(t, ev, "v1", "ci one", "dev one")
	// outside of its paths
	_ = r.AddHash(ctx, r.gun, "latest", 3, strings.TrimPrefix(digestOf("one"), "sha256:"), "targets/dev")
	wantSigned(t, mustFetch(t, reader, ev), "latest")
}
