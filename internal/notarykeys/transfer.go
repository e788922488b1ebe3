package notarykeys

import (
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// minPrefix is the length of the shortest prefix of an ID that names a key. Docker prints 7 digits.
const minPrefix = 7

// Lookup returns the key that a user names: by its ID, by its role or signer's name, or by the
// first 7 digits or more of its ID. It returns an error that wraps ErrNotFound if there is none,
// and an error if there are several.
func (s *Store) Lookup(name string) (Key, error) {
	keys, err := s.List()
	if err != nil {
		return Key{}, err
	}
	var found []Key
	for _, k := range keys {
		if k.ID == name || k.Role == name || (len(name) >= minPrefix && strings.HasPrefix(k.ID, name)) {
			found = append(found, k)
		}
	}
	// A file of an older client may hold the same key.
	slices.SortStableFunc(found, func(a, b Key) int { return cmp.Compare(a.ID, b.ID) })
	found = slices.CompactFunc(found, func(a, b Key) bool { return a.ID == b.ID })
	switch len(found) {
	case 0:
		return Key{}, fmt.Errorf("%w in %s: %q; 'trust key list' lists the keys", ErrNotFound, s.Dir, name)
	case 1:
		return found[0], found[0].Fault
	default:
		return Key{}, fmt.Errorf("%q names %d keys; give the ID of one, such as %s (%s)", name, len(found), found[0].ID,
			purpose(found[0]))
	}
}

// Export returns the PEM of a key as it is in the store, with a header "path" so that Import and
// the notary client can read it. It needs no passphrase.
func (s *Store) Export(id string) ([]byte, error) {
	k, err := s.Get(id)
	if err != nil {
		return nil, err
	}
	b, err := s.read(k)
	if err != nil {
		return nil, err
	}
	defer b.wipe()
	headers := maps.Clone(b.Headers)
	if headers == nil {
		headers = map[string]string{}
	}
	maps.Copy(headers, map[string]string{headerPath: k.ID, headerRole: k.Role, headerGUN: k.GUN})
	maps.DeleteFunc(headers, func(_, value string) bool { return value == "" })
	return pem.EncodeToMemory(&pem.Block{Type: b.Type, Headers: headers, Bytes: b.Bytes}), nil
}

// ImportOptions say what the file of a key does not.
type ImportOptions struct {
	// Name is the role of keys whose file names none, or names another signer. It cannot replace
	// root, targets, snapshot or timestamp.
	Name string
	// GUN is the repository of targets, snapshot and timestamp keys whose file names none.
	GUN string
	// DryRun writes nothing, and needs no new passphrase.
	DryRun bool
}

// Import adds the private keys of a PEM file: one, or several as the notary client exports them.
// Keys are encrypted with a new passphrase. Encrypted keys with a header "path" are stored as they
// are, without any passphrase. Import writes nothing unless it can read all keys, and returns them.
func (s *Store) Import(ctx context.Context, file string, options ImportOptions) ([]Key, error) {
	data, err := ReadPrivate(file)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	blocks, err := decodeBlocks(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	defer func() {
		for _, b := range blocks {
			b.wipe()
		}
	}()
	var all []prepared
	for _, b := range blocks {
		p, err := s.adopt(ctx, file, b, options)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(all, func(q prepared) bool { return q.key.ID == p.key.ID }) {
			all = append(all, p)
		}
	}
	keys := make([]Key, 0, len(all))
	for _, p := range all {
		if !options.DryRun {
			if err := s.write(p); err != nil {
				return nil, err
			}
		}
		keys = append(keys, p.key)
	}
	return keys, nil
}

// adopt prepares one key of a file.
func (s *Store) adopt(ctx context.Context, file string, b privateBlock, options ImportOptions) (prepared, error) {
	k, err := labels(b, options)
	if err != nil {
		return prepared{}, fmt.Errorf("%s: %w", file, err)
	}
	k.File = file
	if k.Encrypted && validID(k.ID) {
		present, err := s.present(&k)
		if present || err != nil {
			return prepared{key: k}, err
		}
		headers := maps.Clone(b.Headers)
		maps.Copy(headers, map[string]string{headerRole: k.Role, headerGUN: k.GUN, headerPath: ""})
		maps.DeleteFunc(headers, func(_, value string) bool { return value == "" })
		return prepared{k, pem.EncodeToMemory(&pem.Block{Type: b.Type, Headers: headers, Bytes: b.Bytes})}, nil
	}
	signer, err := s.Passphrases.unlock(ctx, k, b, openFile)
	if err != nil {
		return prepared{}, err
	}
	defer signer.Close()
	if options.DryRun {
		k = signer.Key
		k.Encrypted = true // as it would be stored
		_, err := s.present(&k)
		return prepared{key: k}, err
	}
	return s.prepare(ctx, signer)
}

// labels returns the role, repository and ID that the headers of a key give, with the options.
func labels(b privateBlock, options ImportOptions) (Key, error) {
	k := Key{Role: b.role(), Encrypted: b.encrypted()}
	id, role, gun := legacyPath(b.Headers[headerPath])
	k.Role = cmp.Or(k.Role, role)
	k.GUN = cmp.Or(b.gun(), gun, options.GUN)
	if validID(id) {
		k.ID = id
	}
	switch {
	case options.Name == "" || options.Name == k.Role:
	case k.Role == RoleRoot || repositoryRole(k.Role):
		return Key{}, fmt.Errorf("the key has the role %q, which a signer's name cannot replace; drop --name %s",
			k.Role, options.Name)
	default:
		k.Role = options.Name
	}
	k.Role = cmp.Or(k.Role, DefaultName)
	return k, nil
}

// DefaultName is the role of keys that are added without a name, as docker trust names them.
const DefaultName = "signer"

// openFile decodes the key of a file that is not in a store.
func openFile(k Key, b privateBlock, passphrase []byte) (*Signer, error) {
	der, err := b.private(passphrase)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", k.File, err)
	}
	signer, err := newSigner(k, der)
	if err != nil {
		clear(der)
		return nil, fmt.Errorf("key file %s: %w", k.File, err)
	}
	return signer, nil
}

// UnlockFile decrypts the one private key of a file that is in no store. name is the signer's name
// if the file has none. The caller closes the signer.
func UnlockFile(ctx context.Context, file, name string, passphrases *Passphrases) (*Signer, error) {
	data, err := ReadPrivate(file)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	blocks, err := decodeBlocks(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	defer func() {
		for _, b := range blocks {
			b.wipe()
		}
	}()
	if len(blocks) > 1 {
		return nil, fmt.Errorf("%s has %d private keys; give a file with one", file, len(blocks))
	}
	k, err := labels(blocks[0], ImportOptions{Name: name})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	k.File = file
	return passphrases.unlock(ctx, k, blocks[0], openFile)
}

// CheckName returns an error if a name cannot be that of a new key: of a signer, or root.
func CheckName(name string) error {
	switch {
	case !validName(name):
		return fmt.Errorf("name %q must have only a-z, 0-9, - and _, and begin with a letter or a digit", name)
	case repositoryRole(name):
		return fmt.Errorf("a %s key belongs to a repository, and is made with it; choose a signer's name", name)
	case name == "releases":
		return errors.New("releases is the delegation of all signers; choose a signer's name")
	}
	return nil
}
