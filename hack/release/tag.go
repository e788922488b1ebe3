package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// checkTag returns an error unless the checkout is a clean checkout of the version's tag. Anybody
// can then build the released files again.
func checkTag(ctx context.Context, root, version string) error {
	if !versions.MatchString(version) {
		return fmt.Errorf("version %q: name the version to release, as VERSION=v1.2.3 or VERSION=v1.2.3-rc.1",
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
			"the checkout has changes that are not committed; commit or remove these:\n%s",
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
	commits := strings.Fields(tagged) // the tag, followed by its commit if the tag is annotated
	if len(commits) == 0 {
		return fmt.Errorf("there is no tag %s here; create it, or fetch it with: git fetch --tags", version)
	}
	if commit := commits[len(commits)-1]; commit != head {
		return fmt.Errorf(
			"the checkout is at commit %.12s, but the tag %s is at %.12s; check it out with: git checkout %[2]s", head,
			version, commit)
	}
	return nil
}
