package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// checkTag wants the checkout to be that of the version's tag, with nothing changed, so that
// anybody can build what is released again.
func checkTag(ctx context.Context, root, version string) error {
	if !versions.MatchString(version) {
		return fmt.Errorf("say which version is to be released, as VERSION=v1.2.3 or VERSION=v1.2.3-rc.1; %q is none",
			version)
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	if err := settleEnvironment(root); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, ".git")); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is no git checkout; release from a clone", root)
	}
	changes, err := git(ctx, root, "status", "--porcelain")
	if err != nil {
		return err
	}
	if changes != "" {
		return fmt.Errorf(
			"the checkout has changes, and a release is made of what is committed; commit or remove these:\n%s",
			changes)
	}
	head, err := git(ctx, root, "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	tagged, err := git(ctx, root, "for-each-ref", "--format=%(objectname) %(*objectname)", "refs/tags/"+version)
	if err != nil {
		return err
	}
	commits := strings.Fields(tagged) // the tag, and behind it the commit where the tag is an object of its own
	if len(commits) == 0 {
		return fmt.Errorf("there is no tag %s here; make it, or fetch it with: git fetch --tags", version)
	}
	if commit := commits[len(commits)-1]; commit != head {
		return fmt.Errorf(
			"the checkout is of commit %.12s, and the tag %s is of %.12s; go there with: git checkout %[2]s", head,
			version, commit)
	}
	return nil
}
