// Command bundle makes a bundle for OLM from config/, a version and an image, and a catalog that
// offers it. With --committed it makes the bundle that is committed: it has the newest version of
// the changelog, and names its image by tag. The command checks its output, and writes nothing if a
// check finds a problem.
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
	f.StringVar(&s.replaces, "replaces", "", "version that this one upgrades; empty: this is the first version")
	f.StringVar(&s.image, "image", "", "reference of the operator's image, by digest")
	f.StringVar(&s.bundleImage, "bundle-image", "",
		"reference of the bundle's image; default: the operator's repository with the suffix -bundle, "+
			"and the version as tag")
	f.StringVar(&s.created, "created", "",
		"creation time of the bundle in RFC 3339, usually the commit's, so that a commit always gives the same bundle")
	f.StringVar(&s.out, "out", "dist", "folder to write bundle and catalog to")
	f.BoolVar(&s.committed, "committed", false,
		"make the committed bundle, in the folder of the module, without a catalog: version and time come from the "+
			"changelog, and the image is named by tag")
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
			"name the operator's image by digest, as make image prints it, such as " +
				"IMAGE=registry.example.com/countersign@sha256:2d71")
	}
	// The digest identifies the image. Tools that mirror images refuse a reference with tag and
	// digest.
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

// makeFiles makes bundle and catalog. It returns an error if a check finds a problem.
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
