// Command manifests writes the manifests that install the operator: config/default with an image,
// and with the components of config/components that its flags name.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/countersign-dev/countersign/internal/testenv/kustomize"
)

// monitoring is the component that must come first.
const monitoring = "prometheus"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var m kustomize.Overlay
	f := pflag.NewFlagSet("manifests", pflag.ContinueOnError)
	f.StringVar(&m.Image, "image", "", "reference of the operator's image, best by digest")
	f.StringSliceVar(&m.Components, "components", nil,
		"folders of config/components to add, in any order, such as prometheus,cert-manager")
	out := f.String("out", "dist/install.yaml", "file to write")
	if err := f.Parse(args); err != nil {
		return err
	}
	if m.Image == "" {
		return errors.New(
			"name the operator's image: make install-yaml IMAGE=registry.example.com/countersign@sha256:...; make " +
				"image builds and pushes one")
	}
	if slices.Contains(m.Components, "cert-manager") && slices.Contains(m.Components, "openshift") {
		return errors.New(
			"the components cert-manager and openshift each provide a serving certificate: name only one of them")
	}
	// The other components change the certificate that this one expects. If this one came later,
	// their patches would not find it.
	if i := slices.Index(m.Components, monitoring); i > 0 {
		m.Components = append([]string{monitoring}, slices.Delete(m.Components, i, i+1)...)
	}
	text, err := kustomize.Render(ctx, os.Stderr, m)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(*out), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(*out, text, 0o644); err != nil {
		return err
	}
	fmt.Printf("wrote %s\n", *out)
	return nil
}
