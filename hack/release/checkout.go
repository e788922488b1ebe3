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

// checkout is what git says of the sources.
type checkout struct {
	revision string // of HEAD; empty outside of a git checkout
	changed  bool   // something differs from HEAD
	created  time.Time
}

// readCheckout reads the state of the sources. A folder outside of git has no revision, and was
// made in 1970. SOURCE_DATE_EPOCH, where it is set, is the time of creation.
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
			return checkout{}, fmt.Errorf("SOURCE_DATE_EPOCH has to be seconds since 1970: %w", err)
		}
	}
	return c, nil
}

// epoch is in UTC, so that what is made does not depend on where it is made.
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

// settleEnvironment has every go and git that is started see the same: no settings of the caller
// that change what is compiled, and a checkout that belongs to another user, as in many a CI's
// container, read all the same. Whoever runs this runs the checkout's code anyway.
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
		os.Setenv("GOFLAGS", "-trimpath"), // empty, it would be what "go env -w" wrote down
		os.Setenv("GOAMD64", "v1"), os.Setenv("GOARM64", "v8.0"), os.Setenv("CGO_ENABLED", "0"),
		os.Setenv("GOWORK", "off"),
		os.Setenv(fmt.Sprintf("GIT_CONFIG_KEY_%d", count), "safe.directory"),
		os.Setenv(fmt.Sprintf("GIT_CONFIG_VALUE_%d", count), root),
		os.Setenv("GIT_CONFIG_COUNT", strconv.Itoa(count+1)),
	)
}
