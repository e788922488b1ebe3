package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/notarysign"
)

// trustPin is the command "trust pin".
type trustPin struct {
	*repositoryOptions

	name string
}

func newTrustPin(o *trustOptions) *cobra.Command {
	p := trustPin{}
	c := &cobra.Command{
		Use:   "pin REPOSITORY",
		Short: "Print a TrustRoot that pins the root that the server shows",
		Long: `Print a TrustRoot that pins the root that the server shows.

Nothing vouches for this root. Before you apply the manifest, compare each key ID with the one that
the publisher tells you by another way. -o json and -o yaml print the root itself.`,
		Example: "  kubectl countersign trust pin registry.example.com/acme/app > trustroot.yaml",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return p.run(c.Context(), args[0]) },
	}
	p.repositoryOptions = newRepositoryOptions(c, o)
	p.settings.ReadOnly = true
	c.Flags().StringVar(&p.name, "name", "", "name of the TrustRoot (default: made of the repository)")
	return c
}

func (p *trustPin) run(ctx context.Context, image string) error {
	repository, err := parsePlain(image)
	if err != nil {
		return err
	}
	conn, server, err := p.connect(repository)
	if err != nil {
		return err
	}
	shown, err := notarysign.Show(ctx, conn, repository)
	if err != nil {
		return err
	}
	name := p.name
	if name == "" {
		name = notarysign.TrustRootName(repository)
	}
	text, err := shown.TrustRoot(name, server.URL, server.CABundle)
	if err != nil {
		return err
	}
	return p.print(p.out, shown, string(text))
}
