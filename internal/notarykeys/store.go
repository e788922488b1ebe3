// Package notarykeys reads and writes the key store that Docker's client and the notary client
// share: the private keys of Docker Content Trust.
//
// A store is the folder "private" of a trust directory (~/.docker/trust, ~/.notary). Each key is a
// PEM file named by the key's ID, with headers for its role and repository. What this package
// writes, those clients read, and the other way round. It reads files in the two sub-folders of
// older clients too, and leaves them there.
//
// The package never writes a key without a passphrase, and never a file that others can read. It
// refuses a store that others can read. It overwrites passphrases and private keys in memory after
// use; copies that the standard library makes remain until they are collected. It writes to a
// temporary file and renames it, so an interrupted run leaves no half key. It never reads a
// passphrase from an argument, and never prints one.
package notarykeys

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/internal/keyid"
)

// ErrNotFound says that the store has no such key.
var ErrNotFound = errors.New("there is no such key")

// Store is the key store of one trust directory. It holds no open files and no keys, so several
// processes may use the same directory.
type Store struct {
	// Dir is the trust directory. It need not exist: the first key that is added makes it.
	Dir string
	// Passphrases gives the passphrases of keys.
	Passphrases *Passphrases

	iterations int // 0: defaultIterations
}

// List returns all keys, sorted by role, repository and ID. A file that cannot be used is listed
// with its fault. A folder or file that others can read is an error.
func (s *Store) List() ([]Key, error) {
	files, err := s.files()
	if err != nil {
		return nil, err
	}
	keys := make([]Key, 0, len(files))
	for _, name := range files {
		keys = append(keys, s.describe(name))
	}
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.GUN, b.GUN), cmp.Compare(a.ID, b.ID),
			cmp.Compare(a.File, b.File))
	})
	return keys, nil
}

// describe reads one file, without its private key.
func (s *Store) describe(name string) Key {
	base := strings.TrimSuffix(filepath.ToSlash(name), extension)
	k := Key{File: filepath.Join(s.folder(), name)}
	var role string
	k.ID, role, k.GUN = legacyPath(base)
	b, err := s.read(k)
	if err != nil {
		k.Fault = err
		return k
	}
	defer b.wipe()
	k.Role, k.GUN, k.Encrypted = cmp.Or(b.role(), role), cmp.Or(b.gun(), k.GUN), b.encrypted()
	if !repositoryRole(k.Role) {
		k.GUN = ""
	}
	k.Fault = s.check(&k, b)
	return k
}

// check returns why a key cannot be used. It sets the public key of an unencrypted one.
func (s *Store) check(k *Key, b privateBlock) error {
	if !validID(k.ID) {
		return fmt.Errorf("the name of %s is not a key ID; add the key again with 'trust key load'", k.File)
	}
	if k.Encrypted {
		return nil
	}
	signer, err := s.open(*k, b, nil)
	if err != nil {
		return err
	}
	defer signer.Close()
	k.Public = signer.Public
	return nil
}

// open decodes the key of a file with a passphrase.
func (*Store) open(k Key, b privateBlock, passphrase []byte) (*Signer, error) {
	der, err := b.private(passphrase)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", k.File, err)
	}
	signer, err := newSigner(k, der)
	if err != nil {
		clear(der)
		return nil, fmt.Errorf("key file %s: %w", k.File, err)
	}
	if signer.ID != k.ID {
		signer.Close()
		return nil, fmt.Errorf("key file %s has the name of another key; it holds %s", k.File, signer.ID)
	}
	return signer, nil
}

// read reads the first private key of a file of the store, as the notary client does.
func (*Store) read(k Key) (privateBlock, error) {
	data, err := readFile(k.File, maxFileSize)
	if err != nil {
		return privateBlock{}, err
	}
	defer clear(data)
	blocks, err := decodeBlocks(data)
	if err != nil {
		return privateBlock{}, fmt.Errorf("key file %s: %w; remove it, or restore it from a backup", k.File, err)
	}
	for _, b := range blocks[1:] {
		b.wipe()
	}
	return blocks[0], nil
}

// Get returns the key with an ID, of 64 digits. It returns an error that wraps ErrNotFound if the
// store has no such key, and the fault of a key that cannot be used.
func (s *Store) Get(id string) (Key, error) {
	keys, err := s.List()
	if err != nil {
		return Key{}, err
	}
	// A file of an older client may hold the key too.
	var fault error
	for _, k := range keys {
		if k.ID == id && k.Fault == nil {
			return k, nil
		}
		if k.ID == id {
			fault = k.Fault
		}
	}
	if fault != nil {
		return Key{}, fault
	}
	return Key{}, fmt.Errorf("%w in %s: %s; add it with 'trust key load'", ErrNotFound, s.Dir, id)
}

// Find returns the keys of a role that can be used, sorted by ID. For targets, snapshot and
// timestamp it returns the keys of the repository gun alone; for root and signers, gun does not
// count. It returns none without an error.
func (s *Store) Find(role, gun string) ([]Key, error) {
	keys, err := s.List()
	if err != nil {
		return nil, err
	}
	var found []Key
	for _, k := range keys {
		if k.Fault == nil && k.Role == role && (k.GUN == gun || !repositoryRole(role)) {
			found = append(found, k)
		}
	}
	return slices.CompactFunc(found, func(a, b Key) bool { return a.ID == b.ID }), nil
}

