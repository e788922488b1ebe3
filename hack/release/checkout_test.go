package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReadCheckout(t *testing.T) {
	keepEnvironment(t)
	root := t.TempDir()
	runIn(t, root, "git", "init", "-q")
	t.Setenv("GIT_COMMITTER_DATE", "2026-03-01T12:00:00+09:00")
	runIn(t, root, "git", "-c", "user.name=ci", "-c", "user.email=ci@example.com", "commit", "-q", "--allow-empty",
		"-m", "first")
	c, err := readCheckout(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.revision) != 40 || c.changed {
		t.Errorf("got revision %q, changed %t, want a commit without changes", c.revision, c.changed)
	}
	if got := c.created.Format(time.RFC3339); got != "2026-03-01T03:00:00Z" {
		t.Errorf("got created %s, want the time of the commit in UTC", got)
	}
	if err := os.WriteFile(filepath.Join(root, "new"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "5")
	if c, err = readCheckout(t.Context(), root); err != nil || !c.changed || c.created.Unix() != 5 {
		t.Errorf("got changed %t, created %v, error %v, want true and second 5", c.changed, c.created, err)
	}
	if got := described(manager(), "", c)["org.opencontainers.image.revision"]; got != c.revision+"-dirty" {
		t.Errorf("got revision label %q, want the commit with -dirty", got)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if _, err := readCheckout(t.Context(), root); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("got error %v, want one about SOURCE_DATE_EPOCH", err)
	}
}

// git reads a checkout of another user only if safe.directory names it.
func TestSettleEnvironment(t *testing.T) {
	keepEnvironment(t)
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "user.name")
	t.Setenv("GIT_CONFIG_VALUE_0", "ci")
	t.Setenv("GOOS", "plan9")
	t.Setenv("GIT_CONFIG_KEY_1", "") // restored after the test
	t.Setenv("GIT_CONFIG_VALUE_1", "")
	if err := settleEnvironment("/checkout"); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"user.name": "ci", "safe.directory": "/checkout"} {
		if got, err := git(t.Context(), ".", "config", "--get", key); err != nil || got != want {
			t.Errorf("got %s %q from git, want %q: %v", key, got, want, err)
		}
	}
	if got := os.Getenv("GOOS"); got != "" {
		t.Errorf("got GOOS=%s, want none", got)
	}
}
