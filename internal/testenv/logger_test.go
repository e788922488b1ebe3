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

// Whoever talks to an API server by controller-runtime sets its logger. Where nobody does, the
// library prints a stack trace after 30 seconds, into whatever the program prints at that moment.
func TestEveryProgramSetsTheLogger(t *testing.T) {
	root, err := build.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	starts, sets := regexp.MustCompile(
		`\b(kubeserver\.Start|operator\.Start|client\.New|ctrl\.NewManager)\(`), regexp.MustCompile(
		`\b(ctrl\.SetLogger|controlplane\.Run)\(`)
	silent := map[string]bool{} // folders, by whether nothing there sets the logger
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
		t.Fatalf("found %v, %v", silent, err)
	}
	for folder, is := range silent {
		if is {
			t.Errorf("%s talks to an API server and does not call ctrl.SetLogger", folder)
		}
	}
}
