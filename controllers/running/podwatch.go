package running

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/flags"
)

// podsPage is how many Pods one response of the API server lists. The response is decoded as a
// whole: with 100 Pods of a usual size it takes up about 4 MiB.
const podsPage = 100

// podWatch is a runnable that fills the store while this replica leads: there is no other reader.
type podWatch struct {
	pods   *runningPods
	source toolscache.ListerWatcher
}

// watchPods returns the runnable that fills the store with the Pods that podSelector selects.
func watchPods(mgr ctrl.Manager, pods *runningPods, exempt flags.Exempt) (podWatch, error) {
	config := rest.CopyConfig(mgr.GetConfig())
	config.ContentType = runtime.ContentTypeProtobuf
	c, err := typedcorev1.NewForConfigAndClient(config, mgr.GetHTTPClient())
	if err != nil {
		return podWatch{}, fmt.Errorf("making a client for Pods: %w", err)
	}
	return podWatch{pods, podSource(mgr.GetAPIReader(), c.Pods(metav1.NamespaceAll), pods, exempt)}, nil
}

// podSource returns what the reflector reads. It prefers to watch from the beginning: the API
// server then streams every Pod. One that is older than Kubernetes 1.34 may not know how. The
// reflector then lists all Pods at once, in one response, so this source lists them page by page
// instead and reduces each page before it reads the next.
func podSource(live client.Reader, pods typedcorev1.PodInterface, store *runningPods,
	exempt flags.Exempt) *toolscache.ListWatch {
	return &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
			return store.page(ctx, live, exempt)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = podSelector(exempt).String()
			return pods.Watch(ctx, options)
		},
	}
}

// reducedPods are all Pods of one list, as the reflector reads them.
type reducedPods struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []reducedPod
}

// DeepCopyObject implements runtime.Object.
func (a *reducedPods) DeepCopyObject() runtime.Object {
	next := *a
	next.Items = append([]reducedPod(nil), a.Items...)
	return &next
}

// page lists the Pods page by page. The resource version is that of the first page: all pages are
// of one state of the cluster.
func (s *runningPods) page(ctx context.Context, live client.Reader, exempt flags.Exempt) (*reducedPods, error) {
	all := &reducedPods{}
	version, err := eachPod(ctx, live, exempt, func(p *corev1.Pod) error {
		a, err := s.reduce(p)
		if a != nil {
			all.Items = append(all.Items, *a)
		}
		return err
	})
	all.ResourceVersion = version
	return all, err
}

// eachPod calls do for each Pod that podSelector selects, from pages of the API server. It returns
// the resource version of the list.
func eachPod(ctx context.Context, live client.Reader, exempt flags.Exempt,
	do func(*corev1.Pod) error) (version string, err error) {
	next := ""
	for {
		page := &corev1.PodList{}
		err := live.List(ctx, page, client.MatchingFieldsSelector{Selector: podSelector(exempt)},
			client.Limit(podsPage), client.Continue(next))
		if err != nil {
			return "", fmt.Errorf("listing Pods: %w", err)
		}
		if version == "" {
			version = page.ResourceVersion
		}
		for i := range page.Items {
			if err := do(&page.Items[i]); err != nil {
				return "", err
			}
		}
		if next = page.Continue; next == "" {
			return version, nil
		}
	}
}

// podSelector leaves out Pods that have ended, and namespaces that are exempt by their full name.
// The evaluation leaves out the other exempt namespaces.
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

// Start implements manager.Runnable. Where the API server lists no Pods, the reflector logs why and
// retries for as long as it takes: this replica serves admission too.
func (w podWatch) Start(ctx context.Context) error {
	toolscache.NewReflectorWithOptions(w.source, &corev1.Pod{}, w.pods,
		toolscache.ReflectorOptions{Name: "running Pods"}).RunWithContext(ctx)
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (podWatch) NeedLeaderElection() bool { return true }
