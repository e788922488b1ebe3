package running

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/flags"
)

// runningPods holds what is judged of every Pod that runs. It is filled by a watch of its own and
// not by the manager's cache, which would hold ten times as much of each Pod, and copy it for each
// evaluation.
type runningPods struct {
	// changed is called, without a lock held, when something else is to be judged.
	changed func()

	mu  sync.Mutex
	all map[types.NamespacedName]compliance.Pod // nil until all are there
}

// arrival is one Pod on its way into the store.
type arrival struct {
	key types.NamespacedName
	pod compliance.Pod
}

// GetObjectMeta implements metav1.ObjectMetaAccessor: a reflector asks for the name.
func (r *arrival) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: r.key.Namespace, Name: r.key.Name}
}

// podWatch is a runnable that fills the store while this replica leads: there is no other reader.
type podWatch struct {
	pods   *runningPods
	source *toolscache.ListWatch
}

// watchPods returns what fills the store with the Pods that podSelector selects.
func watchPods(mgr ctrl.Manager, pods *runningPods, exempt flags.Exempt) (podWatch, error) {
	config := rest.CopyConfig(mgr.GetConfig())
	config.ContentType = runtime.ContentTypeProtobuf
	c, err := typedcorev1.NewForConfigAndClient(config, mgr.GetHTTPClient())
	if err != nil {
		return podWatch{}, fmt.Errorf("making a client for Pods: %w", err)
	}
	selector := podSelector(exempt).String()
	return podWatch{pods, toolscache.NewFilteredListWatchFromClient(c.RESTClient(), "pods", metav1.NamespaceAll,
		func(o *metav1.ListOptions) {
			o.FieldSelector = selector
		})}, nil
}

// podSelector leaves out what has ended, and namespaces that are exempt by their full name. Pods of
// the others are left out when they are judged.
func podSelector(exempt flags.Exempt) fields.Selector {
	selectors := []fields.Selector{
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
	}
	for _, namespace := range exempt.Names {
		selectors = append(selectors, fields.OneTermNotEqualSelector("metadata.namespace", namespace))
	}
	return fields.AndSelectors(selectors...)
}

// Start implements manager.Runnable. Where Pods cannot be listed, the log says why and it is tried
// again, as long as it takes: the replica serves admission too.
func (w podWatch) Start(ctx context.Context) error {
	toolscache.NewReflectorWithOptions(w.source, &corev1.Pod{}, w.pods,
		toolscache.ReflectorOptions{Name: "running Pods"}).RunWithContext(ctx)
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (podWatch) NeedLeaderElection() bool { return true }

// list returns the Pods, and whether all are there yet.
func (s *runningPods) list() ([]compliance.Pod, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pods := make([]compliance.Pod, 0, len(s.all))
	for _, p := range s.all {
		pods = append(pods, p)
	}
	return pods, s.all != nil
}

// reduce keeps of a Pod what is judged; nil is one that has ended.
func reduce(o any) (*arrival, error) {
	switch o := o.(type) {
	case *arrival:
		return o, nil
	case *corev1.Pod:
		if o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed {
			return nil, nil
		}
		return &arrival{types.NamespacedName{Namespace: o.Namespace, Name: o.Name}, compliance.NewPod(o)}, nil
	}
	return nil, fmt.Errorf("watching Pods: got a %T", o)
}

// Transformer implements toolscache.TransformingStore: the Pods of the first list are gathered in
// this form.
func (*runningPods) Transformer() toolscache.TransformFunc {
	return func(o any) (any, error) {
		if r, err := reduce(o); r != nil || err != nil {
			return r, err
		}
		return o, nil
	}
}

// Add implements toolscache.ReflectorStore.
func (s *runningPods) Add(o any) error { return s.Update(o) }

// Update implements toolscache.ReflectorStore.
func (s *runningPods) Update(o any) error {
	r, err := reduce(o)
	if err != nil {
		return err
	}
	if r == nil {
		return s.Delete(o)
	}
	s.mu.Lock()
	was, known := s.all[r.key]
	if s.all != nil {
		s.all[r.key] = r.pod
	}
	s.mu.Unlock()
	if !known || !equality.Semantic.DeepEqual(was, r.pod) {
		s.changed()
	}
	return nil
}

// Delete implements toolscache.ReflectorStore.
func (s *runningPods) Delete(o any) error {
	key, err := toolscache.DeletionHandlingObjectToName(o)
	if err != nil {
		return fmt.Errorf("watching Pods: %w", err)
	}
	s.mu.Lock()
	name := key.AsNamespacedName()
	_, known := s.all[name]
	delete(s.all, name)
	s.mu.Unlock()
	if known {
		s.changed()
	}
	return nil
}

// Replace implements toolscache.ReflectorStore. It is how the store becomes complete.
func (s *runningPods) Replace(all []any, _ string) error {
	next := make(map[types.NamespacedName]compliance.Pod, len(all))
	for _, o := range all {
		r, err := reduce(o)
		if err != nil {
			return err
		}
		if r != nil {
			next[r.key] = r.pod
		}
	}
	s.mu.Lock()
	s.all = next
	s.mu.Unlock()
	s.changed()
	return nil
}

// Resync implements toolscache.ReflectorStore. There is nothing to do.
func (*runningPods) Resync() error { return nil }
