// Command release builds what is published: the image of the manager, and the checks and checksums around it. It is a module of its own, so
// that what builds images stays out of the manager's dependencies. Beside Go modules and the registry that is pushed to, it needs no network.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("say what to do: image")
	}
	switch args[0] {
	case "image":
		return runImage(ctx, args[1:])
	}
	return fmt.Errorf("%q is nothing that can be done; say image", args[0])
}

func runImage(ctx context.Context, args []string) error {
	var o imageOptions
	var platforms string
	f := flag.NewFlagSet("release image", flag.ContinueOnError)
	f.StringVar(&o.root, "root", filepath.Join("..", ".."), "folder of the manager's go.mod")
	f.StringVar(&o.repository, "image", "", "repository to push to, as registry.example.com/countersign/countersign")
	f.StringVar(&platforms, "platforms", "linux/amd64,linux/arm64", "what to build for")
	f.StringVar(&o.version, "version", "", "version to stamp and to tag with; default: what git says, and the tag devel")
	f.StringVar(&o.dist, "dist", filepath.Join("..", "..", "dist"), "folder for image.txt and the SBOMs")
	if err := f.Parse(args); err != nil {
		return err
	}
	o.platforms = strings.Split(platforms, ",")
	reference, err := buildImage(ctx, o)
	if err != nil {
		return err
	}
	fmt.Println(reference)
	return os.WriteFile(filepath.Join(o.dist, "image.txt"), []byte(reference+"\n"), 0o644)
}
