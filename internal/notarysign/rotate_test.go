package notarysign

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/notarykeys"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
)

// Each key is rotated. A pin of the first root key still leads to the newest root, and the client
// goes on.
func TestRotate(t *testing.T) {
	b := newBed(t)
	b.initialise("ci")
	b.sign("v1", digestA, "")
	first := b.pins()
	before := b.open().Inspect("", 0)
	for _, role := range []string{RoleTargets, RoleSnapshot, RoleTimestamp, RoleRoot} {
		r := b.open()
		b.must(r.Rotate(role))
		b.must(r.Publish(b.ctx()))
		b.want("roles of v1 after the rotation of "+role, b.rolesUnder(first, "v1", digestA), "ci")
	}
	after := b.open().Inspect("", 0)
	for i, role := range after.Administrative {
		if role.Name == "releases" {
			continue
		}
		if role.Keys[0] == before.Administrative[i].Keys[0] {
			t.Errorf("%s: got the key %s as before, want another", role.Name, role.Keys[0])
		}
	}
	if b.pins().KeyIDs[0] == first.KeyIDs[0] {
		t.Error("got the first root key, want a new one")
	}
	b.wantIn("notary list", b.notary("list", gun), "v1")
	b.must(b.client.RotateTargetsKey(b.ctx(), gun))
	b.want("roles of v2", strings.Join(b.sign("v2", digestB, "ci"), " "), "ci")
}

// A repository whose client signs the snapshots keeps doing so, until the key moves to the server.
func TestOwnSnapshotKey(t *testing.T) {
	b := newBed(t)
	b.must(b.client.Init(b.ctx(), gun))
	b.want("roles without delegations", strings.Join(b.sign("v1", digestA, ""), " "), "targets")
	b.wantIn("notary list", b.notary("list", gun), "v1")
	r := b.open()
	b.must(r.Rotate(RoleSnapshot))
	b.must(r.AddSigner("ci", b.newKey("ci")))
	b.must(r.Publish(b.ctx()))
	b.sign("v2", digestB, "ci")
	b.want("roles of v2", b.roles("v2", digestB), "ci")
	b.wantIn("notary list at the end", b.notary("list", gun), "v1", "v2")
}

// A revoked tag vanishes for the manager and for the client. Other tags stay.
func TestRevoke(t *testing.T) {
	b := newBed(t)
	b.initialise("ci", "qa")
	b.sign("v1", digestA, "")
	b.sign("v2", digestB, "")
	r := b.open()
	roles, err := r.Revoke("v1", "")
	b.must(err)
	b.must(r.Publish(b.ctx()))
	b.want("roles revoked", strings.Join(roles, " "), "ci qa releases")
	b.want("roles of v1", b.roles("v1", digestA), "")
	b.want("roles of v2", b.roles("v2", digestB), "ci qa")
	if list := b.notary("list", gun); strings.Contains(list, "v1") || !strings.Contains(list, "v2") {
		t.Errorf("notary list: got %q, want v2 alone", list)
	}
	if _, err := b.open().Revoke("v1", ""); err == nil {
		t.Error("revoking what nobody signed succeeded, want an error")
	}
}

// A removed signer's signatures do not count again when a signer of that name is added with the
// same key.
func TestThreatSignaturesOfARemovedSignerDoNotReturn(t *testing.T) {
	b := newBed(t)
	b.initialise("qa")
	key := b.newKey("ci")
	change := func(edit func(r *Repository) error) {
		t.Helper()
		r := b.open()
		b.must(edit(r))
		b.must(r.Publish(b.ctx()))
	}
	change(func(r *Repository) error { return r.AddSigner("ci", key) })
	b.sign("v1", digestA, "ci")
	b.want("roles of v1", b.roles("v1", digestA), "ci")
	change(func(r *Repository) error { return r.RemoveSigner("ci") })
	b.want("roles of v1 without the signer", b.roles("v1", digestA), "")
	change(func(r *Repository) error { return r.AddSigner("ci", key) })
	b.want("roles of v1 with the signer again", b.roles("v1", digestA), "")
	b.sign("v2", digestB, "ci")
	b.want("roles of v2", b.roles("v2", digestB), "ci")

	change(func(r *Repository) error { return r.RemoveSigner("ci") })
	b.must(b.store.Remove(key.ID()))
	if err := b.open().AddSigner("ci", key); err == nil || !strings.Contains(err.Error(), "would count again") {
		t.Errorf("without the private key: got %v, want that the earlier signatures would count again", err)
	}
}

