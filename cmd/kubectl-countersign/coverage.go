package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/inventory"
	"github.com/countersign-dev/countersign/internal/preview"
	"github.com/countersign-dev/countersign/internal/text"
)

const coverageExample = `  # What runs that no policy covers.
  kubectl countersign coverage

  # Which policies apply to an image in a namespace, and why.
  kubectl countersign coverage registry.example.com/acme/app:v1 -n shop`

// applications is the result of coverage for one image.
type applications struct {
	Image     string `json:"image"`
	Namespace string `json:"namespace"`
	// Exempt says that the API server does not call the gate for the namespace.
	Exempt   bool                    `json:"exempt"`
	Policies []inventory.Application `json:"policies"`
}

// newCoverage returns the command coverage.
func newCoverage(e *environment) *cobra.Command {
	var engine *engineFlags
	var out *output
	c := &cobra.Command{
		Use:   "coverage [IMAGE]",
		Short: "Say what runs that no policy covers, or which policies apply to an image",
		Long: `Say what runs that no policy covers, or with an image which policies apply to it, and why.

No signature is fetched. Exit codes: 0 done, 3 wrong usage or any other error.`,
		Example: coverageExample,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return e.applications(c.Context(), engine, out, args[0])
			}
			if len(engine.policies) > 0 {
				return errors.New("--policies goes with an image: what runs is read from a cluster")
			}
			return e.coverage(c.Context(), engine, out)
		},
	}
	engine, out = e.addEngine(c), addOutput(c)
	return c
}

// coverage lists what runs that no policy covers.
func (e *environment) coverage(ctx context.Context, f *engineFlags, out *output) error {
	engine, err := e.newPolicies(ctx, f)
	if err != nil {
		return err
	}
	running, err := e.running(ctx, engine.Source, engine, *e.cluster.Namespace)
	if err != nil {
		return err
	}
	c := running.Cover(engine.Store.Load().Policies)
	if out.format != "text" {
		return out.encode(e.Out, c)
	}
	if len(c.Uncovered) > 0 {
		table := tabwriter.NewWriter(e.Out, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(table, "NAMESPACE\tWORKLOAD\tIMAGE")
		for _, u := range c.Uncovered {
			_, _ = fmt.Fprintf(table, "%s\t%s/%s\t%s\n", u.Namespace, u.Kind, u.Name, text.Line(u.Image))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(e.Out, "%d Pods of %d workloads run %d images; %d uses of an image are covered by no policy\n"+
		"Exempt namespaces, which are not checked: %s\n", c.Pods, c.Workloads, c.Images, len(c.Uncovered),
		strings.Join(c.ExemptNamespaces, ", "))
	return err
}

// applications says which policies apply to an image.
func (e *environment) applications(ctx context.Context, f *engineFlags, out *output, image string) error {
	ref, err := imageref.Parse(image)
	if err != nil {
		return fmt.Errorf("%.256q is not an image: %w", image, err)
	}
	engine, err := e.newPolicies(ctx, f)
	if err != nil {
		return err
	}
	name := e.namespace(f)
	namespace := engine.Source.Namespace(ctx, name)
	if namespace.Err != nil {
		return namespace.Err
	}
	if !namespace.Known {
		e.warn("no file has the Namespace %q, so it has no labels here", name)
	}
	result := applications{
		Image: ref.String(), Namespace: name, Exempt: engine.Exempt.Has(name),
		Policies: inventory.Apply(engine.Source.ImagePolicies, ref, preview.NamespaceLabels(name, namespace.Labels),
			engine.Settings.ReadShortNames(engine.Source.OpenShift)),
	}
	if out.format != "text" {
		return out.encode(e.Out, result)
	}
	if result.Exempt {
		_, _ = fmt.Fprintf(e.Out, "Namespace %q is exempt: no policy is enforced there.\n", name)
	}
	table := tabwriter.NewWriter(e.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "POLICY\tMODE\tAPPLIES\tWHY")
	for _, a := range result.Policies {
		applies := "no"
		if a.Applies {
			applies = "yes"
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", a.Policy, a.Mode, applies, text.Line(a.Why))
	}
	return table.Flush()
}

// newPolicies returns an engine without trust roots: no evidence is needed.
func (e *environment) newPolicies(ctx context.Context, f *engineFlags) (*preview.Engine, error) {
	settings, err := f.settings.Read(f.operatorNamespace)
	if err != nil {
		return nil, err
	}
	source, err := e.source(ctx, f)
	if err != nil {
		return nil, err
	}
	source.TrustRoots = nil
	return preview.New(ctx, preview.Options{Source: source, Settings: settings, Timeout: f.timeout})
}
