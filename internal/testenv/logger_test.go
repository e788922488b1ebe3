package testenv

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv/build"
)

// TestEveryProgramSetsTheLogger checks that every package that uses a client of controller-runtime
// sets the library's logger. Without a logger the library prints a stack trace after 30 seconds,
// into the middle of the program's output.
func TestEveryProgramSetsTheLogger(t *testing.T) {
	root, err := build.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	starts, sets := regexp.MustCompile(
		`\b(kubeserver\.Start|operator\.Start|client\.New|ctrl\.NewManager)\(`), regexp.MustCompile(
		`\b(ctrl\.SetLogger|controlplane\.Run)\(`)
	silent := map[string]bool{} // by folder: uses a client and sets no logger
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		folder := filepath.Dir(path)
		if _, ok := silent[folder]; !ok && starts.Match(text) {
			silent[folder] = true
		}
		if sets.Match(text) {
			silent[folder] = false
		}
		return nil
	})
	if err != nil || len(silent) < 5 {
		t.Fatalf("got %d folders that use a client (%v), want at least 5: %v", len(silent), err, silent)
	}
	for folder, is := range silent {
		if is {
			t.Errorf("%s uses a client of controller-runtime and does not call ctrl.SetLogger", folder)
		}
	}
}
