package notarykeys

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Folders of a trust directory. The latter two are below the first, and of older clients.
const (
	privateFolder = "private"
	rootFolder    = "root_keys"
	nonRootFolder = "tuf_keys"
)

const extension = ".key"

// others are the permissions of everybody but the owner.
const others fs.FileMode = 0o077

// DefaultDir returns the trust directory that is used without a flag: that of the notary client's
// variable NOTARY_TRUST_DIR, or else Docker's, which DOCKER_CONFIG may move.
func DefaultDir(getenv func(string) string) (string, error) {
	if dir := getenv("NOTARY_TRUST_DIR"); dir != "" {
		return dir, nil
	}
	config := getenv("DOCKER_CONFIG")
	if config == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", errors.New("this user has no home folder; give the trust directory with --trust-dir")
		}
		config = filepath.Join(home, ".docker")
	}
	return filepath.Join(config, "trust"), nil
}

func (s *Store) folder() string { return filepath.Join(s.Dir, privateFolder) }

// files returns the names of all key files, relative to the folder of the keys, in lexical order.
// It refuses a store that others can read. Without a folder there are none. Links and other special
// files are ignored, as the notary client ignores them.
func (s *Store) files() ([]string, error) {
	if info, err := os.Stat(s.Dir); err == nil && !private(info, 0o022) {
		return nil, fmt.Errorf("others can change the trust directory %s; run: chmod go-w %s", s.Dir, quote(s.Dir))
	}
	if info, err := os.Lstat(s.folder()); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder (the notary client follows no link there); give the trust directory",
			s.folder())
	}
	var names []string
	err := filepath.WalkDir(s.folder(), func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		isKey := entry.Type().IsRegular() && filepath.Ext(name) == extension
		if !entry.IsDir() && !isKey {
			return nil
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another process removed it
		}
		if err != nil {
			return err
		}
		if !private(info, others) {
			return fmt.Errorf("others can read the keys in %s; run: chmod -R go= %s", name, quote(s.folder()))
		}
		if isKey {
			relative, err := filepath.Rel(s.folder(), name)
			if err != nil {
				return err
			}
			names = append(names, relative)
		}
		return nil
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the key store %s is not readable for this user; run it as its owner", s.folder())
	}
	return names, err
}

// private reports whether a file has none of the permissions of mask. Windows has no such bits.
func private(info fs.FileInfo, mask fs.FileMode) bool {
	return runtime.GOOS == "windows" || info.Mode().Perm()&mask == 0
}

// ReadPrivate reads a file of private keys that is not in a store. It refuses a file that others
// can read, and one that is too large to be keys. The caller overwrites the result.
func ReadPrivate(name string) ([]byte, error) {
	return readFile(name, maxImportSize)
}

func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the user names the file or its folder
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no file %s", name)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the file %s is not readable for this user; run it as the owner of the file", name)
	case err != nil:
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a folder; give the file of a private key", name)
	case !private(info, others):
		return nil, fmt.Errorf("others can read the private key %s; run: chmod 600 %s", name, quote(name))
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		clear(data)
		return nil, fmt.Errorf("%s is too large for private keys: more than %d KiB", name, limit>>10)
	}
	return data, nil
}

// WriteFile writes a file that only its owner can read: first to a temporary file beside it, which
// it syncs and renames. It replaces a file only if replace is set; else a file there is an error
// that wraps fs.ErrExist.
func WriteFile(name string, data []byte, replace bool) (err error) {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, ".countersign-*.tmp") // with mode 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
		if err != nil {
			err = fmt.Errorf("writing %s: %w", name, err)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := rename(f.Name(), name, replace); err != nil {
		return err
	}
	if d, err := os.Open(dir); err == nil { //nolint:gosec // the user names the file or its folder
		_ = d.Sync() // some file systems cannot
		_ = d.Close()
	}
	return nil
}

// rename renames a file. A link, unlike a rename, fails if the new name exists; some file systems
// have no links.
func rename(from, to string, replace bool) error {
	if !replace {
		err := os.Link(from, to)
		if err == nil || errors.Is(err, fs.ErrExist) {
			return err
		}
		if _, err := os.Lstat(to); err == nil {
			return fs.ErrExist
		}
	}
	return os.Rename(from, to)
}

// quote quotes a path for a shell, where it needs quotes.
func quote(name string) string {
	if !strings.ContainsFunc(name, func(r rune) bool {
		return !strings.ContainsRune("/._-+:@", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') &&
			(r < 'a' || r > 'z')
	}) {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}
