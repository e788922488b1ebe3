package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/documents"
	"github.com/countersign-dev/countersign/internal/inventory"
	"github.com/countersign-dev/countersign/internal/policyfiles"
	"github.com/countersign-dev/countersign/internal/preview"
	"github.com/countersign-dev/countersign/internal/text"
)

const tryExample = `  # What a new policy would do to everything that runs.
  kubectl countersign try -f policy.yaml

  # A folder of policies and trust roots, in one namespace, for a pipeline.
  kubectl countersign try -f policies/ -n shop -o json`

// tryFlags are the flags of try beside those of the engine.
type tryFlags struct {
	engine    *engineFlags
	output    *output
	files     []string
	recursive bool
	all       bool
}

// newTry returns the command try.
func newTry(e *environment) *cobra.Command {
	f := &tryFlags{}
	c := &cobra.Command{
		Use:   "try -f FILE",
		Short: "Say what new or edited policies would do to what runs, before anybody applies them",
		Long: `Say what new or edited policies would do to what runs, before anybody applies them.

The ImagePolicies and TrustRoots of the files replace those of the same name in the cluster. The Pods of
the cluster are then checked under the policies of the files, and under those that use a TrustRoot of
the files. Nothing in the cluster changes. The user needs the right to list Pods, Namespaces,
ImagePolicies and TrustRoots.

Exit codes: 0 nothing would be denied, 1 a workload would be denied, 2 a workload could not be checked
and none would be denied, 3 wrong usage or any other error. A policy in mode Warn or Audit denies
nothing.`,
		Example: tryExample,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case len(f.files) == 0:
				return errors.New("name the files with the policies: -f policy.yaml")
			case len(f.engine.policies) > 0:
				return errors.New("--policies: try compares files with a cluster; name the files with -f")
			}
			return e.try(c.Context(), f)
		},
	}
	f.engine, f.output = e.addEngine(c), addOutput(c)
	_ = c.Flags().MarkHidden("policies")
	c.Flags().StringSliceVarP(&f.files, "filename", "f", nil,
		"files or folders with ImagePolicies and TrustRoots, and the Secrets and ConfigMaps that they need; - is "+
			"standard input")
	c.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "read the folders within the folders of -f too")
	c.Flags().BoolVar(&f.all, "all", false, "print also the workloads that meet a policy, before and after")
	return c
}

// try runs the command.
func (e *environment) try(ctx context.Context, f *tryFlags) error {
	settings, err := f.engine.settings.Read(f.engine.operatorNamespace)
	if err != nil {
		return err
	}
	files, err := policyfiles.Read(ctx, f.files, policyfiles.Options{
		Namespace: f.engine.operatorNamespace, Documents: documents.Options{Recursive: f.recursive, Stdin: e.In},
	})
	if err != nil {
		return err
	}
	if len(files.ImagePolicies)+len(files.TrustRoots) == 0 {
		return fmt.Errorf("no ImagePolicy and no TrustRoot in %s", strings.Join(f.files, ", "))
	}
	e.warnOfFiles(files)
	source, err := e.source(ctx, f.engine)
	if err != nil {
		return err
	}
	present := inventory.Policies{ImagePolicies: source.ImagePolicies, TrustRoots: source.TrustRoots}
	edit := present.Edit(inventory.Policies{ImagePolicies: files.ImagePolicies, TrustRoots: files.TrustRoots})
	options := preview.Options{Source: source, Settings: settings, Timeout: f.engine.timeout}
	options.Reader = inventory.Overlay{Reader: source.Reader, Files: files.Reader()}
	options.ImagePolicies, options.TrustRoots = edit.After.ImagePolicies, edit.After.TrustRoots
	after, err := preview.New(ctx, options)
	if err != nil {
		return err
	}
	options.Source = source
	if !edit.Roots && len(files.Secrets)+len(files.ConfigMaps) == 0 {
		options.TrustRoots = nil // those of the other engine are the same, and their evidence too
	}
	before, err := preview.New(ctx, options)
	if err != nil {
		return err
	}
	running, err := e.running(ctx, source, after, *e.cluster.Namespace)
	if err != nil {
		return err
	}
	is := e.evaluator(after, after, f.engine)
	was := e.evaluator(before, before, f.engine)
	if options.TrustRoots == nil {
		was = e.evaluator(before, after, f.engine)
	}
	trial, err := inventory.Try(ctx, running, edit, was, is)
	if err != nil {
		return err
	}
	return e.printTrial(f, trial)
}

