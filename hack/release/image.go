package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/ko/pkg/build"
	"github.com/google/ko/pkg/publish"
)

// baseName is the value of the annotation org.opencontainers.image.base.name. No registry serves
// the base image by itself. The name is constant, because the image must not depend on the
// registry.
const baseName = "localhost/base:latest"

type imageOptions struct {
	program    program
	root       string   // of the manager's module
	repository string   // to push to
	platforms  []string // os/arch
	version    string   // empty: the version from git, and the tag devel
	dist       string   // folder for the SBOMs
}

// versions matches semantic versions without "+", because they become tags of the image.
var versions = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)

// buildImage builds a program for every platform, adds it to the base image, and pushes the image
// and its SBOMs. It returns the reference by digest.
func buildImage(ctx context.Context, o imageOptions) (string, error) {
	root, err := filepath.Abs(o.root)
	if err != nil {
		return "", err
	}
	repository, err := name.NewRepository(o.repository, name.StrictValidation)
	if err != nil {
		return "", fmt.Errorf(
			"give the repository to push to, without a tag, such as registry.example.com/countersign/countersign: %w",
			err)
	}
	if o.version != "" && !versions.MatchString(o.version) {
		return "", fmt.Errorf("version %q is not of the form v1.2.3 or v1.2.3-rc.1", o.version)
	}
	if err := errors.Join(settleEnvironment(root), os.MkdirAll(o.dist, 0o755)); err != nil {
		return "", err
	}
	source, err := readCheckout(ctx, root)
	if err != nil {
		return "", err
	}
	included, err := licenses(ctx, root, o.program, o.platforms)
	if err != nil {
		return "", err
	}
	options, err := buildOptions(o, source, included)
	if err != nil {
		return "", err
	}
	builder, err := build.NewGo(ctx, root, options...)
	if err != nil {
		return "", fmt.Errorf("setting up the build: %w", err)
	}
	log.SetOutput(io.Discard) // the builder warns about tags that it does not use
	fmt.Fprintf(os.Stderr, "Building %s for %s (a few minutes the first time).\n", o.program.name,
		strings.Join(o.platforms, " and "))
	result, err := builder.Build(ctx, o.program.importPath())
	if err != nil {
		return "", fmt.Errorf("building the image: %w", err)
	}
	fmt.Fprintf(os.Stderr, "Pushing the image and its SBOMs to %s.\n", repository)
	return push(ctx, repository, o, result)
}

func buildOptions(o imageOptions, source checkout, included []packed) ([]build.Option, error) {
	base, err := base(o.platforms, source.created, included)
	if err != nil {
		return nil, err
	}
	options := []build.Option{
		build.WithBaseImages(base),
		build.WithPlatforms(o.platforms...),
		build.WithJobs(1), // a single compilation uses all cores
		build.WithTrimpath(true),
		build.WithDefaultFlags([]string{fmt.Sprintf("-buildvcs=%t", source.revision != "")}),
		build.WithLdflags(linkerFlags(o.version)),
		build.WithUser(user),
		build.WithCreationTime(v1.Time{Time: source.created}),
		build.WithKoDataCreationTime(v1.Time{Time: source.created}),
		build.WithSPDX(builderVersion()),
		build.WithSBOMDir(o.dist),
	}
	for key, value := range described(o.program, o.version, source) {
		options = append(options, build.WithLabel(key, value), build.WithAnnotation(key, value))
	}
	return options, nil
}

// builderVersion returns the version of ko, which the SBOMs name as their creator.
func builderVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, d := range info.Deps {
		if d.Path == "github.com/google/ko" {
			return d.Version
		}
	}
	return ""
}

// base returns a function that gives the builder the base image of this package. The registry
// receives it as a layer of the image.
func base(platforms []string, created time.Time, included []packed) (build.GetBase, error) {
	wanted := make([]v1.Platform, 0, len(platforms))
	for _, spec := range platforms {
		platform, err := v1.ParsePlatform(spec)
		if err != nil || platform.OS == "" || platform.Architecture == "" {
			return nil, fmt.Errorf("platform %q is not of the form linux/amd64", spec)
		}
		wanted = append(wanted, *platform)
	}
	index, err := baseIndex(created, wanted, included)
	if err != nil {
		return nil, err
	}
	reference, err := name.NewTag(baseName)
	if err != nil {
		return nil, err
	}
	return func(context.Context, string) (name.Reference, build.Result, error) { return reference, index, nil }, nil
}

// described returns the labels of the image, which are its annotations too.
func described(p program, version string, source checkout) map[string]string {
	about := map[string]string{
		"org.opencontainers.image.title":       p.name,
		"org.opencontainers.image.description": p.description,
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.source":      "https://github.com/countersign-dev/countersign",
		"org.opencontainers.image.created":     source.created.Format(time.RFC3339),
		"org.opencontainers.image.version":     version,
		"org.opencontainers.image.revision":    source.revision,
	}
	if version == "" {
		about["org.opencontainers.image.version"] = "devel"
	}
	switch {
	case source.revision == "":
		delete(about, "org.opencontainers.image.revision")
	case source.changed:
		about["org.opencontainers.image.revision"] += "-dirty"
	}
	return about
}

// push pushes the image under the tag of its version, and its SBOMs. Credentials come from the
// user's Docker configuration. It uses plain HTTP for registries on localhost.
func push(ctx context.Context, repository name.Repository, o imageOptions, result build.Result) (string, error) {
	tag := o.version
	if tag == "" {
		tag = "devel"
	}
	publisher, err := publish.NewDefault(repository.Name(),
		publish.WithAuthFromKeychain(authn.DefaultKeychain),
		publish.WithNamer(func(base, _ string) string { return base }),
		publish.WithTags([]string{tag}))
	if err != nil {
		return "", fmt.Errorf("setting up the push to %s: %w", repository, err)
	}
	defer publisher.Close()
	if _, err := publisher.Publish(ctx, result, o.program.importPath()); err != nil {
		return "", fmt.Errorf("pushing to %s: %w", repository, err)
	}
	digest, err := result.Digest()
	if err != nil {
		return "", err
	}
	return repository.Digest(digest.String()).Name(), nil
}
