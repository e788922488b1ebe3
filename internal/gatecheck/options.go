package gatecheck

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"
)

// Command is the argument that has the manager's program try the gate rather than be it.
const Command = "check-gate"

// Options are what the command line says.
type Options struct {
	// Kubeconfig is a file; empty: in-cluster, or what $KUBECONFIG names.
	Kubeconfig string
	// Namespace is where the Pods are asked for.
	Namespace string
	// Policy is the ImagePolicy that covers DeniedImage there.
	Policy string
	// ExemptNamespaces are those that the manager is told to exempt.
	ExemptNamespaces []string
	// Timeout bounds the whole check.
	Timeout time.Duration
}

// Parse reads the arguments that follow Command. The error of a request for help is pflag.ErrHelp.
func Parse(args []string) (Options, error) {
	var o Options
	f := pflag.NewFlagSet("countersign "+Command, pflag.ContinueOnError)
	f.StringVar(&o.Kubeconfig, "kubeconfig", "",
		"kubeconfig file; default: the cluster that this runs in, or $KUBECONFIG")
	f.StringVar(&o.Namespace, "namespace", "", "namespace in which Pods are asked for, as dry runs")
	f.StringVar(&o.Policy, "policy", "", "the ImagePolicy that covers "+DeniedImage+" in that namespace")
	f.StringSliceVar(&o.ExemptNamespaces, "exempt-namespaces", nil, "what the manager's flag of that name is set to")
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
