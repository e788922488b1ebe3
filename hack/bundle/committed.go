package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"github.com/countersign-dev/countersign/internal/olm"
	"github.com/countersign-dev/countersign/internal/olm/check"
	"github.com/countersign-dev/countersign/internal/olm/compose"
	"github.com/countersign-dev/countersign/internal/testenv/build"
)

// committedRepository is the image repository in the committed bundle, where a release has its own.
const committedRepository = "registry.example.com/countersign/countersign"

// heading matches the headings of the changelog's versions, each with its date. The newest is
// first.
var heading = regexp.MustCompile(`(?m)^## \[(\d+\.\d+\.\d+[^\]]*)\] - (\d{4}-\d{2}-\d{2})$`)

// fromChangelog sets version, time and image of the committed bundle from the changelog. The bundle
// must be reproducible, so flags for them are refused.
func (s *settings) fromChangelog(given func(flag string) bool) error {
	for _, flag := range []string{"version", "replaces", "image", "bundle-image", "created"} {
		if given(flag) {
			return fmt.Errorf("--committed takes no --%s", flag)
		}
	}
	root, err := build.ModuleRoot()
	if err != nil {
		return err
	}
	if !given("out") {
		s.out = root
	}
	text, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	return s.fromVersions(text)
}

func (s *settings) fromVersions(changelog []byte) error {
	found := heading.FindAllSubmatch(changelog, 2)
	if len(found) == 0 {
		return errors.New("the changelog has no version")
	}
	s.version = string(found[0][1])
	s.created = string(found[0][2]) + "T00:00:00Z"
	s.image = committedRepository + ":v" + s.version
	if len(found) > 1 {
		s.replaces = string(found[1][1])
	}
	return nil
}

// writeCommitted makes, checks and replaces the committed bundle.
func (s settings) writeCommitted(in compose.Input, out io.Writer) error {
	bundle, err := compose.Bundle(in)
	if err != nil {
		return err
	}
	if err := joined(check.New(in.Rendered).ByTag().Bundle(bundle)); err != nil {
		return err
	}
	dir := filepath.Join(s.out, olm.BundleDir)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := write(s.out, bundle); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "wrote %s and its Dockerfile; every check passed\n", dir)
	return err
}