// Of two writers one is told of the conflict. What the other published stays.
func TestConflict(t *testing.T) {
	b := newBed(t)
	b.initialise("ci")
	slow := b.open()
	_, err := slow.Sign(Image{Tag: "v2", Digest: digestB, Size: 528}, "ci")
	b.must(err)
	b.sign("v1", digestA, "ci")
	if err := slow.Publish(b.ctx()); !errors.Is(err, ErrConflict) {
		t.Fatalf("got %v, want %v", err, ErrConflict)
	}
	b.want("roles of v1", b.roles("v1", digestA), "ci")
	b.sign("v2", digestB, "ci")
	b.want("roles of v1 in the end", b.roles("v1", digestA), "ci")
	b.want("roles of v2 in the end", b.roles("v2", digestB), "ci")

	rotation := b.open()
	b.must(rotation.Rotate(RoleTargets))
	added := b.open()
	b.must(added.AddSigner("qa", b.newKey("qa")))
	b.must(added.Publish(b.ctx()))
	if err := rotation.Publish(b.ctx()); !errors.Is(err, ErrConflict) {
		t.Fatalf("rotation: got %v, want %v", err, ErrConflict)
	}
	_, err = b.store.Get(rotation.NewKeys()[0].ID)
	if !errors.Is(err, notarykeys.ErrNotFound) {
		t.Errorf("got %v for the key of the refused rotation, want it removed", err)
	}
}

// throughProxy lets the bed's connection go through a proxy that injects faults.
func (b *bed) throughProxy() *faultproxy.Proxy {
	b.t.Helper()
	p := faultproxy.Run(b.t, b.server.URL, b.server.CA)
	b.conn.Server = b.connect(p.URL, string(p.CA.PEM))
	return p
}

// A run whose publication got no response, or none before the server saw it, can be run again.
func TestInterrupted(t *testing.T) {
	for name, fault := range map[string]faultproxy.Fault{
		"response lost": {Method: http.MethodPost, Cut: 1, Times: 1},
		"request lost":  {Method: http.MethodPost, Drop: true, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			p := b.throughProxy()
			initialise := func() error {
				_, err := Open(b.ctx(), b.conn, gun, Pins{KeyIDs: []string{strings.Repeat("0", 64)}})
				if !errors.Is(err, ErrNoRepository) {
					return errors.Join(err, errors.New("the repository exists"))
				}
				r, err := New(b.ctx(), b.conn, gun, Pins{})
				if err != nil {
					return err
				}
				defer r.Close()
				if err := r.AddOwnSigner(b.ctx(), "ci"); err != nil {
					return err
				}
				return r.Publish(b.ctx())
			}
			p.Set(fault)
			if err := initialise(); err != nil {
				if !strings.Contains(err.Error(), "run it again") {
					t.Errorf("got %v, want advice to run it again", err)
				}
				b.must(initialise())
			}
			keys, err := b.store.List()
			b.must(err)
			if len(keys) != 3 {
				t.Errorf("got %d keys, want three: root, targets and ci", len(keys))
			}
			b.sign("v1", digestA, "ci")
			b.want("roles", b.roles("v1", digestA), "ci")
		})
	}
}

// A server built with a newer Go refuses the names of delegations. The message says so, and no key
// is left.
func TestDelegationsRefused(t *testing.T) {
	b := newBed(t)
	p := b.throughProxy()
	p.Set(faultproxy.Fault{
		Method: http.MethodPost, Status: http.StatusBadRequest,
		Body: `{"errors":[{"code":"INVALID_ROLE","message":"The role is invalid.","detail":"ci"}]}`,
	})
	r, err := New(b.ctx(), b.conn, gun, Pins{})
	b.must(err)
	defer r.Close()
	b.must(r.AddOwnSigner(b.ctx(), "ci"))
	_, err = r.Sign(Image{Tag: "v1", Digest: digestA, Size: 528}, "")
	b.must(err)
	if err = r.Publish(b.ctx()); err == nil || !strings.Contains(err.Error(), "built with Go 1.17 or later") {
		t.Errorf("got %v, want a server that refuses delegations", err)
	}
	if keys, err := b.store.List(); err != nil || len(keys) > 0 {
		t.Errorf("got keys %v, %v; want none", keys, err)
	}
}

