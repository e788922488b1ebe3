package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/notarysign"
	"github.com/countersign-dev/countersign/internal/text"
)

// trustInspect is the command "trust inspect".
type trustInspect struct{ *repositoryOptions }

func newTrustInspect(o *trustOptions) *cobra.Command {
	i := trustInspect{}
	c := &cobra.Command{
		Use:   "inspect REPOSITORY[:TAG]",
		Short: "Show the signed tags, the signers and the keys of a repository",
		Example: `  kubectl countersign trust inspect registry.example.com/acme/app
  kubectl countersign trust inspect registry.example.com/acme/app:v1 -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return i.run(c.Context(), args[0]) },
	}
	i.repositoryOptions = newRepositoryOptions(c, o)
	i.settings.ReadOnly = true
	i.addRoot(c)
	return c
}

func (i *trustInspect) run(ctx context.Context, image string) error {
	repository, tag, _, err := parseRepository(image)
	if err != nil {
		return err
	}
	opened, err := i.open(ctx, repository)
	if err != nil {
		return err
	}
	defer opened.Close()
	result := opened.Inspect(tag, expiresSoon)
	for _, w := range result.Warnings {
		i.warn("%s", w)
	}
	return i.print(i.out, result, inspectionText(result))
}

func inspectionText(i notarysign.Inspection) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	if len(i.Tags) == 0 {
		fmt.Fprintf(w, "No signatures for %s\n", i.Repository)
	} else {
		fmt.Fprintf(w, "Signatures for %s\n\nTAG\tDIGEST\tSIGNERS\tRELEASED\n", i.Repository)
		for _, t := range i.Tags {
			released := "no"
			if t.Released {
				released = "yes"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", text.Line(t.Tag), t.Digest,
				text.Line(strings.Join(t.Signers, ", ")), released)
		}
	}
	roles := func(title string, list []notarysign.Role) {
		fmt.Fprintf(w, "\n%s\n\nNAME\tKEYS\tTHRESHOLD\tVERSION\tEXPIRES\n", title)
		for _, r := range list {
			expires := "-"
			if !r.Expires.IsZero() {
				expires = r.Expires.UTC().Format(time.DateOnly)
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", text.Line(r.Name), text.Line(strings.Join(r.Keys, ", ")),
				r.Threshold, r.Version, expires)
		}
	}
	if len(i.Signers) > 0 {
		roles("Signers and their keys", i.Signers)
	}
	roles("Administrative keys", i.Administrative)
	_ = w.Flush() // to memory
	return b.String()
}
