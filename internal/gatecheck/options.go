package gatecheck

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"
)

// Command is the argument with which the manager's program checks the gate instead of running it.
const Command = "check-gate"

// Options are the flags of the command.
type Options struct {
	// Kubeconfig is the path of a file. If it is empty, the check uses the in-cluster configuration
	// or the file that $KUBECONFIG names.
	Kubeconfig string
	// Namespace is the namespace in which Pods are requested.
	Namespace string
	// Policy is the name of the ImagePolicy that covers DeniedImage in that namespace.
	Policy string
	// ExemptNamespaces are the exempt namespaces in the manager's configuration.
	ExemptNamespaces []string
	// Timeout is the time for the whole check.
	Timeout time.Duration
}

// Parse parses the arguments after Command. It returns pflag.ErrHelp for --help.
func Parse(args []string) (Options, error) {
	var o Options
	f := pflag.NewFlagSet("countersign "+Command, pflag.ContinueOnError)
	f.StringVar(&o.Kubeconfig, "kubeconfig", "",
		"kubeconfig file; default: the cluster that this runs in, or $KUBECONFIG")
	f.StringVar(&o.Namespace, "namespace", "", "namespace in which Pods are requested, as dry runs")
	f.StringVar(&o.Policy, "policy", "", "the ImagePolicy that covers "+DeniedImage+" in that namespace")
	f.StringSliceVar(&o.ExemptNamespaces, "exempt-namespaces", nil, "value of the manager's flag of the same name")
	f.DurationVar(&o.Timeout, "timeout", time.Minute, "how long to wait for the gate")
	if err := f.Parse(args); err != nil {
		return Options{}, err
	}
	var errs []error
	if f.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q: %s takes flags only", f.Arg(0), Command))
	}
	if o.Namespace == "" || o.Policy == "" {
		errs = append(errs, errors.New("--namespace and --policy must be set"))
	}
	if o.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("--timeout=%s: must be more than 0", o.Timeout))
	}
	return o, errors.Join(errs...)
}
