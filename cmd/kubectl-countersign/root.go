package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/text"
)

// The exit codes.
const (
	exitDone          = 0 // done; of verify: every image is admitted
	exitDenied        = 1 // an image is denied
	exitCouldNotCheck = 2 // an image could not be checked, and none is denied
	exitError         = 3 // wrong usage, or any other error
)

// The errors of a command that has already printed its result. They set the exit code alone.
var (
	errDenied        = errors.New("denied")
	errCouldNotCheck = errors.New("could not check")
)

// environment is what all commands share.
type environment struct {
	genericiooptions.IOStreams

	// onTerminal says that ErrOut is a terminal.
	onTerminal bool
	// cluster are the usual flags of kubectl: --kubeconfig, --context, --namespace and others.
	cluster *genericclioptions.ConfigFlags
}

// run runs one command line and returns its exit code. The result goes to streams.Out. Errors and
// progress go to streams.ErrOut. Texts from outside cannot control the terminal through either.
func run(ctx context.Context, args []string, streams genericiooptions.IOStreams) int {
	ctrl.SetLogger(logr.Discard()) // the libraries' logs are for a server
	klog.SetLogger(logr.Discard())
	file, isFile := streams.ErrOut.(*os.File)
	onTerminal := isFile && term.IsTerminal(int(file.Fd()))
	streams.Out, streams.ErrOut = text.NewWriter(streams.Out), text.NewWriter(streams.ErrOut)
	root := newRoot(&environment{
		IOStreams: streams, onTerminal: onTerminal, cluster: genericclioptions.NewConfigFlags(true),
	})
	root.SetArgs(args)
	switch err := root.ExecuteContext(ctx); {
	case err == nil:
		return exitDone
	case errors.Is(err, errDenied):
		return exitDenied
	case errors.Is(err, errCouldNotCheck):
		return exitCouldNotCheck
	default:
		for line := range strings.SplitSeq(strings.TrimSpace(err.Error()), "\n") {
			_, _ = fmt.Fprintln(streams.ErrOut, "error:", line)
		}
		return exitError
	}
}

// newRoot returns the command with all its subcommands.
func newRoot(e *environment) *cobra.Command {
	root := &cobra.Command{
		Use:   "kubectl-countersign",
		Short: "Say which images the policies admit, who signed them, and sign them",
		Long: `Say which images the policies admit, who signed them, and sign them.

Exit codes: 0 done or admitted, 1 denied, 2 could not check, 3 wrong usage or any other error.`,
		Version:     flags.Version(version),
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl countersign"},
		// Errors are printed once, by run. A usage text would hide them.
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.AddCommand(newVerify(e), newInspect(e), newTry(e), newCoverage(e), newConvert(e), newTrust(e))
	root.SetIn(e.In)
	root.SetOut(e.Out)
	root.SetErr(e.ErrOut)
	return root
}
