package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/countersign-dev/countersign/internal/documents"
	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/policyfiles"
	"github.com/countersign-dev/countersign/internal/preview"
)

// clusterTimeout bounds the requests to an API server that does not answer.
const clusterTimeout = 20 * time.Second

// engineFlags say where policies come from, and how the manager is configured.
type engineFlags struct {
	policies          []string
	operatorNamespace string
	timeout           time.Duration
	settings          *flags.SettingFlags
}

// addEngine adds the flags of an engine to a command, and those of kubectl.
func (e *environment) addEngine(c *cobra.Command) *engineFlags {
	f := &engineFlags{}
	e.cluster.AddFlags(c.Flags())
	c.Flags().StringSliceVar(&f.policies, "policies", nil,
		"files or folders with the ImagePolicies and TrustRoots, and the Secrets, ConfigMaps and Namespaces that they "+
			"need; no cluster is used then; default: those of the cluster")
	c.Flags().StringVar(&f.operatorNamespace, "operator-namespace", "countersign-system",
		"the namespace of the operator, in which TrustRoots find their Secrets and ConfigMaps")
	c.Flags().DurationVar(&f.timeout, "timeout", 30*time.Second,
		"how long to wait for signing servers and registries; what has not come by then could not be checked")
	f.settings = flags.DeclareSettings(c.Flags())
	_ = c.MarkFlagDirname("policies")
	return f
}

// newEngine returns the engine that the flags describe.
func (e *environment) newEngine(ctx context.Context, f *engineFlags) (*preview.Engine, error) {
	settings, err := f.settings.Read(f.operatorNamespace)
	if err != nil {
		return nil, err
	}
	source, err := e.source(ctx, f)
	if err != nil {
		return nil, err
	}
	return preview.New(ctx, preview.Options{Source: source, Settings: settings, Timeout: f.timeout})
}

// source reads the policies.
func (e *environment) source(ctx context.Context, f *engineFlags) (preview.Source, error) {
	if len(f.policies) > 0 {
		set, err := policyfiles.Read(ctx, f.policies, policyfiles.Options{
			Namespace: f.operatorNamespace, Documents: documents.Options{Stdin: e.In},
		})
		if err != nil {
			return preview.Source{}, err
		}
		for _, folder := range set.Unread {
			e.warn("%s is a folder within a folder and was not read; name it in --policies too", folder)
		}
		return preview.FromFiles(set), nil
	}
	config, err := e.restConfig()
	if err != nil {
		return preview.Source{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	return preview.FromCluster(ctx, config)
}

// restConfig returns the connection to the cluster.
func (e *environment) restConfig() (*rest.Config, error) {
	raw, err := e.cluster.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	switch name := *e.cluster.Context; {
	case name != "" && raw.Contexts[name] == nil:
		return nil, fmt.Errorf("context %q does not exist: see \"kubectl config get-contexts\", or check by files "+
			"alone with --policies", name)
	case len(raw.Clusters) == 0 && *e.cluster.APIServer == "" && !inCluster():
		return nil, errors.New("no cluster is configured: set --kubeconfig, or check by files alone with --policies")
	}
	config, err := e.cluster.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	return config, nil
}

// inCluster reports whether the process runs in a Pod, whose service account is the default.
func inCluster() bool { return os.Getenv("KUBERNETES_SERVICE_HOST") != "" }

// namespace returns the namespace of the flags, or of the kubeconfig's context.
func (e *environment) namespace(f *engineFlags) string {
	if *e.cluster.Namespace != "" || len(f.policies) > 0 {
		return cmp.Or(*e.cluster.Namespace, corev1.NamespaceDefault)
	}
	name, _, err := e.cluster.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return corev1.NamespaceDefault
	}
	return cmp.Or(name, corev1.NamespaceDefault)
}

// warn prints a line on the error stream.
func (e *environment) warn(format string, args ...any) {
	_, _ = fmt.Fprintf(e.ErrOut, "warning: "+format+"\n", args...)
}
