// Package notarykeys reads and writes the key store that Docker's client and the notary client
// share: the private keys of Docker Content Trust.
//
// A store is the folder "private" of a trust directory (~/.docker/trust, ~/.notary). Each key is a
// PEM file named by the key's ID, with headers for its role and repository. What this package
// writes, those clients read, and the other way round; files in the two sub-folders of older clients
// are read where they are.
//
// The package never writes a key without a passphrase, and never a file that others can read. It
// refuses a store that others can read. It overwrites passphrases and private keys in memory as
// soon as they have served; copies that the standard library makes remain until they are collected.
// It writes to a temporary file and renames it, so an interrupted run leaves no half key. It never
// reads a passphrase from an argument, and never prints one.
package notarykeys

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
)

// ErrNotFound says that the store has no such key.
var ErrNotFound = errors.New("no such key")

// Store is the key store of one trust directory. It holds no open files and no keys, so several
// processes may use the same directory.
type Store struct {
	// Dir is the trust directory. It need not exist: the first key that is added makes it.
	Dir string
	// Passphrases gives the passphrases of keys.
	Passphrases *Passphrases
}

// List returns all keys, sorted by role, repository and ID. A file that cannot be used is listed
// with its fault. A folder or file that others can read is an error.
func (s *Store) List() ([]Key, error) { return nil, errors.ErrUnsupported }

// Get returns the key with an ID, of 64 digits. It returns an error that wraps ErrNotFound if the
// store has no such key.
func (s *Store) Get(id string) (Key, error) { return Key{}, errors.ErrUnsupported }

// Find returns the keys of a role that can be used, sorted by ID. For targets, snapshot and
// timestamp it returns the keys of the repository gun alone; for root and signers, gun does not
// count. It returns none without an error.
func (s *Store) Find(role, gun string) ([]Key, error) { return nil, errors.ErrUnsupported }

// Unlock decrypts a key. It returns an error that wraps ErrNotFound if the store has no such key,
// and one that wraps ErrPassphrase if no passphrase fits. The caller closes the signer.
func (s *Store) Unlock(ctx context.Context, id string) (*Signer, error) {
	return nil, errors.ErrUnsupported
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
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return newSigner(Key{Role: role, GUN: gun}, der)
}

// Add encrypts a key with a new passphrase and writes it to the store. It sets the signer's File.
// A key that the store has already stays as it is: that is no error, unless the roles differ.
func (s *Store) Add(ctx context.Context, signer *Signer) error { return errors.ErrUnsupported }

// Remove deletes the file of a key.
func (s *Store) Remove(id string) error { return errors.ErrUnsupported }

// Export returns the PEM of a key as it is in the store, encrypted, with a header "path" so that
// Import and the notary client can read it.
func (s *Store) Export(id string) ([]byte, error) { return nil, errors.ErrUnsupported }

// Import adds the private keys of a PEM file: one, or several as the notary client exports them. role
// is the role of keys whose file names none, or only the name of another signer; gun the repository
// of keys whose file names none. Keys are encrypted with a new passphrase, except those with a
// header "path", which are stored as they are. It returns the keys of the file.
func (s *Store) Import(ctx context.Context, text []byte, role, gun string) ([]Key, error) {
	return nil, errors.ErrUnsupported
}
