package notarykeys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/youmark/pkcs8"
)

const passphrase = "correct horse battery"

// gun is a repository.
const gun = "registry.example.com:5000/acme/app"

// newStore returns an empty store whose passphrases come from variables.
func newStore(t *testing.T) *Store {
	t.Helper()
	return &Store{
		Dir: filepath.Join(t.TempDir(), "trust"), iterations: 10,
		Passphrases: &Passphrases{Getenv: environment(map[string]string{
			"DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE":       passphrase,
			"DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE": passphrase,
		})},
	}
}

func environment(variables map[string]string) func(string) string {
	return func(name string) string { return variables[name] }
}

// generate adds a new key and returns its description.
func generate(t *testing.T, s *Store, role, gun string) Key {
	t.Helper()
	signer, err := s.Generate(t.Context(), role, gun)
	if err != nil {
		t.Fatal(err)
	}
	defer signer.Close()
	return signer.Key
}

// wantSigner checks that the store unlocks a key, and that it signs.
func wantSigner(t *testing.T, s *Store, id string) {
	t.Helper()
	signer, err := s.Unlock(t.Context(), id)
	if err != nil {
		t.Errorf("unlocking: got error %v", err)
		return
	}
	defer signer.Close()
	message := []byte("message")
	sig, err := signer.Sign(message)
	if err != nil {
		t.Errorf("signing: got error %v", err)
		return
	}
	if !verify(signer.Public, signer.Method(), message, sig) {
		t.Errorf("got a signature by %s that %T does not verify", signer.Method(), signer.Public)
	}
}

// verify checks a signature as the specification of the format says.
func verify(key crypto.PublicKey, method string, message, sig []byte) bool {
	sum := sha256.Sum256(message)
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		half := (k.Curve.Params().BitSize + 7) / 8
		return method == "ecdsa" && len(sig) == 2*half &&
			ecdsa.Verify(k, sum[:], new(big.Int).SetBytes(sig[:half]), new(big.Int).SetBytes(sig[half:]))
	case *rsa.PublicKey:
		return method == "rsapss" && rsa.VerifyPSS(k, crypto.SHA256, sum[:], sig,
			&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	case ed25519.PublicKey:
		return method == "eddsa" && ed25519.Verify(k, message, sig)
	}
	return false
}

// oneLine checks that an error is one line with all the words.
func oneLine(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want one with %q", words)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("got %q, want one line", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want %q in it", err, w)
		}
	}
	if strings.Contains(err.Error(), passphrase) {
		t.Errorf("got the passphrase in %q", err)
	}
}

// What is written is encrypted, for its owner only, labelled, and leaves no other file.
func TestThreatKeysAreStoredForTheirOwnerOnly(t *testing.T) {
	s := newStore(t)
	for _, role := range []string{RoleRoot, RoleTargets, "ci"} {
		k := generate(t, s, role, gun)
		info, err := os.Stat(k.File)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode(); got != 0o600 {
			t.Errorf("got mode %v of the file, want 0600", got)
		}
		text, err := os.ReadFile(k.File)
		if err != nil {
			t.Fatal(err)
		}
		block, rest := pem.Decode(text)
		if block == nil || len(rest) > 0 || block.Type != "ENCRYPTED PRIVATE KEY" {
			t.Errorf("got %q, want one encrypted private key", text)
			continue
		}
		want := map[string]string{"role": k.Role}
		if k.Role == RoleTargets {
			want["gun"] = gun
		}
		if diff := cmp.Diff(want, block.Headers); diff != "" {
			t.Errorf("headers of the %s key: want -, got +\n%s", k.Role, diff)
		}
		if got := filepath.Base(k.File); got != k.ID+".key" {
			t.Errorf("got file %s, want the name of key %s", got, k.ID)
		}
		wantSigner(t, s, k.ID)
	}
	for _, dir := range []string{s.Dir, s.folder()} {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o700 {
			t.Errorf("got mode %v of folder %s, want 0700", got, dir)
		}
	}
	if entries, _ := os.ReadDir(s.folder()); len(entries) != 3 {
		t.Errorf("got %v in the store, want three keys alone", entries)
	}
}

// A signer that is closed has no key any more.
func TestThreatClosedSignerHoldsNoKey(t *testing.T) {
	signer, err := NewSigner("ci", "")
	if err != nil {
		t.Fatal(err)
	}
	der := signer.der
	if !bytes.ContainsFunc(der, func(r rune) bool { return r != 0 }) {
		t.Fatal("got an empty key before Close")
	}
	signer.Close()
	if bytes.ContainsFunc(der, func(r rune) bool { return r != 0 }) {
		t.Error("got bytes of the private key after Close, want zeros")
	}
	_, err = signer.Sign([]byte("message"))
	oneLine(t, err, "is closed")
}

