// Command bundle makes what OLM installs from: a bundle, made of config/ and the version and image
// that are given, and a catalog that offers it. Without an image it makes the bundle that is
// committed, of the version that the changelog has last, which names its image by tag. It checks
// what it has made, and writes nothing that a check refuses.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/countersign-dev/countersign/internal/olm"
	"github.com/countersign-dev/countersign/internal/olm/check"
	"github.com/countersign-dev/countersign/internal/olm/compose"
	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/kustomize"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1)
	}
}

// settings are the command's flags.
type settings struct {
	version, replaces, image, bundleImage, created, out string
	committed                                           bool
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var s settings
	f := pflag.NewFlagSet("bundle", pflag.ContinueOnError)
	f.StringVar(&s.version, "version", "", "version of the operator, such as 0.1.0 or v0.1.0")
	f.StringVar(&s.replaces, "replaces", "", "version that this one is an upgrade from; empty: it is the first")
	f.StringVar(&s.image, "image", "", "reference of the operator's image, by digest")
	f.StringVar(&s.bundleImage, "bundle-image", "",
		"reference under which the bundle's image will be found; default: the operator's repository with -bundle, "+
			"and the version as tag")
	f.StringVar(&s.created, "created", "",
		"time of the bundle, as RFC 3339: that of the commit, so that the same commit makes the same bundle")
	f.StringVar(&s.out, "out", "dist", "folder in which bundle and catalog are replaced")
	f.BoolVar(&s.committed, "committed", false,
		"make the bundle that is committed, and no catalog: version and time from the changelog, the image by tag, "+
			"in the folder of the module")
	if err := f.Parse(args); err != nil {
		return err
	}
	if s.committed {
		if err := s.fromChangelog(f.Changed); err != nil {
			return err
		}
	}
	in, err := s.input()
	if err != nil {
		return err
	}
	if err := render(ctx, &in); err != nil {
		return err
	}
	if s.committed {
		return s.writeCommitted(in, out)
	}
	bundle, catalog, err := makeFiles(in)
	if err != nil {
		return err
	}
	for _, dir := range []string{olm.BundleDir, olm.CatalogDir} {
		if err := os.RemoveAll(filepath.Join(s.out, dir)); err != nil {
			return err
		}
	}
	for _, files := range []compose.Files{bundle, catalog} {
		if err := write(s.out, files); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out, "wrote %s and %s, each with its Dockerfile; every check passed\n",
		filepath.Join(s.out, olm.BundleDir), filepath.Join(s.out, olm.CatalogDir))
	return err
}

func (s settings) input() (compose.Input, error) {
	in := compose.Input{
		Version: strings.TrimPrefix(s.version, "v"), Replaces: strings.TrimPrefix(s.replaces, "v"),
		BundleImage: s.bundleImage,
	}
	if _, err := version.ParseSemantic(in.Version); err != nil {
		return in, fmt.Errorf("name the version, such as VERSION=0.1.0: %w", err)
	}
	repository, digest, pinned := strings.Cut(s.image, "@")
	switch {
	case s.committed:
		in.Image = s.image
		return in, s.parseCreated(&in)
	case !pinned:
		return in, errors.New(
			"name the operator's image by digest, such as IMAGE=registry.example.com/countersign@sha256:2d71 as make " +
				"image prints it")
	}
	// A tag says nothing beside a digest, and tools that mirror images refuse both.
	if i := strings.LastIndex(repository, ":"); i > strings.LastIndex(repository, "/") {
		repository = repository[:i]
	}
	in.Image = repository + "@" + digest
	if in.BundleImage == "" {
		in.BundleImage = repository + "-bundle:v" + in.Version
	}
	return in, s.parseCreated(&in)
}

func (s settings) parseCreated(in *compose.Input) (err error) {
	if in.Created, err = time.Parse(time.RFC3339, s.created); err != nil {
		return fmt.Errorf("--created: %w", err)
	}
	return nil
}

// render renders config/olm, and reads the rest of in from config/.
func render(ctx context.Context, in *compose.Input) error {
	root, err := build.ModuleRoot()
	if err != nil {
		return err
	}
	text, err := kustomize.Render(ctx, os.Stderr, kustomize.Overlay{Base: "olm", Image: in.Image})
	if err != nil {
		return err
	}
	return in.ReadConfig(os.DirFS(filepath.Join(root, "config")), text)
}

// makeFiles makes bundle and catalog, and checks both.
func makeFiles(in compose.Input) (bundle, catalog compose.Files, err error) {
	if bundle, err = compose.Bundle(in); err != nil {
		return nil, nil, err
	}
	if catalog, err = compose.Catalog(bundle, in.BundleImage); err != nil {
		return nil, nil, err
	}
	problems := append(check.New(in.Rendered).Bundle(bundle), check.Catalog(catalog, bundle)...)
	return bundle, catalog, joined(problems)
}

func joined(problems []check.Problem) error {
	errs := make([]error, 0, len(problems))
	for _, p := range problems {
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}

func write(dir string, files compose.Files) error {
	for path, content := range files {
		path = filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
