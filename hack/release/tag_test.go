package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckTag(t *testing.T) {
	keepEnvironment(t)
	commit := func(t *testing.T, root, file string) {
		if err := os.WriteFile(filepath.Join(root, file), []byte(file), 0o644); err != nil {
			t.Fatal(err)
		}
		runIn(t, root, "git", "add", "-A")
		runIn(t, root, "git", "-c", "user.name=ci", "-c", "user.email=ci@example.com", "commit", "-qm", file)
	}
	for name, c := range map[string]struct {
		change  func(t *testing.T, root string)
		version string
		want    string // empty: no error
	}{
		"the tag's own commit": {change: func(*testing.T, string) {}},
		"an annotated tag": {version: "v1.2.4", change: func(t *testing.T, root string) {
			runIn(t, root, "git", "-c", "user.name=ci", "-c", "user.email=ci@example.com", "tag", "-am", "four",
				"v1.2.4")
		}},
		"no version":  {version: "latest", want: "VERSION=v1.2.3", change: func(*testing.T, string) {}},
		"no such tag": {version: "v9.9.9", want: "there is no tag v9.9.9", change: func(*testing.T, string) {}},
		"a branch of that name": {version: "v1.2.4", want: "there is no tag v1.2.4",
			change: func(t *testing.T, root string) {
				runIn(t, root, "git", "branch", "v1.2.4")
			}},
		"a later commit": {
			want: "git checkout v1.2.3", change: func(t *testing.T, root string) { commit(t, root, "later") },
		},
		"a changed file": {want: " M first", change: func(t *testing.T, root string) {
			if err := os.WriteFile(filepath.Join(root, "first"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		"a file that is not committed": {want: "?? other", change: func(t *testing.T, root string) {
			if err := os.WriteFile(filepath.Join(root, "other"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		"no checkout": {want: "no git checkout", change: func(t *testing.T, root string) {
			if err := os.RemoveAll(filepath.Join(root, ".git")); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			runIn(t, root, "git", "init", "-q")
			commit(t, root, "first")
			runIn(t, root, "git", "tag", "v1.2.3")
			c.change(t, root)
			version := c.version
			if version == "" {
				version = "v1.2.3"
			}
			err := checkTag(t.Context(), root, version)
			if c.want == "" && err != nil {
				t.Errorf("got %v, want no error", err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}
