package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/notarykeys"
)

// trustOptions are what all commands below trust share.
type trustOptions struct {
	*environment

	dir string
}

// newTrust returns the commands of Docker Content Trust.
func newTrust(e *environment) *cobra.Command {
	o := &trustOptions{environment: e}
	c := &cobra.Command{
		Use:   "trust",
		Short: "Sign with Docker Content Trust, and manage its keys",
		Long: `Sign with Docker Content Trust, and manage its keys.

The keys are in the trust directory that Docker's client and the notary client use:
--trust-dir, or else $NOTARY_TRUST_DIR, $DOCKER_CONFIG/trust or ~/.docker/trust.
The passphrase of a key comes from a variable, or is typed on the terminal:

  root         DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE or NOTARY_ROOT_PASSPHRASE
  targets      DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE or NOTARY_TARGETS_PASSPHRASE
  snapshot     DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE or NOTARY_SNAPSHOT_PASSPHRASE
  a signer's   DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE or NOTARY_DELEGATION_PASSPHRASE`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringVarP(&o.dir, "trust-dir", "d", "",
		"trust directory (default $NOTARY_TRUST_DIR, $DOCKER_CONFIG/trust or ~/.docker/trust)")
	_ = c.MarkPersistentFlagDirname("trust-dir")
	c.AddCommand(newTrustKey(o), newTrustSign(o), newTrustSigner(o), newTrustRevoke(o), newTrustRenew(o),
		newTrustInspect(o), newTrustPin(o))
	return c
}

// keys returns the key store.
func (o *trustOptions) keys() (*notarykeys.Store, error) {
	dir := o.dir
	if dir == "" {
		var err error
		if dir, err = notarykeys.DefaultDir(os.Getenv); err != nil {
			return nil, err
		}
	}
	return &notarykeys.Store{Dir: dir, Passphrases: &notarykeys.Passphrases{
		Getenv: os.Getenv, Terminal: notarykeys.OpenTerminal(o.In, o.ErrOut),
	}}, nil
}