// encodings are private keys in every form that is read.
func encodings(t *testing.T) map[string]*pem.Block {
	t.Helper()
	p256, p384, p521 := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P384()), ecKey(t, elliptic.P521())
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := x509.MarshalECPrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	notaryForm, err := encode(pkcs8Of(t, ed))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*pem.Block{
		"PKCS 8, P-256":               {Type: "PRIVATE KEY", Bytes: pkcs8Of(t, p256)},
		"PKCS 8, RSA":                 {Type: "PRIVATE KEY", Bytes: pkcs8Of(t, rsaKey)},
		"PKCS 8, P-521":               {Type: "PRIVATE KEY", Bytes: pkcs8Of(t, p521)},
		"PKCS 8, Ed25519":             {Type: "PRIVATE KEY", Bytes: pkcs8Of(t, ed)},
		"SEC 1, P-384":                {Type: "EC PRIVATE KEY", Bytes: ec},
		"PKCS 1":                      {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)},
		"Ed25519 in PKCS 8 of Notary": {Type: "PRIVATE KEY", Bytes: notaryForm},
		"Ed25519 of Notary":           {Type: "ED25519 PRIVATE KEY", Bytes: append(bytes.Clone(ed[32:]), ed...)},
	}
	for name, c := range map[string]x509.PEMCipher{
		"DES": x509.PEMCipherDES, "3DES": x509.PEMCipher3DES, "AES-256": x509.PEMCipherAES256,
	} {
		//nolint:staticcheck // these are the keys to read
		b, err := x509.EncryptPEMBlock(rand.Reader, "EC PRIVATE KEY", ec, []byte(passphrase), c)
		if err != nil {
			t.Fatal(err)
		}
		all["DEK-Info, "+name] = b
	}
	for name, o := range map[string]pkcs8.Opts{
		"AES-128": {Cipher: pkcs8.AES128CBC}, "AES-192": {Cipher: pkcs8.AES192CBC},
		"AES-256": {Cipher: pkcs8.AES256CBC}, "3DES": {Cipher: pkcs8.TripleDESCBC},
	} {
		for hashName, h := range map[string]crypto.Hash{"SHA-1": crypto.SHA1, "SHA-256": crypto.SHA256} {
			o.KDFOpts = pkcs8.PBKDF2Opts{SaltSize: 8, IterationCount: 2048, HMACHash: h}
			der, err := pkcs8.MarshalPrivateKey(p256, []byte(passphrase), &o)
			if err != nil {
				t.Fatal(err)
			}
			all["PBES2, "+name+", "+hashName] = &pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}
		}
	}
	return all
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pkcs8Of(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// newPrivatePEM returns a new private key without encryption.
func newPrivatePEM(t *testing.T) []byte {
	t.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8Of(t, ecKey(t, elliptic.P256()))})
}

// write writes a private key to a new file.
func write(t *testing.T, text []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "a key.pem")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Every encoding is read from a store and from a file, and is written encrypted.
func TestEveryEncoding(t *testing.T) {
	for name, block := range encodings(t) {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			keys, err := s.Import(t.Context(), write(t, pem.EncodeToMemory(block)), ImportOptions{Name: "ci"})
			if err != nil || len(keys) != 1 {
				t.Fatalf("got keys %v and error %v, want one key", keys, err)
			}
			k, err := s.Get(keys[0].ID)
			if err != nil {
				t.Fatal(err)
			}
			if !k.Encrypted || k.Role != "ci" || k.GUN != "" {
				t.Errorf("got %+v, want an encrypted key of ci", k)
			}
			wantSigner(t, s, k.ID)

			// The same file, in the store of a client that wrote it so.
			block.Headers = mapWith(block.Headers, "role", "qa")
			if err := os.WriteFile(k.File, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
			old, err := s.Get(k.ID)
			if err != nil {
				t.Fatal(err)
			}
			encrypted := block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != ""
			if old.Role != "qa" || old.Encrypted != encrypted || (old.Public == nil) != encrypted {
				t.Errorf("got %+v, want a key of qa, encrypted: %v", old, encrypted)
			}
			wantSigner(t, s, k.ID)
		})
	}
}

func mapWith(m map[string]string, name, value string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	m[name] = value
	return m
}

// Keys that the format refuses are refused before they are stored.
func TestWeakKeys(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		key  any
		want string
	}{
		"RSA of 1024 bits": {weak, "1024 bits"}, "P-224": {ecKey(t, elliptic.P224()), "P-224"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			file := write(t, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8Of(t, tt.key)}))
			_, err := s.Import(t.Context(), file, ImportOptions{})
			oneLine(t, err, tt.want)
			if keys, _ := s.List(); len(keys) > 0 {
				t.Errorf("got %v in the store, want none", keys)
			}
		})
	}
}

