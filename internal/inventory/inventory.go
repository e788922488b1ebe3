// Package inventory reads what runs in a cluster, and says what policies cover of it and would do
// to it. It reads with the user's own rights, and changes nothing.
package inventory

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/flags"
)

// podsPage is how many Pods one response of the API server lists.
const podsPage = 500

// Policies are the policies and trust roots in force.
type Policies struct {
	ImagePolicies []*v1alpha1.ImagePolicy
	TrustRoots    []*v1alpha1.TrustRoot
}

// Running is what runs.
type Running struct {
	// Pods has one of the Pods that the policies cannot distinguish, such as replicas.
	Pods []compliance.Pod
	// Count is how many Pods run in the namespaces that are not exempt.
	Count int
	// Namespaces are the labels of the namespaces that are not exempt.
	Namespaces map[string]labels.Set
	// Exempt are the names of the exempt namespaces of the cluster.
	Exempt []string
}

// Options say what to read.
type Options struct {
	// Namespace is the only namespace to read. Empty: all.
	Namespace string
	// Exempt are the namespaces for which the API server does not call the gate.
	Exempt flags.Exempt
	// Progress is called after each page of Pods with the number read so far.
	Progress func(pods int)
}

// ReadRunning lists the namespaces, and the Pods that have not ended, page by page.
func ReadRunning(ctx context.Context, c client.Reader, o Options) (*Running, error) {
	r := &Running{Namespaces: map[string]labels.Set{}}
	var err error
	if o.Namespace != "" {
		var namespace corev1.Namespace
		err = c.Get(ctx, client.ObjectKey{Name: o.Namespace}, &namespace)
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("the cluster has no namespace %q", o.Namespace)
		}
		err = refused(err, "get", "namespaces", "")
		r.add(&namespace, o.Exempt)
	} else {
		var namespaces corev1.NamespaceList
		err = refused(c.List(ctx, &namespaces), "list", "namespaces", "")
		for i := range namespaces.Items {
			r.add(&namespaces.Items[i], o.Exempt)
		}
	}
	if err != nil {
		return nil, err
	}
	return r, r.readPods(ctx, c, o)
}

// add adds a namespace.
func (r *Running) add(namespace *corev1.Namespace, exempt flags.Exempt) {
	if exempt.Has(namespace.Name) {
		r.Exempt = append(r.Exempt, namespace.Name)
		return
	}
	r.Namespaces[namespace.Name] = namespace.Labels
}

// readPods lists the Pods. It keeps one of those that the policies cannot distinguish.
func (r *Running) readPods(ctx context.Context, c client.Reader, o Options) error {
	running := fields.AndSelectors(
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)))
	known := map[[sha256.Size]byte]struct{}{}
	for next := ""; ; {
		var page corev1.PodList
		err := c.List(ctx, &page, client.InNamespace(o.Namespace), client.MatchingFieldsSelector{Selector: running},
			client.Limit(podsPage), client.Continue(next))
		if err != nil {
			return refused(err, "list", "pods", o.Namespace)
		}
		for i := range page.Items {
			if _, ok := r.Namespaces[page.Items[i].Namespace]; !ok {
				continue
			}
			r.Count++
			pod := compliance.NewPod(&page.Items[i])
			key := sha256.Sum256(fmt.Appendf(nil, "%q", pod))
			if _, ok := known[key]; !ok {
				known[key] = struct{}{}
				r.Pods = append(r.Pods, pod)
			}
		}
		if o.Progress != nil {
			o.Progress(r.Count)
		}
		if next = page.Continue; next == "" {
			return nil
		}
	}
}

// refused explains an error of the API server in one line.
func refused(err error, verb, resource, namespace string) error {
	where := "in all namespaces"
	switch {
	case namespace != "":
		where = fmt.Sprintf("in namespace %q", namespace)
	case resource != "pods":
		where = "in the cluster"
	}
	dial, _ := errors.AsType[*net.OpError](err)
	unreachable, _ := errors.AsType[*url.Error](err)
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err):
		return fmt.Errorf("you may not %s %s %s; ask an administrator for the verb %q on %s (%w)", verb, resource,
			where, verb, resource, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the API server does not accept your credentials; log in again (%w)", err)
	case dial != nil || unreachable != nil:
		return fmt.Errorf("the API server cannot be reached; check --kubeconfig and --context (%w)", err)
	}
	return fmt.Errorf("cannot %s %s %s: %w", verb, resource, where, err)
}
