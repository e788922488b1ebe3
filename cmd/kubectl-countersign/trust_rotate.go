package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

// keyRotate is the command "trust key rotate".
type keyRotate struct{ *repositoryOptions }

func newKeyRotate(o *trustOptions) *cobra.Command {
	r := keyRotate{}
	c := &cobra.Command{
		Use:   "rotate REPOSITORY ROLE",
		Short: "Replace the key of root, targets, snapshot or timestamp",
		Long: `Replace the key of root, targets, snapshot or timestamp of a repository.

The new key of root or targets is made in the trust directory. The server makes those of snapshot
and timestamp. The root key must be in the trust directory. The earlier root key signs the new root
too, so a TrustRoot that pins it follows.`,
		Example:   "  kubectl countersign trust key rotate registry.example.com/acme/app targets",
		Args:      cobra.ExactArgs(2),
		ValidArgs: []string{"root", "targets", "snapshot", "timestamp"},
		RunE:      func(c *cobra.Command, args []string) error { return r.run(c.Context(), args[0], args[1]) },
	}
	r.repositoryOptions = newRepositoryOptions(c, o)
	r.addPublish(c)
	return c
}

func (r *keyRotate) run(ctx context.Context, image, role string) error {
	repository, err := parsePlain(image)
	if err != nil {
		return err
	}
	opened, err := r.open(ctx, repository)
	if err != nil {
		return err
	}
	defer opened.Close()
	if err := opened.Rotate(role); err != nil {
		return err
	}
	return r.publish(ctx, opened, published{Repository: repository},
		fmt.Sprintf("Replaced the key of %s of %s", role, repository))
}