// A store or file that others can read is refused, with the command that mends it.
func TestThreatLoosePermissions(t *testing.T) {
	for name, tt := range map[string]struct {
		loosen func(s *Store, k Key) (string, os.FileMode)
		want   []string
	}{
		"the folder of the keys": {func(s *Store, _ Key) (string, os.FileMode) { return s.folder(), 0o750 },
			[]string{"others can read", "chmod -R go= "}},
		"a key": {func(_ *Store, k Key) (string, os.FileMode) { return k.File, 0o604 },
			[]string{"others can read", "chmod -R go= "}},
		"the folder of an older client": {func(s *Store, _ Key) (string, os.FileMode) {
			return filepath.Join(s.folder(), rootFolder), 0o755
		}, []string{"others can read", "chmod -R go= "}},
		"the trust directory": {func(s *Store, _ Key) (string, os.FileMode) { return s.Dir, 0o770 },
			[]string{"others can change", "chmod go-w "}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			k := generate(t, s, "ci", "")
			if err := os.Mkdir(filepath.Join(s.folder(), rootFolder), 0o700); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Get(k.ID); err != nil {
				t.Fatal(err)
			}
			file, mode := tt.loosen(s, k)
			if err := os.Chmod(file, mode); err != nil {
				t.Fatal(err)
			}
			_, err := s.List()
			oneLine(t, err, tt.want...)
			_, err = s.Unlock(t.Context(), k.ID)
			oneLine(t, err, tt.want...)
			_, err = s.Generate(t.Context(), "qa", "")
			oneLine(t, err, tt.want...)

			// The command that the error names mends it.
			_, command, _ := strings.Cut(err.Error(), "run: ")
			runShell(t, command)
			wantSigner(t, s, k.ID)
		})
	}
	t.Run("a file to load", func(t *testing.T) {
		file := write(t, newPrivatePEM(t))
		if err := os.Chmod(file, 0o640); err != nil {
			t.Fatal(err)
		}
		s := newStore(t)
		_, err := s.Import(t.Context(), file, ImportOptions{})
		oneLine(t, err, "others can read", "chmod 600 '"+file+"'")
	})
}

// A file whose key is not the one of its name is never used.
func TestThreatFileOfAnotherKey(t *testing.T) {
	s := newStore(t)
	ci, qa := generate(t, s, "ci", ""), generate(t, s, "qa", "")
	if err := os.Rename(ci.File, qa.File); err != nil {
		t.Fatal(err)
	}
	_, err := s.Unlock(t.Context(), qa.ID)
	oneLine(t, err, "has the name of another key; it holds "+ci.ID)
	_, err = s.Unlock(t.Context(), ci.ID)
	oneLine(t, err, "there is no such key", ci.ID, "trust key load")
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

// A damaged file is listed with its fault, and does not keep the others from being used.
func TestDamagedFiles(t *testing.T) {
	id := strings.Repeat("ab", 32)
	encrypted, err := encrypt(pkcs8Of(t, ecKey(t, elliptic.P256())), []byte(passphrase), 10)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string) string {
		return "-----BEGIN " + kind + "-----\nAAAA\n-----END " + kind + "-----\n"
	}
	valid := string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: encrypted}))
	manyIterations, err := encrypt(pkcs8Of(t, ecKey(t, elliptic.P256())), []byte(passphrase), 10)
	if err != nil {
		t.Fatal(err)
	}
	manyIterations = withIterations(t, manyIterations, maxIterations+1)
	for name, tt := range map[string]struct {
		text, want string
	}{
		"empty":           {"", "no PEM block"},
		"not PEM":         {"garbage\x00\x1b[2J", "no PEM block"},
		"cut off":         {valid[:len(valid)/2], "damaged or cut off"},
		"a public key":    {block("PUBLIC KEY"), `"PUBLIC KEY" is not a private key`},
		"a key of ssh":    {block("OPENSSH PRIVATE KEY"), "ssh-keygen -p"},
		"not a key":       {block("PRIVATE KEY"), "not a private key that can be read"},
		"huge":            {valid + strings.Repeat("\n", maxFileSize), "too large"},
		"a role to print": {strings.Replace(block("PRIVATE KEY"), "AAAA", "role: \x1b[2J\n\nAAAA", 1), "header role"},
		"no encryption":   {block("ENCRYPTED PRIVATE KEY"), "cannot be read"},
		"too many iterations": {
			string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: manyIterations})),
			"5000001 iterations",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			good := generate(t, s, "ci", "")
			file := filepath.Join(s.folder(), id+extension)
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := s.Unlock(t.Context(), id)
			oneLine(t, err, tt.want, file)
			if strings.Contains(err.Error(), "\x1b") {
				t.Errorf("got %q, want no control characters", err)
			}
			if name != "huge" { // a file to load may have many keys
				_, err = s.Import(t.Context(), file, ImportOptions{})
				oneLine(t, err, tt.want)
			}
			wantSigner(t, s, good.ID)
			keys, err := s.List()
			if err != nil || len(keys) != 2 {
				t.Errorf("got %v and error %v, want both keys", keys, err)
			}
		})
	}
}

