// Command release builds and pushes the images, builds the command line for every platform, checks
// the checkout of a release, and writes archives and checksums. It is a separate module, to keep
// the image builder out of the manager's dependencies. It needs the network only for Go modules and
// for the registry.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
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
	tasks := map[string]func(context.Context, []string) error{
		"image": runImage, "check-tag": runCheckTag, "archives": runArchives, "finish": runFinish,
	}
	if len(args) == 0 || tasks[args[0]] == nil {
		return fmt.Errorf("name a task, one of: %s", strings.Join(slices.Sorted(maps.Keys(tasks)), ", "))
	}
	return tasks[args[0]](ctx, args[1:])
}

// folders are the folders of the sources and of the output. make runs the program in hack/release.
type folders struct{ root, dist string }

func newFlags(task string) (*flag.FlagSet, *folders) {
	var in folders
	f := flag.NewFlagSet("release "+task, flag.ContinueOnError)
	f.StringVar(&in.root, "root", filepath.Join("..", ".."), "folder of the manager's go.mod")
	f.StringVar(&in.dist, "dist", filepath.Join("..", "..", "dist"), "folder for the output")
	return f, &in
}

func runImage(ctx context.Context, args []string) error {
	f, in := newFlags("image")
	repository := f.String("image", "", "repository to push to, such as registry.example.com/countersign/countersign")
	platforms := f.String("platforms", "linux/amd64,linux/arm64", "platforms to build for")
	of := f.String("program", managerName, "program of the image: "+managerName+" or "+commandName)
	version := f.String("version", "",
		"version of the program, and tag of the image; default: the version from git, and the tag devel")
	if err := f.Parse(args); err != nil {
		return err
	}
	p, file := manager(), "image.txt"
	switch *of {
	case managerName:
	case commandName:
		p, file = command(), commandName+"-image.txt"
	default:
		return fmt.Errorf("program %q: must be %s or %s", *of, managerName, commandName)
	}
	reference, err := buildImage(ctx, imageOptions{
		program: p, root: in.root, dist: in.dist, repository: *repository, platforms: strings.Split(*platforms, ","),
		version: *version,
	})
	if err != nil {
		return err
	}
	fmt.Println(reference)
	return os.WriteFile(filepath.Join(in.dist, file), []byte(reference+"\n"), 0o644)
}

func runCheckTag(ctx context.Context, args []string) error {
	f, in := newFlags("check-tag")
	version := f.String("version", "", "version to release")
	if err := f.Parse(args); err != nil {
		return err
	}
	return checkTag(ctx, in.root, *version)
}

func runArchives(ctx context.Context, args []string) error {
	f, in := newFlags("archives")
	platforms := f.String("platforms", strings.Join(commandPlatforms(), ","), "platforms to build for")
	version := f.String("version", "", "version of the command line; default: the version from git")
	if err := f.Parse(args); err != nil {
		return err
	}
	return buildArchives(ctx, archiveOptions{
		root: in.root, dist: in.dist, version: *version, platforms: strings.Split(*platforms, ","),
	})
}

func runFinish(ctx context.Context, args []string) error {
	f, in := newFlags("finish")
	version := f.String("version", "", "version to release")
	if err := f.Parse(args); err != nil {
		return err
	}
	root, err := filepath.Abs(in.root)
	if err != nil {
		return err
	}
	if err := settleEnvironment(root); err != nil {
		return err
	}
	source, err := readCheckout(ctx, root)
	if err != nil {
		return err
	}
	return finish(in.dist, *version, source.created)
}
