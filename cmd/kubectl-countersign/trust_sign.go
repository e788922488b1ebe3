package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/notarysign"
)

// trustSign is the command "trust sign".
type trustSign struct {
	*repositoryOptions

	digest, role, first string
}

func newTrustSign(o *trustOptions) *cobra.Command {
	s := trustSign{}
	c := &cobra.Command{
		Use:   "sign IMAGE:TAG",
		Short: "Sign a tag of an image",
		Long: `Sign a tag of an image.

The registry says which digest the tag has, unless --digest does. No local image and no daemon are
needed. The tag is signed for every signer whose key is in the trust directory, and in
targets/releases, which Docker's own clients read. --role signs for one signer alone.`,
		Example: `  kubectl countersign trust sign registry.example.com/acme/app:v1
  kubectl countersign trust sign registry.example.com/acme/app:v1 --role ci \
    --root 84ca6e44f8f2a2d0b5bd8ffef1ec3bb1a6c4f5d0cf0bd9d76e6b4b6e6a2f1c3d`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return s.run(c.Context(), args[0]) },
	}
	s.repositoryOptions = newRepositoryOptions(c, o)
	s.addPublish(c)
	c.Flags().StringVar(&s.digest, "digest", "", "digest to sign, such as sha256:... (default: that of the tag)")
	c.Flags().StringVar(&s.role, "role", "", "sign for this signer alone, such as ci")
	c.Flags().StringVar(&s.first, "init", "", "make the repository if the server has none, with a signer of this name")
	return c
}

func (s *trustSign) run(ctx context.Context, image string) error {
	repository, tag, digest, err := parseRepository(image)
	switch {
	case err != nil:
		return err
	case tag == "":
		return fmt.Errorf("name the tag to sign, as in %s:v1", repository)
	case digest != "" && s.digest != "" && digest != s.digest:
		return errors.New("the image and --digest name two digests; give one of them")
	case digest != "":
		s.digest = digest
	}
	what, warning, err := notarysign.Resolve(ctx, repository, tag, s.digest)
	if err != nil {
		return err
	}
	opened, made, err := s.openOrMake(ctx, repository, s.first != "")
	if err != nil {
		return err
	}
	defer opened.Close()
	if made {
		if err := opened.AddOwnSigner(ctx, s.first); err != nil {
			return err
		}
	}
	roles, err := opened.Sign(what, s.role)
	if err != nil {
		return err
	}
	result := published{Repository: repository, Roles: roles, Digest: what.Digest}
	if warning != "" {
		result.Warnings = append(result.Warnings, warning)
	}
	return s.publish(ctx, opened, result,
		fmt.Sprintf("Signed %s:%s as %s for %s", repository, tag, what.Digest, strings.Join(roles, ", ")))
}