// Files of clients before 0.4 are read in their sub-folders, whose names say role and repository.
func TestOldLayout(t *testing.T) {
	s := newStore(t)
	root, targets := generate(t, s, RoleRoot, ""), generate(t, s, RoleTargets, gun)
	for file, k := range map[string]Key{
		"root_keys/" + root.ID + "_root.key": root, "tuf_keys/" + gun + "/" + targets.ID + "_targets.key": targets,
	} {
		text, err := os.ReadFile(k.File)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		block.Headers = nil
		file = filepath.Join(s.folder(), file)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(k.File); err != nil {
			t.Fatal(err)
		}
		found, err := s.Find(k.Role, gun)
		if err != nil {
			t.Fatal(err)
		}
		want := []Key{{ID: k.ID, Role: k.Role, GUN: k.GUN, Encrypted: true, File: file}}
		if diff := cmp.Diff(want, found); diff != "" {
			t.Errorf("keys of %s: want -, got +\n%s", k.Role, diff)
		}
		wantSigner(t, s, k.ID)
	}
	if found, _ := s.Find(RoleTargets, gun+"2"); len(found) > 0 {
		t.Errorf("got %v for another repository, want none", found)
	}
	if err := s.Remove(root.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(root.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("got error %v after Remove, want ErrNotFound", err)
	}
	if err := s.Remove(root.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("got error %v of a second Remove, want ErrNotFound", err)
	}
}

// A store without its folder is empty. A link in place of the folder is an error, not an empty
// store.
func TestNoFolder(t *testing.T) {
	s := newStore(t)
	if keys, err := s.List(); err != nil || len(keys) > 0 {
		t.Errorf("got %v and error %v, want no keys", keys, err)
	}
	if err := os.Mkdir(s.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), s.folder()); err != nil {
		t.Fatal(err)
	}
	_, err := s.List()
	oneLine(t, err, "is not a folder")
}

// Adding a key again changes nothing; adding it for another role is an error.
func TestAddAgain(t *testing.T) {
	s := newStore(t)
	file := write(t, newPrivatePEM(t))
	first, err := s.Import(t.Context(), file, ImportOptions{Name: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(first[0].File)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Import(t.Context(), file, ImportOptions{Name: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	if first[0].ID != second[0].ID || first[0].File != second[0].File {
		t.Errorf("got %+v the second time, want %+v", second[0], first[0])
	}
	_, err = s.Import(t.Context(), file, ImportOptions{Name: "qa"})
	oneLine(t, err, `for role "ci" already`, `for role "qa"`, "remove "+first[0].File)
	if after, _ := os.ReadFile(first[0].File); !bytes.Equal(before, after) {
		t.Error("got another file after adding the key again, want the first")
	}
}

// A folder that cannot be written leaves nothing.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	if err := WriteFile(name, []byte("1"), false); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(name, []byte("2"), false); !errors.Is(err, os.ErrExist) {
		t.Errorf("got error %v for a file that exists, want ErrExist", err)
	}
	if got, _ := os.ReadFile(name); string(got) != "1" {
		t.Errorf("got %q, want the first text", got)
	}
	// A link is replaced, not followed.
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("3"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, name); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(name, []byte("4"), true); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(other); string(got) != "3" {
		t.Errorf("got %q behind the link, want it unchanged", got)
	}
	if info, err := os.Lstat(name); err != nil || info.Mode() != 0o600 {
		t.Errorf("got %v and error %v, want a file of mode 0600", info, err)
	}
	if err := WriteFile(filepath.Join(dir, "none", "file"), nil, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v for a missing folder, want ErrNotExist", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("got %v, want no temporary files", entries)
	}
}

func ExampleStore() {
	dir, err := os.MkdirTemp("", "trust")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	s := &Store{Dir: dir, Passphrases: &Passphrases{Getenv: func(string) string { return "correct horse battery" }}}
	ctx := context.Background()
	signer, err := s.Generate(ctx, "ci", "")
	if err != nil {
		panic(err)
	}
	defer signer.Close()
	keys, err := s.Find("ci", "")
	if err != nil {
		panic(err)
	}
	fmt.Println(len(keys), keys[0].Role, keys[0].ID == signer.ID)
	// Output: 1 ci true
}
