package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/notarysign"
)

// newTrustSigner returns the commands of signers.
func newTrustSigner(o *trustOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "signer",
		Short: "Add and remove the signers of a repository",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newSignerAdd(o), newSignerRemove(o))
	return c
}

// signerAdd is the command "trust signer add".
type signerAdd struct {
	*repositoryOptions

	files []string
	make  bool
}

func newSignerAdd(o *trustOptions) *cobra.Command {
	s := signerAdd{}
	c := &cobra.Command{
		Use:   "add NAME REPOSITORY --key FILE.pub",
		Short: "Let a signer sign the tags of a repository",
		Long: `Let a signer sign the tags of a repository.

The keys may sign in targets/NAME and in targets/releases, so that Docker's own clients see the
tags. The targets key of the repository must be in the trust directory.`,
		Example: "  kubectl countersign trust signer add ci registry.example.com/acme/app --key ci.pub",
		Args:    cobra.ExactArgs(2),
		RunE:    func(c *cobra.Command, args []string) error { return s.run(c.Context(), args[0], args[1]) },
	}
	s.repositoryOptions = newRepositoryOptions(c, o)
	s.addPublish(c)
	c.Flags().StringSliceVar(&s.files, "key", nil, "file with the signer's public key")
	c.Flags().BoolVar(&s.make, "init", false, "if the server has no such repository, make it")
	return c
}

func (s *signerAdd) run(ctx context.Context, name, image string) error {
	repository, err := parsePlain(image)
	if err != nil {
		return err
	}
	if len(s.files) == 0 {
		return errors.New("give the signer's public key with --key FILE.pub")
	}
	var keys []notarysign.PublicKey
	for _, file := range s.files {
		text, err := os.ReadFile(file) //nolint:gosec // the user names the file
		if err != nil {
			return fmt.Errorf("--key: %w", err)
		}
		k, err := notarysign.ParsePublicKey(text, time.Now())
		if err != nil {
			return fmt.Errorf("--key %s: %w", file, err)
		}
		keys = append(keys, k)
	}
	if err := notarysign.CheckSigner(name); err != nil {
		return err
	}
	opened, _, err := s.openOrMake(ctx, repository, s.make)
	if err != nil {
		return err
	}
	defer opened.Close()
	if err := opened.AddSigner(name, keys...); err != nil {
		return err
	}
	return s.publish(ctx, opened, published{Repository: repository},
		fmt.Sprintf("Added the signer %s to %s", name, repository))
}

// parsePlain reads a repository without a tag.
func parsePlain(image string) (string, error) {
	repository, tag, digest, err := parseRepository(image)
	if err == nil && (tag != "" || digest != "") {
		return "", fmt.Errorf("name the repository alone, without a tag or digest: %s", repository)
	}
	return repository, err
}

// signerRemove is the command "trust signer remove".
type signerRemove struct{ *repositoryOptions }

func newSignerRemove(o *trustOptions) *cobra.Command {
	s := signerRemove{}
	c := &cobra.Command{
		Use:     "remove NAME REPOSITORY",
		Short:   "Remove a signer with all its signatures",
		Example: "  kubectl countersign trust signer remove ci registry.example.com/acme/app --dry-run",
		Args:    cobra.ExactArgs(2),
		RunE:    func(c *cobra.Command, args []string) error { return s.run(c.Context(), args[0], args[1]) },
	}
	s.repositoryOptions = newRepositoryOptions(c, o)
	s.addPublish(c)
	return c
}

func (s *signerRemove) run(ctx context.Context, name, image string) error {
	repository, err := parsePlain(image)
	if err != nil {
		return err
	}
	opened, err := s.open(ctx, repository)
	if err != nil {
		return err
	}
	defer opened.Close()
	if err := opened.RemoveSigner(name); err != nil {
		return err
	}
	return s.publish(ctx, opened, published{Repository: repository},
		fmt.Sprintf("Removed the signer %s from %s", name, repository))
}
