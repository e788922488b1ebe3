package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// expiresSoon is the time before expiry at which commands warn and renew, as the notary client
// does.
const expiresSoon = 180 * 24 * time.Hour

// trustRenew is the command "trust renew".
type trustRenew struct {
	*repositoryOptions

	within time.Duration
}

func newTrustRenew(o *trustOptions) *cobra.Command {
	r := trustRenew{}
	c := &cobra.Command{
		Use:   "renew REPOSITORY",
		Short: "Sign the files of a repository anew that expire soon",
		Long: `Sign the files of a repository anew that expire soon, or have expired.

Each file is signed with the keys in the trust directory. If a key is not there, its file is left as
it is, a warning names it, and the exit code is 3.`,
		Example: "  kubectl countersign trust renew registry.example.com/acme/app --within 2160h",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return r.run(c.Context(), args[0]) },
	}
	r.repositoryOptions = newRepositoryOptions(c, o)
	r.addPublish(c)
	c.Flags().DurationVar(&r.within, "within", expiresSoon, "renew what expires within this time")
	return c
}

func (r *trustRenew) run(ctx context.Context, image string) error {
	repository, err := parsePlain(image)
	if err != nil {
		return err
	}
	opened, err := r.open(ctx, repository)
	if err != nil {
		return err
	}
	defer opened.Close()
	left, err := opened.Renew(ctx, r.within)
	if err != nil {
		return err
	}
	done := fmt.Sprintf("Nothing of %s expires within %s", repository, r.within)
	if changes := opened.Changes(); len(changes) > 0 {
		done = fmt.Sprintf("Renewed %s: %s", repository, strings.Join(changes, "; "))
	} else if len(left) > 0 {
		done = "Renewed nothing of " + repository
	}
	if err := r.publish(ctx, opened, published{Repository: repository}, done); err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("not renewed, because the key is not here: %s", strings.Join(left, ", "))
	}
	return nil
}
