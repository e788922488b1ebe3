package build

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// ModuleRoot returns the folder of this module's go.mod. It searches upward from the working
// directory.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the module root: %w", err)
	}
	start := dir
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.Contains(text, []byte("module github.com/countersign-dev/countersign\n")) {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod of this module in %s or above; run from inside the repository", start)
		}
		dir = parent
	}
}

// ModuleSource returns the folder with the source of a module that the module hack/<name> pins. It
// downloads the source if needed.
func ModuleSource(ctx context.Context, name, module string) (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	out, err := Go(ctx, filepath.Join(root, "hack", name), "mod", "download", "-json", module)
	if err != nil {
		return "", fmt.Errorf("downloading %s: %w", module, err)
	}
	var answer struct{ Dir string }
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		return "", fmt.Errorf("reading the folder that %s was downloaded to: %w", module, err)
	}
	return answer.Dir, nil
}
