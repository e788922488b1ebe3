package notarykeys

import (
	"bytes"
	"crypto/elliptic"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A user names a key by its ID, the beginning of it, or its role.
func TestLookup(t *testing.T) {
	s := newStore(t)
	root, ci := generate(t, s, RoleRoot, ""), generate(t, s, "ci", "")
	first, second := generate(t, s, RoleTargets, gun), generate(t, s, RoleTargets, gun+"2")
	for name, want := range map[string]Key{
		root.ID: root, root.ID[:7]: root, "root": root, "ci": ci, ci.ID[:20]: ci, first.ID: first,
		second.ID[:8]: second,
	} {
		if got, err := s.Lookup(name); err != nil || got.ID != want.ID {
			t.Errorf("%s: got key %s and error %v, want %s", name, got.ID, err, want.ID)
		}
	}
	_, err := s.Lookup("targets")
	oneLine(t, err, `"targets" names 2 keys`, "of "+gun)
	for _, name := range []string{"qa", root.ID[:6], "", strings.Repeat("0", 64)} {
		_, err := s.Lookup(name)
		oneLine(t, err, "there is no such key", "trust key list")
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got %v, want ErrNotFound", name, err)
		}
	}
}

// What is exported is encrypted as it was, and can be added to another store without a passphrase.
func TestExportAndImport(t *testing.T) {
	s := newStore(t)
	var bundle []byte
	var want []string
	for _, k := range []Key{generate(t, s, RoleRoot, ""), generate(t, s, RoleTargets, gun), generate(t, s, "ci", "")} {
		text, err := s.Export(k.ID)
		if err != nil {
			t.Fatal(err)
		}
		bundle, want = append(bundle, text...), append(want, k.ID+" "+purpose(k))
	}
	if bytes.Contains(bundle, []byte("BEGIN PRIVATE KEY")) {
		t.Errorf("got %q, want encrypted keys alone", bundle)
	}
	other := newStore(t)
	other.Passphrases.Getenv = environment(nil)
	file := write(t, bundle)
	dry, err := other.Import(t.Context(), file, ImportOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(other.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v, want no store after a dry run", err)
	}
	keys, err := other.Import(t.Context(), file, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, keys := range [][]Key{dry, keys} {
		var got []string
		for _, k := range keys {
			got = append(got, k.ID+" "+purpose(k))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("keys: want -, got +\n%s", diff)
		}
	}
	other.Passphrases = s.Passphrases
	for _, k := range keys {
		wantSigner(t, other, k.ID)
	}
	if entries, _ := os.ReadDir(other.folder()); len(entries) != 3 {
		t.Errorf("got %v, want three keys", entries)
	}
}

// Nothing is added unless every key of the file can be.
func TestImportIsAllOrNothing(t *testing.T) {
	plain := func(headers map[string]string) []byte {
		return pem.EncodeToMemory(&pem.Block{
			Type: "PRIVATE KEY", Headers: headers, Bytes: pkcs8Of(t, ecKey(t, elliptic.P256())),
		})
	}
	good := plain(map[string]string{"role": "ci"})
	for name, tt := range map[string]struct {
		text []byte
		want string
	}{
		"a targets key without its repository": {slices.Concat(good, plain(map[string]string{"role": "targets"})),
			"names none"},
		"a certificate beside it": {
			slices.Concat(good, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})),
			`"CERTIFICATE" is not a private key`},
		"a key that is cut off": {slices.Concat(good, good[:60]), "damaged or cut off"},
		"not a key": {slices.Concat(good, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})),
			"not a private key that can be read"},
		"a file that is too large": {bytes.Repeat(good, 1+maxImportSize/len(good)), "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			_, err := s.Import(t.Context(), write(t, tt.text), ImportOptions{})
			oneLine(t, err, tt.want)
			if keys, _ := s.List(); len(keys) > 0 {
				t.Errorf("got %v in the store, want none", keys)
			}
		})
	}
	_, err := newStore(t).Import(t.Context(), filepath.Join(t.TempDir(), "none"), ImportOptions{})
	oneLine(t, err, "there is no file")
	_, err = newStore(t).Import(t.Context(), t.TempDir(), ImportOptions{})
	oneLine(t, err, "is a folder")
}

