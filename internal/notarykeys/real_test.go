package notarykeys_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/notarykeys"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
)

const (
	repository = "registry.example.com/acme/app"
	digest     = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
)

func storeOf(c *notaryserver.Client) *notarykeys.Store {
	return &notarykeys.Store{Dir: c.Dir, Passphrases: &notarykeys.Passphrases{Getenv: func(name string) string {
		if strings.HasSuffix(name, "_PASSPHRASE") {
			return notaryserver.Passphrase
		}
		return ""
	}}}
}

// must runs the real client.
func must(t *testing.T, c *notaryserver.Client, args ...string) string {
	t.Helper()
	out, err := c.Run(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The notary client and this package use one key store: what one writes, the other reads.
func TestWithTheNotaryClient(t *testing.T) {
	server := notaryserver.Run(t, notaryserver.Options{})
	t.Run("the client signs with our keys", func(t *testing.T) { signWithOurs(t, server) })
	t.Run("we sign with the client's keys", func(t *testing.T) { signWithTheirs(t, server) })
	t.Run("the client reads every kind of key", func(t *testing.T) { everyKind(t, server) })
}

func signWithOurs(t *testing.T, server *notaryserver.Server) {
	c := notaryserver.RunClient(t, server)
	s := storeOf(c)
	gun := repository + "/ours"
	var ids []string
	for _, k := range []struct{ role, gun string }{{"root", ""}, {"targets", gun}, {"ci", ""}} {
		signer, err := s.Generate(t.Context(), k.role, k.gun)
		if err != nil {
			t.Fatal(err)
		}
		defer signer.Close()
		ids = append(ids, signer.ID)
		if k.role != "ci" {
			continue
		}
		public, err := signer.PublicPEM()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.Dir, "ci.pub"), public, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list := must(t, c, "key", "list")
	for _, id := range ids {
		if !strings.Contains(list, id) {
			t.Errorf("the client lists %s, want key %s in it", list, id)
		}
	}
	must(t, c, "init", "-p", gun)
	if out := must(t, c, "key", "list"); strings.Count(out, "root ") != 1 {
		t.Errorf("the client lists %s, want our root key alone", out)
	}
	must(t, c, "key", "rotate", gun, "snapshot", "-r")
	must(t, c, "delegation", "add", "-p", gun, "targets/ci", filepath.Join(c.Dir, "ci.pub"), "--all-paths")
	must(t, c, "addhash", "-p", gun, "v1", "6", "--sha256", digest, "-r", "targets/ci")
	if out := must(t, c, "list", gun); !strings.Contains(out, digest) {
		t.Errorf("the client lists %s, want v1 as %s", out, digest)
	}
	if out := must(t, c, "delegation", "list", gun); !strings.Contains(out, ids[2]) {
		t.Errorf("the client lists the delegations %s, want key %s", out, ids[2])
	}
}

func signWithTheirs(t *testing.T, server *notaryserver.Server) {
	c := notaryserver.RunClient(t, server)
	s := storeOf(c)
	gun := repository + "/theirs"
	signers, err := c.CreateRepository(t.Context(), gun, "qa")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ role, gun string }{{"root", ""}, {"targets", gun}, {"qa", ""}} {
		keys, err := s.Find(want.role, gun)
		if err != nil || len(keys) != 1 {
			t.Fatalf("got %v and error %v, want one key of %s", keys, err, want.role)
		}
		if keys[0].GUN != want.gun || !keys[0].Encrypted {
			t.Errorf("got %+v, want an encrypted key of %q", keys[0], want.gun)
		}
		if want.role == "qa" && keys[0].ID != signers["qa"].KeyID {
			t.Errorf("got key %s of qa, want %s", keys[0].ID, signers["qa"].KeyID)
		}
		signer, err := s.Unlock(t.Context(), keys[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signer.Sign([]byte("message")); err != nil {
			t.Error(err)
		}
		signer.Close()
	}
	// All keys travel in the client's export to another store, without a passphrase.
	file := filepath.Join(t.TempDir(), "all.pem")
	must(t, c, "key", "export", "-o", file)
	other := &notarykeys.Store{Dir: filepath.Join(t.TempDir(), "trust"), Passphrases: &notarykeys.Passphrases{}}
	keys, err := other.Import(t.Context(), file, notarykeys.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		there, err := s.Get(k.ID)
		if err != nil || there.Role != k.Role || there.GUN != k.GUN {
			t.Errorf("got key %+v, and in the client's store %+v (error %v); want the same", k, there, err)
		}
		other.Passphrases = s.Passphrases
		signer, err := other.Unlock(t.Context(), k.ID)
		if err != nil {
			t.Fatal(err)
		}
		signer.Close()
	}
	if len(keys) < 3 {
		t.Errorf("got keys %v, want those of root, targets and qa", keys)
	}
}

// The client changes the passphrase of every kind of key that we add: it decrypts and encrypts it.
func everyKind(t *testing.T, server *notaryserver.Server) {
	c := notaryserver.RunClient(t, server)
	s := storeOf(c)
	for name, text := range notarykeys.Kinds(t) {
		file := filepath.Join(t.TempDir(), "load.pem")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := s.Import(t.Context(), file, notarykeys.ImportOptions{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		id := keys[0].ID
		before, err := os.ReadFile(keys[0].File)
		if err != nil {
			t.Fatal(err)
		}
		must(t, c, "key", "passwd", id)
		if after, _ := os.ReadFile(keys[0].File); string(after) == string(before) {
			t.Errorf("%s: got the same file, want it written by the client", name)
		}
		signer, err := s.Unlock(t.Context(), id)
		if err != nil {
			t.Errorf("%s: got error %v from the key that the client wrote", name, err)
			continue
		}
		signer.Close()

		// Our export, in the client's other store.
		exported, err := s.Export(id)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, exported, 0o600); err != nil {
			t.Fatal(err)
		}
		other := notaryserver.RunClient(t, server)
		must(t, other, "key", "import", file)
		if out := must(t, other, "key", "list"); !strings.Contains(out, id) || !strings.Contains(out, name) {
			t.Errorf("the client lists %s, want key %s of %s", out, id, name)
		}
		must(t, other, "key", "passwd", id)
	}
}
