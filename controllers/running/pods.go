package running

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/countersign-dev/countersign/internal/compliance"
)

// runningPods is the store of the Pods that run, reduced to the parts that an evaluation reads. A
// reflector of its own fills it. The manager's cache would hold ten times as much of each Pod, and
// copy it for each evaluation. Pods that an evaluation cannot distinguish use one compliance.Pod.
type runningPods struct {
	// changed is called when an evaluation would find something else. No lock is held then.
	changed func()

	contents contents

	mu  sync.Mutex
	all map[types.NamespacedName]*compliance.Pod // nil until the first list is complete
}

// reducedPod is one Pod between the reflector and the store.
type reducedPod struct {
	metav1.TypeMeta
	key types.NamespacedName
	pod *compliance.Pod
}

// GetObjectMeta implements metav1.ObjectMetaAccessor: the reflector needs the name.
func (a *reducedPod) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: a.key.Namespace, Name: a.key.Name}
}

// DeepCopyObject implements runtime.Object. The compliance.Pod is immutable.
func (a *reducedPod) DeepCopyObject() runtime.Object {
	next := *a
	return &next
}

// list returns each distinct compliance.Pod once, and whether the first list is complete.
func (s *runningPods) list() ([]compliance.Pod, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var pods []compliance.Pod
	listed := make(map[*compliance.Pod]struct{})
	for _, p := range s.all {
		if _, known := listed[p]; !known {
			listed[p] = struct{}{}
			pods = append(pods, *p)
		}
	}
	return pods, s.all != nil
}

// reduce returns the parts of a Pod that an evaluation reads. It returns nil for a Pod that has
// ended.
func (s *runningPods) reduce(o any) (*reducedPod, error) {
	switch o := o.(type) {
	case *reducedPod:
		return o, nil
	case *corev1.Pod:
		if o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed {
			return nil, nil
		}
		pod := s.contents.intern(compliance.NewPod(o))
		key := types.NamespacedName{Namespace: pod.Workload.Namespace, Name: o.Name}
		return &reducedPod{key: key, pod: pod}, nil
	}
	return nil, fmt.Errorf("watching Pods: got a %T", o)
}

// Transformer implements toolscache.TransformingStore: the reflector reduces each Pod of the first
// list as it arrives.
func (s *runningPods) Transformer() toolscache.TransformFunc {
	return func(o any) (any, error) {
		if a, err := s.reduce(o); a != nil || err != nil {
			return a, err
		}
		return o, nil
	}
}

// Add implements toolscache.ReflectorStore.
func (s *runningPods) Add(o any) error { return s.Update(o) }

// Update implements toolscache.ReflectorStore.
func (s *runningPods) Update(o any) error {
	a, err := s.reduce(o)
	if err != nil {
		return err
	}
	if a == nil {
		return s.Delete(o)
	}
	s.mu.Lock()
	was := s.all[a.key]
	if s.all != nil {
		s.all[a.key] = a.pod
	}
	s.mu.Unlock()
	if was != a.pod {
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

// Replace implements toolscache.ReflectorStore. The first call makes the store complete.
func (s *runningPods) Replace(all []any, _ string) error {
	next := make(map[types.NamespacedName]*compliance.Pod, len(all))
	for _, o := range all {
		a, err := s.reduce(o)
		if err != nil {
			return err
		}
		if a != nil {
			next[a.key] = a.pod
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
