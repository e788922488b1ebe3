package notarysign

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/notarykeys"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
)

const (
	gun        = "registry.example.com/acme/app"
	passphrase = notaryserver.Passphrase
	digestA    = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	digestB    = "sha256:6ca13d52ca70c883e0f0bb101e425a89e8624de51db2d2392593af6a84118090"
)

// bed is a real Notary server, and the real client on the same key store as ours.
type bed struct {
	t      *testing.T
	server *notaryserver.Server
	client *notaryserver.Client
	store  *notarykeys.Store
	conn   Connection
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, server: notaryserver.Run(t, notaryserver.Options{})}
	b.client = notaryserver.RunClient(t, b.server)
	b.store = storeOf(b.client.Dir, passphrase)
	b.conn = Connection{Server: b.connect(b.server.URL, string(b.server.CA.PEM)), Keys: b.store}
	return b
}

func storeOf(dir, passphrase string) *notarykeys.Store {
	return &notarykeys.Store{Dir: dir, Passphrases: &notarykeys.Passphrases{Getenv: func(name string) string {
		if strings.HasSuffix(name, "_PASSPHRASE") {
			return passphrase
		}
		return ""
	}}}
}

func (b *bed) connect(url, ca string) *registry.Client {
	b.t.Helper()
	c, err := registry.New(registry.Config{Server: url, CABundle: ca, Publishes: true, CommandLine: true})
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// ctx is the context of the test.
func (b *bed) ctx() context.Context { return b.t.Context() }

// must fails the test on an error.
func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// pins are the root keys that the server shows.
func (b *bed) pins() Pins {
	b.t.Helper()
	shown, err := Show(b.ctx(), b.conn, gun)
	b.must(err)
	return Pins{KeyIDs: shown.KeyIDs()}
}

// open opens the repository, pinned to its current root.
func (b *bed) open() *Repository {
	b.t.Helper()
	r, err := Open(b.ctx(), b.conn, gun, b.pins())
	b.must(err)
	b.t.Cleanup(r.Close)
	return r
}

// initialise publishes a new repository with signers, whose keys are in the store.
func (b *bed) initialise(names ...string) {
	b.t.Helper()
	r, err := New(b.ctx(), b.conn, gun, Pins{})
	b.must(err)
	defer r.Close()
	for _, name := range names {
		b.must(r.AddSigner(name, b.newKey(name)))
	}
	b.must(r.Publish(b.ctx()))
}

// newKey makes a signer's key in the store.
func (b *bed) newKey(name string) PublicKey {
	b.t.Helper()
	s, err := b.store.Generate(b.ctx(), name, "")
	b.must(err)
	defer s.Close()
	k, err := bareKey(s.Public)
	b.must(err)
	return k
}

// sign signs a tag and publishes.
func (b *bed) sign(tag, digest, role string) []string {
	b.t.Helper()
	r := b.open()
	roles, err := r.Sign(Image{Tag: tag, Digest: digest, Size: 528}, role)
	b.must(err)
	b.must(r.Publish(b.ctx()))
	return roles
}

// roles returns the roles that have signed a digest under a tag, as the manager reads it.
func (b *bed) roles(tag, digest string) string {
	b.t.Helper()
	return b.rolesUnder(b.pins(), tag, digest)
}

func (b *bed) rolesUnder(pins Pins, tag, digest string) string {
	b.t.Helper()
	root, err := notary.New(notary.Config{Name: "test", RootKeyIDs: pins.KeyIDs}, b.conn.Server)
	b.must(err)
	evidence, err := root.Fetch(b.ctx(), trust.Subject{Repository: gun}, nil)
	b.must(err)
	var roles []string
	for _, s := range evidence.Statements(tag, "") {
		if s.Digest == digest {
			roles = append(roles, s.Role)
		}
	}
	slices.Sort(roles)
	return strings.Join(slices.Compact(roles), " ")
}

// notary runs the real client.
func (b *bed) notary(args ...string) string {
	b.t.Helper()
	out, err := b.client.Run(b.ctx(), args...)
	b.must(err)
	return out
}

func (b *bed) want(what, got, want string) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func (b *bed) wantIn(what, got string, wants ...string) {
	b.t.Helper()
	for _, want := range wants {
		if !strings.Contains(got, want) {
			b.t.Errorf("%s: got %q, want %q in it", what, got, want)
		}
	}
}
