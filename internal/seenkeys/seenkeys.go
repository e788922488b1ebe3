// Package seenkeys remembers which keys have signed for which role of a repository, in a file of
// the user. So a command can warn of a key that it has not seen before, as ssh does of hosts.
//
// The file proves nothing and never decides about an image.
package seenkeys

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

const (
	// maxFile bounds the file, in bytes: about 100,000 keys.
	maxFile = 32 << 20
	// version is that of the file's format.
	version = 1
)

// Keys are the keys that a file has, with those noted since. It is not safe for concurrent use.
type Keys struct {
	path  string
	seen  repositories
	noted []note
	// known are the repositories that the file had.
	known map[string]bool
}

// repositories has when a key was first seen, by repository, role and key.
type repositories map[string]map[string]map[string]time.Time

// note is one key that Note was called with.
type note struct {
	repository, role, key string
	at                    time.Time
}

// content is the content of the file.
type content struct {
	Version      int          `json:"version"`
	Repositories repositories `json:"repositories"`
}

// Path returns the usual path of the file: countersign/seen-keys.json in the user's configuration.
func Path() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "countersign", "seen-keys.json"), nil
}

// Read reads a file. A file that does not exist has no keys.
func Read(path string) (*Keys, error) {
	k := &Keys{path: path, known: map[string]bool{}}
	var err error
	if k.seen, err = read(path); err != nil {
		return nil, err
	}
	for name := range k.seen {
		k.known[name] = true
	}
	return k, nil
}

func read(path string) (repositories, error) {
	f, err := os.Open(path) //nolint:gosec // the user names the file
	if errors.Is(err, fs.ErrNotExist) {
		return repositories{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	var c content
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d MiB; move it away to begin anew", path, maxFile>>20)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("%s: %w; move it away to begin anew", path, err)
	}
	if c.Version != version {
		return nil, fmt.Errorf("%s: version %d is unknown; use the command that wrote it, or move it away to "+
			"begin anew", path, c.Version)
	}
	if c.Repositories == nil {
		c.Repositories = repositories{}
	}
	return c.Repositories, nil
}

// Note notes that a key has signed for a role of a repository. It returns when the key was first
// seen. isNew says that the repository was known before this file was read, and the key was not:
// the first sight of a repository is no warning.
func (k *Keys) Note(repository, role, key string, at time.Time) (first time.Time, isNew bool) {
	if first, ok := k.seen[repository][role][key]; ok {
		return first, false
	}
	at = at.UTC().Truncate(time.Second)
	k.seen.put(repository, role, key, at)
	k.noted = append(k.noted, note{repository, role, key, at})
	return at, k.known[repository]
}

// put adds a key, unless it was seen earlier.
func (r repositories) put(repository, role, key string, at time.Time) {
	if r[repository] == nil {
		r[repository] = map[string]map[string]time.Time{}
	}
	if r[repository][role] == nil {
		r[repository][role] = map[string]time.Time{}
	}
	if first, ok := r[repository][role][key]; !ok || at.Before(first) {
		r[repository][role][key] = at
	}
}

// Write adds the noted keys to the file. It keeps what another process has written meanwhile.
func (k *Keys) Write() error {
	if len(k.noted) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(k.path), 0o700); err != nil {
		return err
	}
	lock := flock.New(k.path + ".lock")
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("locking %s: %w", k.path, err)
	}
	defer func() { _ = lock.Unlock() }()
	now, err := read(k.path)
	if err != nil {
		return err
	}
	for _, n := range k.noted {
		now.put(n.repository, n.role, n.key, n.at)
	}
	b, err := json.MarshalIndent(content{Version: version, Repositories: now}, "", " ")
	if err != nil {
		return err
	}
	if len(b) > maxFile {
		return fmt.Errorf("%s would be larger than %d MiB; move it away to begin anew", k.path, maxFile>>20)
	}
	if err := replace(k.path, b); err != nil {
		return err
	}
	k.noted = nil
	return nil
}

// replace writes a file as a whole: a reader sees either the old content or the new one.
func replace(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+strings.TrimSuffix(filepath.Base(path), ".json")+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