// The role is that of the file; a name replaces only the name of another signer.
func TestImportedRole(t *testing.T) {
	for name, tt := range map[string]struct {
		headers   map[string]string
		options   ImportOptions
		role, gun string
		fault     string
	}{
		"no role":         {role: "signer"},
		"a name":          {options: ImportOptions{Name: "ci"}, role: "ci"},
		"the file's":      {headers: map[string]string{"role": "qa"}, role: "qa"},
		"renamed":         {headers: map[string]string{"role": "qa"}, options: ImportOptions{Name: "ci"}, role: "ci"},
		"root stays root": {headers: map[string]string{"role": "root"}, role: "root"},
		"root is no signer": {headers: map[string]string{"role": "root"}, options: ImportOptions{Name: "ci"},
			fault: "drop --name ci"},
		"targets": {headers: map[string]string{"role": "targets", "gun": gun}, role: "targets", gun: gun},
		"targets, no header": {headers: map[string]string{"role": "targets"}, options: ImportOptions{GUN: gun},
			role: "targets", gun: gun},
		"an old export": {
			headers: map[string]string{"path": "tuf_keys/" + gun + "/" + strings.Repeat("ab", 32) + "_targets"},
			role:    "targets", gun: gun},
		"a signer has no repository": {headers: map[string]string{"role": "qa", "gun": gun}, role: "qa"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			file := write(t, pem.EncodeToMemory(&pem.Block{
				Type: "PRIVATE KEY", Headers: tt.headers, Bytes: pkcs8Of(t, ecKey(t, elliptic.P256())),
			}))
			keys, err := s.Import(t.Context(), file, tt.options)
			if tt.fault != "" {
				oneLine(t, err, tt.fault)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if keys[0].Role != tt.role || keys[0].GUN != tt.gun {
				t.Errorf("got role %q of %q, want %q of %q", keys[0].Role, keys[0].GUN, tt.role, tt.gun)
			}
			// An unencrypted key says itself which it is, whatever its header "path" says.
			wantSigner(t, s, keys[0].ID)
		})
	}
}

// A file with a path must not replace a key that the store has.
func TestThreatImportReplacesNoKey(t *testing.T) {
	s := newStore(t)
	k := generate(t, s, "ci", "")
	before, err := os.ReadFile(k.File)
	if err != nil {
		t.Fatal(err)
	}
	other := newStore(t)
	forged, err := other.Export(generate(t, other, "ci", "").ID)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(forged)
	block.Headers["path"] = k.ID
	if _, err := s.Import(t.Context(), write(t, pem.EncodeToMemory(block)), ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(k.File); !bytes.Equal(before, after) {
		t.Error("got another key in the store, want the first")
	}
	// Nor may it name a file outside the store.
	block.Headers["path"] = "../../" + strings.Repeat("ab", 32)
	keys, err := s.Import(t.Context(), write(t, pem.EncodeToMemory(block)), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := filepath.Dir(keys[0].File); got != s.folder() {
		t.Errorf("got a file in %s, want %s", got, s.folder())
	}
	if _, err := s.Unlock(t.Context(), keys[0].ID); err == nil {
		t.Error("got a signer for a file that has the name of another key")
	}
}

// A key that is in no store signs too.
func TestUnlockFile(t *testing.T) {
	s := newStore(t)
	k := generate(t, s, "ci", "")
	signer, err := UnlockFile(t.Context(), k.File, "", s.Passphrases)
	if err != nil {
		t.Fatal(err)
	}
	defer signer.Close()
	if signer.ID != k.ID || signer.Role != "ci" {
		t.Errorf("got key %s of %s, want %s of ci", signer.ID, signer.Role, k.ID)
	}
	_, err = UnlockFile(t.Context(), k.File, "", &Passphrases{})
	oneLine(t, err, "there is no terminal", "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE")
	text, err := os.ReadFile(k.File)
	if err != nil {
		t.Fatal(err)
	}
	_, err = UnlockFile(t.Context(), write(t, slices.Concat(text, text)), "", s.Passphrases)
	oneLine(t, err, "has 2 private keys")
}

func FuzzDecodeBlocks(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nrole: ci\n\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n" +
		"AAAA\n-----END EC PRIVATE KEY-----\n"))
	signer, err := NewSigner("ci", "")
	if err != nil {
		f.Fatal(err)
	}
	der, err := encrypt(signer.der, []byte("p"), 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encodePEM(der, map[string]string{"role": "ci"}))
	f.Add(pem.EncodeToMemory(&pem.Block{Type: blockPKCS8, Bytes: signer.der}))
	f.Fuzz(func(t *testing.T, text []byte) {
		blocks, err := decodeBlocks(text)
		if err == nil && len(blocks) == 0 {
			t.Error("got neither a key nor an error")
		}
		for _, b := range blocks {
			k, err := labels(b, ImportOptions{})
			if err != nil {
				continue
			}
			signer, err := openFile(k, b, []byte("p"))
			if err != nil {
				continue
			}
			sig, err := signer.Sign([]byte("message"))
			if err != nil || !verify(signer.Public, signer.Method(), []byte("message"), sig) {
				t.Errorf("got error %v or a wrong signature of a key that was read", err)
			}
		}
	})
}
