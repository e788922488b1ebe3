// Command chart makes the Helm chart from config/. It renders config/ with kubectl kustomize, and
// replaces the fields that values set by template expressions. Changes by a component of
// config/components become conditions. So config/ has no second copy to maintain, and a field that
// has moved in config/ is an error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/countersign-dev/countersign/internal/testenv/build"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("chart", flag.ContinueOnError)
	version := f.String("version", "", "version of the chart and of the operator, such as 0.1.0")
	image := f.String("image", "",
		"image of the manager, REPOSITORY[:TAG][@DIGEST]; default: countersign, with the version as its tag")
	out := f.String("out", "dist", "folder to write the chart to")
	if err := f.Parse(args); err != nil {
		return err
	}
	root, err := build.ModuleRoot()
	if err != nil {
		return err
	}
	release, err := newRelease(*version, *image)
	if err != nil {
		return err
	}
	files, err := generate(ctx, root, release)
	if err != nil {
		return err
	}
	dir := filepath.Join(*out, "chart", chartName)
	if err := files.write(dir); err != nil {
		return err
	}
	archive := filepath.Join(*out, fmt.Sprintf("%s-%s.tgz", chartName, release.version))
	if err := files.archive(archive); err != nil {
		return err
	}
	fmt.Printf("%s\n%s\n", dir, archive)
	return nil
}
