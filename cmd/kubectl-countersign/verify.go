package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/countersign-dev/countersign/internal/manifests"
	"github.com/countersign-dev/countersign/internal/preview"
)

// progressAfter is when a command on a terminal says what it waits for.
const progressAfter = 3 * time.Second

const verifyExample = `  # One image, by the policies in a folder. No cluster is used.
  kubectl countersign verify --policies policies/ registry.example.com/acme/app:v1

  # What helm would install, in a namespace with these labels.
  helm template shop charts/shop | kubectl countersign verify --policies policies/ -f - -n shop --namespace-labels env=production

  # By the policies of the cluster, with a report for a pipeline.
  kubectl countersign verify -f deploy/ -n shop -o junit > verify.xml`

// verifyFlags are the flags of verify beside those of the engine.
type verifyFlags struct {
	engine          *engineFlags
	output          *output
	seen            *seenFlags
	files           []string
	recursive       bool
	namespaceLabels string
	labelled        bool // namespaceLabels is set, maybe to no labels
}

// newVerify returns the command verify.
func newVerify(e *environment) *cobra.Command {
	f := &verifyFlags{}
	c := &cobra.Command{
		Use:   "verify IMAGE...|-f FILE",
		Short: "Say which images the policies admit, and why",
		Long: `Say which images the policies admit, and why, before anybody deploys them.

The policies are those of the cluster, or with --policies those of files. A manifest's workloads are
read as the gate reads them. What the manager is told by flags must be told here too.

Exit codes: 0 every image is admitted, 1 an image is denied, 2 an image could not be checked and none
is denied, 3 wrong usage or any other error.`,
		Example: verifyExample,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 && len(f.files) == 0:
				return errors.New("name an image, or manifests with -f; - is standard input")
			case len(args) > 0 && len(f.files) > 0:
				return errors.New("name images or -f, not both")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			f.labelled = c.Flags().Changed("namespace-labels")
			return e.verify(c.Context(), f, args)
		},
	}
	f.engine, f.output, f.seen = e.addEngine(c), addOutput(c, "junit"), addSeen(c)
	c.Flags().StringSliceVarP(&f.files, "filename", "f", nil,
		"manifests: files, folders, or - for standard input")
	c.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "read the folders within the folders of -f too")
	c.Flags().StringVar(&f.namespaceLabels, "namespace-labels", "",
		"labels of the namespaces that no file describes, as KEY=VALUE,...; default: those in the cluster")
	return c
}

// verify runs the command.
func (e *environment) verify(ctx context.Context, f *verifyFlags, images []string) error {
	set, err := labels.ConvertSelectorToLabelsMap(f.namespaceLabels)
	if err != nil {
		return fmt.Errorf("--namespace-labels: %w; write KEY=VALUE, with commas between several", err)
	}
	engine, err := e.newEngine(ctx, f.engine)
	if err != nil {
		return err
	}
	if len(f.engine.policies) > 0 && len(engine.Source.ImagePolicies) == 0 {
		return fmt.Errorf("no ImagePolicy is in %s, so every image would be admitted: name the files or folders that "+
			"have them", strings.Join(f.engine.policies, ", "))
	}
	found, unread := e.workloads(f, engine, images)
	stop := e.progress(fmt.Sprintf("checking %d workloads or images...", len(found.Workloads)))
	defer stop()
	report, err := engine.Verify(ctx, found.Workloads, func(ctx context.Context, name string) preview.Namespace {
		n := preview.Namespace{Name: name, Labels: set, Known: true}
		if !f.labelled || !engine.Source.Cluster {
			if read := engine.Source.Namespace(ctx, name); read.Known || !f.labelled {
				n = read
			}
		}
		if applied, ok := found.Namespaces[name]; ok {
			n = n.Apply(applied)
		}
		return n
	})
	stop()
	if err != nil {
		return errors.Join(unread, err)
	}
	e.noteVerified(f.seen, engine, report)
	if err := e.printVerified(f.output, report); err != nil {
		return err
	}
	switch {
	case unread != nil:
		return unread
	case report.Summary.Denied > 0:
		return errDenied
	case report.Summary.CouldNotCheck > 0:
		return errCouldNotCheck
	}
	return nil
}

// workloads returns what to check: the images of the arguments, or the manifests.
func (e *environment) workloads(f *verifyFlags, engine *preview.Engine, images []string) (found preview.Manifests,
	unread error) {
	namespace := e.namespace(f.engine)
	if len(f.files) == 0 {
		return preview.Manifests{Workloads: []preview.Workload{{Namespace: namespace, Images: images}}}, nil
	}
	set, err := manifests.Read(f.files, manifests.Options{
		Kinds: engine.Settings.Kinds, Namespace: namespace, Recursive: f.recursive, Stdin: e.In,
	})
	found = preview.FromManifests(set)
	for _, folder := range set.Unread {
		e.warn("%s is a folder within a folder and was not read; -R reads it", folder)
	}
	for _, o := range set.Ignored {
		if o.Template {
			e.warn("%s: %s %s has a pod template, and the gate does not check this kind, unless --workload-kinds "+
				"names it", o.Position, o.Kind, o.Name)
		}
	}
	if err == nil && len(found.Workloads) == 0 {
		err = fmt.Errorf("no workload is in %s: name manifests of Pods, Deployments or other kinds that the gate "+
			"checks", strings.Join(f.files, ", "))
	}
	return found, err
}

// progress says what a command waits for, if that takes long and a person is there to read it. The
// function that it returns ends that.
func (e *environment) progress(what string) (stop func()) {
	if !e.onTerminal {
		return func() {}
	}
	timer := time.AfterFunc(progressAfter, func() { _, _ = fmt.Fprintln(e.ErrOut, what) })
	return func() { timer.Stop() }
}
