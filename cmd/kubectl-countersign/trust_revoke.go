package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// trustRevoke is the command "trust revoke".
type trustRevoke struct {
	*repositoryOptions

	role string
	all  bool
}

func newTrustRevoke(o *trustOptions) *cobra.Command {
	r := trustRevoke{}
	c := &cobra.Command{
		Use:   "revoke IMAGE:TAG",
		Short: "Remove the signatures of a tag",
		Long: `Remove the signatures of a tag.

They are removed for every signer whose key is in the trust directory. A warning names the signers
whose signatures remain. --all removes those of all tags of the repository.`,
		Example: `  kubectl countersign trust revoke registry.example.com/acme/app:v1
  kubectl countersign trust revoke registry.example.com/acme/app --all --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return r.run(c.Context(), args[0]) },
	}
	r.repositoryOptions = newRepositoryOptions(c, o)
	r.addPublish(c)
	c.Flags().StringVar(&r.role, "role", "", "remove the signature of this signer alone")
	c.Flags().BoolVar(&r.all, "all", false, "remove the signatures of all tags")
	return c
}

func (r *trustRevoke) run(ctx context.Context, image string) error {
	repository, tag, digest, err := parseRepository(image)
	switch {
	case err != nil:
		return err
	case digest != "":
		return fmt.Errorf("signatures belong to a tag; name the tag, as in %s:v1", repository)
	case tag == "" && !r.all:
		return fmt.Errorf("name the tag, as in %s:v1, or remove the signatures of all tags with --all", repository)
	case tag != "" && r.all:
		return fmt.Errorf("--all is for all tags; name %s without a tag", repository)
	}
	opened, err := r.open(ctx, repository)
	if err != nil {
		return err
	}
	defer opened.Close()
	roles, err := opened.Revoke(tag, r.role)
	if err != nil {
		return err
	}
	return r.publish(ctx, opened, published{Repository: repository, Roles: roles},
		fmt.Sprintf("Removed the signatures of %s for %s", image, strings.Join(roles, ", ")))
}