// A wrong passphrase publishes nothing and stores nothing.
func TestWrongPassphrase(t *testing.T) {
	b := newBed(t)
	b.initialise("ci")
	pins := b.pins()
	wrong := b.conn
	wrong.Keys = storeOf(b.client.Dir, "another-passphrase")
	r, err := Open(b.ctx(), wrong, gun, pins)
	b.must(err)
	defer r.Close()
	b.must(r.Rotate(RoleTargets))
	if err := r.Publish(b.ctx()); !errors.Is(err, notarykeys.ErrPassphrase) {
		t.Errorf("got %v, want %v", err, notarykeys.ErrPassphrase)
	}
	b.want("version of targets", b.versionOf(RoleTargets), "1")
	if _, err := b.store.Get(r.NewKeys()[0].ID); !errors.Is(err, notarykeys.ErrNotFound) {
		t.Errorf("got %v for the new key, want that it is not stored", err)
	}
}

func (b *bed) versionOf(role string) string {
	b.t.Helper()
	for _, r := range b.open().Inspect("", 0).Administrative {
		if r.Name == role {
			return string(rune('0' + r.Version))
		}
	}
	return ""
}

// Files are renewed before and after their expiry, and a missing key is named.
func TestRenew(t *testing.T) {
	b := newBed(t)
	b.initialise("ci")
	b.sign("v1", digestA, "ci")
	r := b.open()
	left, err := r.Renew(b.ctx(), 180*24*time.Hour)
	b.must(err)
	if len(left) > 0 || len(r.Changes()) > 0 {
		t.Errorf("got changes %q, left %q at first, want none", r.Changes(), left)
	}
	if left, err = r.Renew(b.ctx(), 4*year); err != nil || len(left) > 0 {
		t.Fatalf("got %v, left %q, want all renewed", err, left)
	}
	b.wantIn("changes", strings.Join(r.Changes(), "; "), "sign targets anew", "sign targets/ci anew")
	b.must(r.Publish(b.ctx()))
	b.want("roles of v1", b.roles("v1", digestA), "ci")

	keys, err := b.store.Find("ci", "")
	b.must(err)
	b.must(b.store.Remove(keys[0].ID))
	r = b.open()
	left, err = r.Renew(b.ctx(), 4*year)
	b.must(err)
	b.want("left without its key", strings.Join(left, " "), "targets/ci")
	b.wantIn("warnings", strings.Join(r.Warnings(), "; "), "targets/ci expires at")
}

// A loose key store is an error before anything is sent.
func TestThreatLooseStoreSignsNothing(t *testing.T) {
	b := newBed(t)
	b.initialise("ci")
	b.must(os.Chmod(filepath.Join(b.client.Dir, "private"), 0o755))
	r := b.open()
	if _, err := r.Sign(Image{Tag: "v1", Digest: digestA, Size: 528}, ""); err == nil {
		err = r.Publish(b.ctx())
		if err == nil {
			t.Error("signed with a key store that others can read, want an error")
		}
	}
	b.want("roles", b.roles("v1", digestA), "")
}

// The releases of signers who were all removed do not return with a key of theirs, under any name.
func TestThreatReleasesOfRemovedSignersDoNotReturn(t *testing.T) {
	b := newBed(t)
	b.initialise("ci")
	key, err := b.open().signerKey("ci")
	b.must(err)
	b.sign("v1", digestA, "")
	b.wantIn("notary list", b.notary("list", gun), "v1")
	r := b.open()
	b.must(r.RemoveSigner("ci"))
	b.must(r.Publish(b.ctx()))
	r = b.open()
	b.must(r.AddSigner("qa", key))
	b.must(r.Publish(b.ctx()))
	if list := b.notary("list", gun); strings.Contains(list, "v1") {
		t.Errorf("notary list: got %q, want no v1", list)
	}
	b.want("roles of v1", b.roles("v1", digestA), "")

	r = b.open()
	b.must(r.RemoveSigner("qa"))
	b.must(r.Publish(b.ctx()))
	b.must(b.store.Remove(key.ID()))
	if err := b.open().AddSigner("dev", key); err == nil || !strings.Contains(err.Error(), "would count again") {
		t.Errorf("without the private key: got %v, want that the earlier releases would count again", err)
	}
}

// signerKey returns the first key of a signer.
func (r *Repository) signerKey(name string) (PublicKey, error) {
	d := r.delegation(RoleTargets + "/" + name)
	k, _, err := r.files[RoleTargets].Delegations.Keys[d.KeyIDs[0]].read()
	return k, err
}