// Unlock decrypts a key. It returns an error that wraps ErrNotFound if the store has no such key,
// and one that wraps ErrPassphrase if no passphrase fits. The caller closes the signer.
func (s *Store) Unlock(ctx context.Context, id string) (*Signer, error) {
	k, err := s.Get(id)
	if err != nil {
		return nil, err
	}
	b, err := s.read(k)
	if err != nil {
		return nil, err
	}
	return s.Passphrases.unlock(ctx, k, b, s.open)
}

// Generate makes a key (ECDSA P-256) for a role, and adds it. The caller closes the signer.
func (s *Store) Generate(ctx context.Context, role, gun string) (*Signer, error) {
	signer, err := NewSigner(role, gun)
	if err != nil {
		return nil, err
	}
	if err := s.Add(ctx, signer); err != nil {
		signer.Close()
		return nil, err
	}
	return signer, nil
}

// NewSigner makes a key (ECDSA P-256) that is in no store yet. A caller that must not leave keys
// behind when it fails adds the key at the end.
func NewSigner(role, gun string) (*Signer, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("encoding a new key: %w", err)
	}
	return newSigner(Key{Role: role, GUN: gun}, der)
}

// Add encrypts a key with a new passphrase and writes it to the store. It sets the signer's File
// and Encrypted. If the store has the key already, Add leaves it as it is: that is no error, unless
// it has another role or repository.
func (s *Store) Add(ctx context.Context, signer *Signer) error {
	p, err := s.prepare(ctx, signer)
	if err != nil {
		return err
	}
	if err := s.write(p); err != nil {
		return err
	}
	signer.File, signer.Encrypted = p.key.File, p.key.Encrypted
	return nil
}

// A prepared key is one that is to be written, or is in the store: then it has no text.
type prepared struct {
	key  Key
	text []byte
}

// prepare encrypts a key, unless the store has it.
func (s *Store) prepare(ctx context.Context, signer *Signer) (prepared, error) {
	k := signer.Key
	if _, _, err := keyid.Encode(k.Public); err != nil {
		return prepared{}, err
	}
	if present, err := s.present(&k); present || err != nil {
		return prepared{key: k}, err
	}
	passphrase, err := s.Passphrases.create(ctx, k)
	if err != nil {
		return prepared{}, err
	}
	defer clear(passphrase)
	der, err := encrypt(signer.der, passphrase, cmp.Or(s.iterations, defaultIterations))
	if err != nil {
		return prepared{}, err
	}
	k.Encrypted = true
	return prepared{k, encodePEM(der, map[string]string{headerRole: k.Role, headerGUN: k.GUN})}, nil
}

// present reports whether the store has a key of the same ID, role and repository. It completes k,
// and returns an error if k cannot be added.
func (s *Store) present(k *Key) (bool, error) {
	switch {
	case !repositoryRole(k.Role):
		k.GUN = ""
	case k.GUN == "":
		return false, fmt.Errorf("a %s key belongs to a repository, and key %s names none (header %q)", k.Role, k.ID,
			headerGUN)
	}
	if !plain(k.Role) || !plain(k.GUN) {
		return false, fmt.Errorf("role %q and repository %q must be names of at most %d ASCII characters", k.Role,
			k.GUN, maxHeader)
	}
	old, err := s.Get(k.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		k.File = filepath.Join(s.folder(), k.ID+extension)
		return false, nil
	case err != nil:
		return false, err
	case old.Role != k.Role || old.GUN != k.GUN:
		return false, fmt.Errorf("the key store has key %s for %s already; to store it for %s, remove %s first",
			k.ID, purpose(old), purpose(*k), old.File)
	}
	if old.Public == nil {
		old.Public = k.Public
	}
	*k = old
	return true, nil
}

func (s *Store) write(p prepared) error {
	if p.text == nil {
		return nil
	}
	if err := os.MkdirAll(s.folder(), 0o700); err != nil {
		return fmt.Errorf("making the key store: %w", err)
	}
	err := WriteFile(p.key.File, p.text, false)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process added the key
	}
	return err
}

// Remove deletes the files of a key. It returns an error that wraps ErrNotFound if there is none.
func (s *Store) Remove(id string) error {
	keys, err := s.List()
	if err != nil {
		return err
	}
	found := false
	for _, k := range keys {
		if k.ID != id {
			continue
		}
		if err := os.Remove(k.File); err != nil {
			return fmt.Errorf("removing key %s: %w", id, err)
		}
		found = true
	}
	if !found {
		return fmt.Errorf("%w in %s: %s", ErrNotFound, s.Dir, id)
	}
	return nil
}

// repositoryRole reports whether keys of a role belong to one repository.
func repositoryRole(role string) bool {
	return role == RoleTargets || role == RoleSnapshot || role == RoleTimestamp
}

// purpose says what a key is for.
func purpose(k Key) string {
	switch {
	case k.Role == "":
		return "no role"
	case k.GUN != "":
		return fmt.Sprintf("role %q of %s", k.Role, k.GUN)
	default:
		return fmt.Sprintf("role %q", k.Role)
	}
}
