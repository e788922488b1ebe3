package preview

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/cluster"
	"github.com/countersign-dev/countersign/internal/policyfiles"
)

// Source is what policies, and what they refer to, are read from: files or a cluster.
type Source struct {
	// ImagePolicies and TrustRoots are all that there are.
	ImagePolicies []*v1alpha1.ImagePolicy
	TrustRoots    []*v1alpha1.TrustRoot
	// Reader reads Namespaces, and the Secrets and ConfigMaps that TrustRoots refer to.
	Reader client.Reader
	// OpenShift says that the cluster is one of OpenShift, which has other defaults.
	OpenShift bool
	// Cluster says that the Source is a cluster.
	Cluster bool
}

// FromFiles returns the Source of files that were read.
func FromFiles(set *policyfiles.Set) Source {
	return Source{ImagePolicies: set.ImagePolicies, TrustRoots: set.TrustRoots, Reader: set.Reader()}
}

// withoutCluster is what to do where a cluster cannot be used.
const withoutCluster = "or check by files alone with --policies"

// FromCluster reads the ImagePolicies and TrustRoots of a cluster. The error says what the user can
// do.
func FromCluster(ctx context.Context, config *rest.Config) (Source, error) {
	s := Source{Cluster: true}
	scheme, err := cluster.Scheme()
	if err != nil {
		return s, err
	}
	groups, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return s, err
	}
	served, err := groups.ServerGroupsWithContext(ctx)
	if err != nil {
		return s, clusterError(config, "", err)
	}
	s.OpenShift = slices.ContainsFunc(served.Groups,
		func(g metav1.APIGroup) bool { return g.Name == cluster.OpenShiftGroup })
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return s, clusterError(config, "", err)
	}
	s.Reader = c
	policies, roots := &v1alpha1.ImagePolicyList{}, &v1alpha1.TrustRootList{}
	if err := c.List(ctx, policies); err != nil {
		return s, clusterError(config, "list imagepolicies.countersign.dev", err)
	}
	if err := c.List(ctx, roots); err != nil {
		return s, clusterError(config, "list trustroots.countersign.dev", err)
	}
	for i := range policies.Items {
		s.ImagePolicies = append(s.ImagePolicies, &policies.Items[i])
	}
	for i := range roots.Items {
		s.TrustRoots = append(s.TrustRoots, &roots.Items[i])
	}
	return s, nil
}

// clusterError says what the user can do about an error of the API server. verb is the right that
// the request needs.
func clusterError(config *rest.Config, verb string, err error) error {
	err = oneLine(err)
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("you may not %s: get that right, %s: %w", verb, withoutCluster, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the API server %s refused your credentials: log in to the cluster again, %s: %w",
			config.Host, withoutCluster, err)
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err):
		return fmt.Errorf("the cluster %s has no ImagePolicies: install Countersign there, choose another cluster "+
			"with --context, %s", config.Host, withoutCluster)
	}
	return fmt.Errorf("the API server %s could not be used: check the kubeconfig and --context, %s: %w", config.Host,
		withoutCluster, err)
}

// oneLineError is an error whose text is on one line.
type oneLineError struct{ error }

func (e oneLineError) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }

func (e oneLineError) Unwrap() error { return e.error }

func oneLine(err error) error { return oneLineError{err} }

// Namespace is a namespace as far as a decision depends on it.
type Namespace struct {
	Name string
	// Labels are those of the Namespace. They count if Known is true.
	Labels map[string]string
	Known  bool
	// Err says why they could not be read, and what the user can do; nil: nothing was tried.
	Err error
	// Missing says that the cluster has no such Namespace.
	Missing bool
}

// Apply returns the namespace after kubectl apply of a Namespace with these labels: it adds them to
// those that there are. Labels that could not be read stay unknown.
func (n Namespace) Apply(labels map[string]string) Namespace {
	if n.Err != nil && !n.Missing {
		return n
	}
	all := maps.Clone(n.Labels)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, labels)
	return Namespace{Name: n.Name, Labels: all, Known: true}
}

// Namespace reads a Namespace. A source of files may lack it: then it is not known.
func (s Source) Namespace(ctx context.Context, name string) Namespace {
	var o corev1.Namespace
	n := Namespace{Name: name}
	if s.Reader == nil {
		return n
	}
	err := s.Reader.Get(ctx, client.ObjectKey{Name: name}, &o)
	var faulty *apierrors.StatusError
	switch {
	case err == nil:
		n.Labels, n.Known = o.Labels, true
	case apierrors.IsNotFound(err) && !s.Cluster:
	case apierrors.IsNotFound(err):
		n.Missing = true
		n.Err = fmt.Errorf("namespace %q does not exist in the cluster: set --namespace, or its labels with "+
			"--namespace-labels", name)
	case errors.As(err, &faulty) && apierrors.IsForbidden(err):
		n.Err = fmt.Errorf("you may not get the Namespace %q: get that right, or set its labels with "+
			"--namespace-labels: %w", name, oneLine(err))
	default:
		n.Err = fmt.Errorf("the labels of namespace %q could not be read: %w", name, oneLine(err))
	}
	return n
}
