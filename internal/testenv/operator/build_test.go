package operator

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/build"
)

// TestUnusedProgramsAreDeleted checks which programs stay in a cache folder: those that were used
// since a time, and those that another process is building.
func TestUnusedProgramsAreDeleted(t *testing.T) {
	cache, now := t.TempDir(), time.Now()
	since := now.Add(-time.Hour)
	program := func(checkout, kind string, used time.Time) string {
		kept := filepath.Join(cache, checkout, kind, "countersign")
		if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{kept, kept + ".lock"} {
			if err := os.WriteFile(name, nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := recordUse(kept, used); err != nil {
			t.Fatal(err)
		}
		return kept
	}
	old := since.Add(-time.Minute)
	unused := program("manager-1", "plain", old)
	half := program("manager-2", "plain", old)
	used := program("manager-2", "race", now)
	building := program("manager-3", "race", old)
	other := program("kube-v1", "plain", old)
	unlock, err := build.Lock(t.Context(), t.Output(), building+".lock")
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, want map[string]bool) {
		t.Helper()
		if err := deleteUnused(cache, since); err != nil {
			t.Fatal(err)
		}
		for path, want := range want {
			if got := exists(t, path); got != want {
				t.Errorf("%s: got existence of %s %t, want %t", when, path, got, want)
			}
		}
	}
	check("while one is locked", map[string]bool{
		filepath.Join(cache, "manager-1"): false, unused: false, filepath.Dir(half): false,
		used: true, building: true, other: true,
	})
	unlock()
	check("afterwards", map[string]bool{filepath.Join(cache, "manager-3"): false, used: true, other: true})
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}