// warnOfFiles says what of the files is not tried.
func (e *environment) warnOfFiles(files *policyfiles.Set) {
	for _, folder := range files.Unread {
		e.warn("%s is a folder within a folder and was not read; -R reads it", folder)
	}
	if len(files.Namespaces) > 0 {
		e.warn("the Namespaces in the files are not tried: the labels are those of the cluster")
	}
}

// running reads what runs, with progress on stderr.
func (e *environment) running(ctx context.Context, source preview.Source, engine *preview.Engine,
	namespace string) (*inventory.Running, error) {
	stop := e.progress("reading the Pods of the cluster...")
	defer stop()
	return inventory.ReadRunning(ctx, source.Reader, inventory.Options{Namespace: namespace, Exempt: engine.Exempt})
}

// evaluator returns an evaluator with the policies of one engine and the evidence of another.
func (e *environment) evaluator(policies, evidence *preview.Engine, f *engineFlags) *inventory.Engine {
	reported := 0
	return &inventory.Engine{
		Policies: policies.Store, Evidence: evidence.Store, Tracker: evidence.Tracker, Clock: evidence.Clock,
		Timeout: f.timeout,
		Progress: func(done, all int) {
			if all >= 1000 && (done-reported >= 1000 || done == all) {
				reported = done
				_, _ = fmt.Fprintf(e.ErrOut, "evaluated %d of %d distinct Pods\n", done, all)
			}
		},
	}
}

// printTrial prints the result, and returns the error that sets the exit code.
func (e *environment) printTrial(f *tryFlags, t *inventory.Trial) error {
	if f.output.format != "text" {
		if err := f.output.encode(e.Out, t); err != nil {
			return err
		}
	} else if err := printTrialText(e.Out, t, f.all); err != nil {
		return err
	}
	switch {
	case t.WouldDeny > 0:
		return errDenied
	case t.CouldNotCheck > 0:
		return errCouldNotCheck
	}
	return nil
}

func printTrialText(out io.Writer, t *inventory.Trial, all bool) error {
	b := &strings.Builder{}
	for _, p := range t.Policies {
		fmt.Fprintf(b, "ImagePolicy %q (%s, mode %s): %d workloads covered, %d meet it, %d violate it, %d could not "+
			"be checked\n", p.Name, changes(p.Change), p.Mode, p.Covered, p.Meeting, p.Violating, p.CouldNotCheck)
		if p.Fault != "" {
			fmt.Fprintf(b, "  the policy cannot be used, and denies its scope: %s\n", text.Line(p.Fault))
		}
		table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
		header := false
		for _, w := range p.Workloads {
			if !all && w.Verdict == w.Before && w.Verdict == inventory.VerdictMeets {
				continue
			}
			if !header {
				header = true
				_, _ = fmt.Fprintln(table, "  NAMESPACE\tWORKLOAD\tBEFORE\tAFTER\tIMAGE\tWHY")
			}
			row := fmt.Sprintf("  %s\t%s/%s\t%s\t%s", w.Namespace, w.Kind, w.Name, verdicts(w.Before),
				verdicts(w.Verdict))
			if len(w.Images) == 0 {
				_, _ = fmt.Fprintf(table, "%s\t\t\n", row)
			}
			for _, image := range w.Images {
				_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", row, text.Line(image.Image), text.Line(reasonOf(image)))
			}
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	for _, fault := range t.Faults {
		fmt.Fprintf(b, "could not fetch: %s\n", text.Line(fault))
	}
	fmt.Fprintf(b, "%d Pods run; %d workloads would be denied, %d could not be checked\n", t.Pods, t.WouldDeny,
		t.CouldNotCheck)
	_, err := io.WriteString(out, b.String())
	return err
}

func reasonOf(image inventory.ImageTrial) string {
	if len(image.Missing) > 0 {
		return image.Reason + ", not signed by " + strings.Join(image.Missing, ", ")
	}
	return image.Reason
}

func changes(change string) string {
	switch change {
	case inventory.ChangeAdded:
		return "new"
	case inventory.ChangeTrustRoot:
		return "its trust root is in the files"
	}
	return change
}

func verdicts(v string) string {
	switch v {
	case inventory.VerdictNotCovered:
		return "not covered"
	case inventory.VerdictCouldNotCheck:
		return "could not check"
	}
	return v
}
