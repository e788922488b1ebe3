package seenkeys

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const app = "registry.example.com/acme/app"

// read reads the file of a test.
func open(t *testing.T, path string) *Keys {
	t.Helper()
	k, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A key is new only in a repository that the file had before.
func TestNewKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "countersign", "seen-keys.json")
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	k := open(t, path)
	for _, role := range []string{"ci", "qa", "ci"} {
		if _, isNew := k.Note(app, role, "key of "+role, now); isNew {
			t.Errorf("%s: got a new key at the first sight of the repository, want none", role)
		}
	}
	if err := k.Write(); err != nil {
		t.Fatal(err)
	}
	k = open(t, path)
	later := now.Add(time.Hour)
	for _, c := range []struct {
		repository, role, key string
		isNew                 bool
		first                 time.Time
	}{
		{app, "ci", "key of ci", false, now},
		{app, "qa", "key of ci", true, later},
		{app, "ci", "another key", true, later},
		{app, "ci", "another key", false, later},
		{app + "/other", "ci", "key of ci", false, later},
	} {
		if first, isNew := k.Note(c.repository, c.role, c.key, later); isNew != c.isNew || !first.Equal(c.first) {
			t.Errorf("%+v: got new %t, first seen %s", c, isNew, first)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("got the file %v, %v, want one that only its owner can read", info, err)
	}
}

// Two commands at the same time lose no key, and the earlier sight counts.
func TestWritersAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seen-keys.json")
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	var all sync.WaitGroup
	for i := range 20 {
		k := open(t, path)
		k.Note(app, "ci", strings.Repeat("k", i+1), now)
		k.Note(app, "qa", "shared", now.Add(time.Duration(i)*time.Minute))
		all.Go(func() {
			if err := k.Write(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got := open(t, path)
	if n := len(got.seen[app]["ci"]); n != 20 {
		t.Errorf("got %d keys, want 20", n)
	}
	if first := got.seen[app]["qa"]["shared"]; !first.Equal(now) {
		t.Errorf("got %s as first sight, want %s", first, now)
	}
}

// A file that cannot be read is an error that says what to do, and stays as it is.
func TestUnreadableFile(t *testing.T) {
	for name, content := range map[string]string{
		"no JSON": "{", "empty": "", "later version": `{"version":2}`, "large": strings.Repeat(" ", maxFile+1),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "seen-keys.json")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Read(path)
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("got the error %v, want one with the path that says to move the file away", err)
			}
		})
	}
}
