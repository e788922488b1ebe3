// Command servers builds the servers and clients of the tests and the demo, and prints their paths.
// It skips those that the user's cache folder already has. Arguments name additional servers of
// Kubernetes to build, such as kubelet.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/countersign-dev/countersign/internal/testenv/build"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	notary, err := build.Notary(ctx, os.Stderr)
	if err != nil {
		return err
	}
	kube, err := build.Kube(ctx, os.Stderr)
	if err != nil {
		return err
	}
	if additional := os.Args[1:]; len(additional) > 0 {
		if _, err := build.Kube(ctx, os.Stderr, additional...); err != nil {
			return err
		}
	}
	registry, err := build.Distribution(ctx, os.Stderr)
	if err != nil {
		return err
	}
	helm, err := build.Helm(ctx, os.Stderr)
	if err != nil {
		return err
	}
	cosign, err := build.Cosign(ctx, os.Stderr)
	if err != nil {
		return err
	}
	notation, err := build.Notation(ctx, os.Stderr)
	if err != nil {
		return err
	}
	fmt.Printf("cosign:   %s\nhelm:     %s\nnotation: %s\nnotary:   %s\nregistry: %s\nkube:     %s\nkubectl:  %s\n",
		filepath.Dir(cosign), filepath.Dir(helm), filepath.Dir(notation),
		filepath.Dir(notary.Server), filepath.Dir(registry), filepath.Dir(kube.APIServer), kube.Kubectl)
	return nil
}
