package operator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/build"
)

// unusedAfter is the time after its last use when Build deletes the program of another checkout.
const unusedAfter = 24 * time.Hour

// built has the paths of the programs that this process has built. The go command needs two seconds
// of processor time only to find that no source has changed.
var built sync.Map //nolint:gochecknoglobals // a fact about the process

// Build builds the manager of this repository into dir, optionally with the race detector, and
// returns its path. A process builds it only once. The user's cache folder keeps one program for
// each checkout: the go command links again for every new output path, but for the same path only
// if a source has changed. Build deletes the programs of checkouts that were not used for a day.
func Build(ctx context.Context, dir string, race bool) (string, error) {
	root, err := build.ModuleRoot()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache folder: %w", err)
	}
	kind, args := "plain", []string{"build"}
	if race {
		kind, args = "race", append(args, "-race")
	}
	checkout := sha256.Sum256([]byte(root))
	cache = filepath.Join(cache, "countersign")
	kept := filepath.Join(cache, "manager-"+hex.EncodeToString(checkout[:6]), kind, "countersign")
	unlock, err := build.Lock(ctx, io.Discard, kept+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, ok := built.Load(kept); !ok {
		if _, err := build.Go(ctx, root, append(args, "-o", kept, ".")...); err != nil {
			return "", fmt.Errorf("building the manager: %w", err)
		}
		built.Store(kept, true)
		if err := recordUse(kept, time.Now()); err != nil {
			return "", err
		}
		if err := deleteUnused(cache, time.Now().Add(-unusedAfter)); err != nil {
			return "", err
		}
	}
	path := filepath.Join(dir, "countersign")
	return path, linkOrCopy(kept, path)
}

// recordUse sets the time when a program was used: the modification time of its lock file.
func recordUse(kept string, at time.Time) error {
	if err := os.Chtimes(kept+".lock", at, at); err != nil {
		return fmt.Errorf("recording the use of a program: %w", err)
	}
	return nil
}

// deleteUnused deletes the programs in a cache folder that were not used since a time. It skips
// those that another process is building. Tests that run have links of their own to these programs.
func deleteUnused(cache string, since time.Time) error {
	locks, err := filepath.Glob(filepath.Join(cache, "manager-*", "*", "countersign.lock"))
	if err != nil {
		return err
	}
	unused := func(lock string) bool {
		info, err := os.Stat(lock)
		return err == nil && info.ModTime().Before(since)
	}
	for _, lock := range locks {
		if !unused(lock) {
			continue
		}
		unlock, err := build.TryLock(lock)
		if err != nil {
			return fmt.Errorf("locking %s: %w", lock, err)
		}
		if unlock == nil {
			continue
		}
		if unused(lock) {
			err = deleteProgram(filepath.Dir(lock))
		}
		unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// deleteProgram deletes the program in a folder and its lock file, which the caller holds. It keeps
// a folder that another process puts a new program in.
func deleteProgram(dir string) error {
	for _, name := range []string{"countersign", "countersign.lock"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("deleting an unused program: %w", err)
		}
	}
	_ = os.Remove(dir)               // fails if the folder is not empty
	_ = os.Remove(filepath.Dir(dir)) // fails if it has a program of another kind
	return nil
}

// linkOrCopy links or copies a program to another path. A later build does not change the program
// at that path.
func linkOrCopy(program, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replacing a program: %w", err)
	}
	if os.Link(program, path) == nil {
		return nil
	}
	text, err := os.ReadFile(program) // on another file system
	if err != nil {
		return fmt.Errorf("copying a program: %w", err)
	}
	return os.WriteFile(path, text, 0o755)
}
