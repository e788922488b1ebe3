package running

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// recorder is a transport that records the query of each request for Pods.
type recorder struct {
	http.RoundTripper
	mu      sync.Mutex
	queries []string
}

func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.URL.Path == "/api/v1/pods" {
		r.mu.Lock()
		r.queries = append(r.queries, request.URL.RawQuery)
		r.mu.Unlock()
	}
	return r.RoundTripper.RoundTrip(request)
}

// lists returns the queries of lists, without watches.
func (r *recorder) lists() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.queries), func(q string) bool { return strings.Contains(q, "watch=") })
}

// An API server before Kubernetes 1.34 may not be able to stream the first list. The store then
// reads all Pods page by page, and watches later changes.
func TestPodsWithoutStreaming(t *testing.T) {
	const pods = 2*podsPage + 50
	kube := kubeserver.Run(t, kubeserver.Options{
		WithoutCRDs: true, APIServerArgs: []string{"--feature-gates=WatchList=false"},
	})
	config := rest.CopyConfig(kube.Config)
	config.QPS = -1
	requests := &recorder{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		requests.RoundTripper = next
		return requests
	})
	live, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}}
	if err := live.Create(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	for i := range pods {
		createPod(t, live, fmt.Sprintf("web-%d", i))
	}
	store := &runningPods{changed: func() {}}
	ctx, cancel := context.WithCancel(t.Context())
	var reflector sync.WaitGroup
	reflector.Go(func() {
		_ = podWatch{store, podSource(live, typed.CoreV1().Pods(""), store, flags.Exempt{})}.Start(ctx)
	})
	defer reflector.Wait()
	defer cancel()
	holds := func(n int) func() error {
		return func() error {
			if got, complete := store.list(); len(got) != n || !complete {
				return fmt.Errorf("got %d Pods, complete %v; want %d", len(got), complete, n)
			}
			return nil
		}
	}
	poll.Await(t, "all Pods", holds(pods))
	lists := requests.lists()
	if len(lists) != 3 {
		t.Errorf("got the lists %q, want 3 pages", lists)
	}
	for _, query := range lists {
		if !strings.Contains(query, fmt.Sprint("limit=", podsPage)) || !strings.Contains(query, "status.phase") {
			t.Errorf("got the list %q, want a page of Pods that have not ended", query)
		}
	}
	createPod(t, live, "later")
	poll.Await(t, "a later Pod", holds(pods+1))
	if again := requests.lists(); len(again) != len(lists) {
		t.Errorf("got the further lists %q, want a watch", again[len(lists):])
	}
}

func createPod(t *testing.T, c client.Client, name string) {
	t.Helper()
	err := c.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: ptr.To(false),
			Containers:                   []corev1.Container{{Name: "app", Image: "registry.example.com/acme/app:v1"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}
