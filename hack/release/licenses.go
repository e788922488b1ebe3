package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// licenseNames matches the names of license files in modules.
var licenseNames = regexp.MustCompile(`(?i)^(licen[sc]e|copying|notice|patents)([.-][a-z0-9.-]+)?$`)

// packed is a file of the base image, or a folder if text is nil.
type packed struct {
	name string
	text []byte
}

// licenses returns the folder licenses/ of the image. It has the license files of the program, of
// Go, and of every module that is linked into it on a platform. A module without a license
// file is an error.
func licenses(ctx context.Context, root string, p program, platforms []string) ([]packed, error) {
	folders := map[string]string{} // by the name of the module, in the image
	for _, platform := range platforms {
		goos, rest, _ := strings.Cut(platform, "/")
		arch, _, _ := strings.Cut(rest, "/")
		list := exec.CommandContext(ctx, "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}\t{{.Dir}}{{end}}",
			p.folder)
		list.Dir, list.Env = root, append(os.Environ(), "GOOS="+goos, "GOARCH="+arch)
		out, err := list.Output()
		if err != nil {
			return nil, fmt.Errorf("listing the linked modules for %s: %w", platform, err)
		}
		for line := range strings.Lines(string(out)) {
			if name, folder, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
				folders[name] = folder
			}
		}
	}
	goroot := exec.CommandContext(ctx, "go", "env", "GOROOT")
	goroot.Dir = root
	out, err := goroot.Output()
	if err != nil {
		return nil, fmt.Errorf("finding Go: %w", err)
	}
	folders["go"] = strings.TrimSpace(string(out))
	files := map[string][]byte{}
	for module, folder := range folders {
		entries, err := os.ReadDir(folder)
		if err != nil {
			return nil, fmt.Errorf("looking for the license of %s: %w", module, err)
		}
		found := false
		for _, e := range entries {
			if !e.Type().IsRegular() || !licenseNames.MatchString(e.Name()) {
				continue
			}
			text, err := os.ReadFile(filepath.Join(folder, e.Name()))
			if err != nil {
				return nil, fmt.Errorf("reading the license of %s: %w", module, err)
			}
			if text = bytes.TrimSpace(text); len(text) > 0 {
				found = true
				files[path.Join("licenses", module, e.Name())] = append(text, '\n')
			}
		}
		if !found {
			return nil, fmt.Errorf("the module %s has no file with its license in %s", module, folder)
		}
	}
	return withFolders(files), nil
}

// withFolders returns the files sorted by name, each after its folders.
func withFolders(files map[string][]byte) []packed {
	entries := map[string][]byte{}
	for name, text := range files {
		entries[name] = text
		for folder := path.Dir(name); folder != "."; folder = path.Dir(folder) {
			entries[folder+"/"] = nil
		}
	}
	sorted := make([]packed, 0, len(entries))
	for name, text := range entries {
		sorted = append(sorted, packed{name, text})
	}
	slices.SortFunc(sorted, func(a, b packed) int { return strings.Compare(a.name, b.name) })
	return sorted
}
