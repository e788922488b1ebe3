package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// checkout is the state of the sources in git.
type checkout struct {
	revision string // of HEAD; empty outside of a git checkout
	changed  bool   // the sources differ from HEAD
	created  time.Time
}

// readCheckout returns the state of the sources. Outside git they have no revision, and their
// creation time is the start of 1970. SOURCE_DATE_EPOCH overrides the creation time.
func readCheckout(ctx context.Context, root string) (checkout, error) {
	c := checkout{created: time.Unix(0, 0).UTC()}
	switch _, err := os.Stat(filepath.Join(root, ".git")); {
	case err == nil:
		head, err := git(ctx, root, "log", "-1", "--format=%H %ct")
		if err != nil {
			return checkout{}, err
		}
		revision, seconds, _ := strings.Cut(head, " ")
		if c.created, err = epoch(seconds); err != nil {
			return checkout{}, fmt.Errorf("reading the time of commit %s: %w", revision, err)
		}
		status, err := git(ctx, root, "status", "--porcelain")
		if err != nil {
			return checkout{}, err
		}
		c.revision, c.changed = revision, status != ""
	case !errors.Is(err, os.ErrNotExist):
		return checkout{}, fmt.Errorf("looking for a git checkout: %w", err)
	}
	if given := os.Getenv("SOURCE_DATE_EPOCH"); given != "" {
		var err error
		if c.created, err = epoch(given); err != nil {
			return checkout{}, fmt.Errorf("SOURCE_DATE_EPOCH must be seconds since 1970: %w", err)
		}
	}
	return c, nil
}

// epoch parses seconds since 1970. It returns UTC, so that the output does not depend on the time
// zone.
func epoch(seconds string) (time.Time, error) {
	n, err := strconv.ParseInt(seconds, 10, 64)
	return time.Unix(n, 0).UTC(), err
}

func git(ctx context.Context, root string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = root
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimRight(string(out), "\n"), nil
}

// settleEnvironment sets the environment of every go and git that this program starts. It removes
// settings that change compilation. It lets git read a checkout of another user, which is common in
// containers of CI; that is safe, because the caller runs the code of the checkout anyway.
func settleEnvironment(root string) error {
	for _, name := range []string{"GOOS", "GOARCH", "GOARM", "GOEXPERIMENT"} {
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	count := 0
	if given := os.Getenv("GIT_CONFIG_COUNT"); given != "" {
		var err error
		if count, err = strconv.Atoi(given); err != nil {
			return fmt.Errorf("GIT_CONFIG_COUNT: %w", err)
		}
	}
	return errors.Join(
		os.Setenv("GOFLAGS", "-trimpath"), // if empty, go would use the value of go env -w
		os.Setenv("GOAMD64", "v1"), os.Setenv("GOARM64", "v8.0"), os.Setenv("CGO_ENABLED", "0"),
		os.Setenv("GOWORK", "off"),
		os.Setenv(fmt.Sprintf("GIT_CONFIG_KEY_%d", count), "safe.directory"),
		os.Setenv(fmt.Sprintf("GIT_CONFIG_VALUE_%d", count), root),
		os.Setenv("GIT_CONFIG_COUNT", strconv.Itoa(count+1)),
	)
}
