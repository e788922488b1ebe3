package reports

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/report"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// TestReportWriter runs a writer against a real API server, and installs and deletes the CRDs of
// reports.
func TestReportWriter(t *testing.T) {
	ctrl.SetLogger(logr.Discard())
	r := startReports(t)
	shop := finding("shop", "app", policy.Denied)
	both := &compliance.Result{
		Findings: []compliance.Finding{
			shop, finding("cart", "app", policy.Admitted), finding("cart", "db", policy.CouldNotCheck),
		},
	}

	r.evaluate(both)
	for range 5 {
		r.step(probeInterval)
	}
	if got := r.logged(); len(got) > 0 || r.requests("PATCH", "LIST", "DELETE") > 0 {
		t.Fatalf("without the CRDs: got log lines %q and %d requests for reports, want none", got,
			r.requests("PATCH", "LIST", "DELETE"))
	}

	uninstall := kubeserver.RunReportCRDs(t, r.kube)
	r.create(reportOf("old", "countersign", map[string]string{report.ManagedBy: report.Manager}))
	r.create(reportOf("old", "theirs", map[string]string{report.ManagedBy: "another"}))
	r.create(reportOf("default", "countersign", nil))
	r.step(probeInterval)
	r.awaitReports(t, map[string]string{
		"shop/countersign": "0 pass 1 fail 0 error", "cart/countersign": "1 pass 0 fail 1 error", "old/theirs": "none",
		"default/countersign": "none",
	})

	t.Run("equal findings", func(t *testing.T) {
		before := r.requests("PATCH")
		r.evaluate(&compliance.Result{Findings: slices.Clone(both.Findings)})
		r.step(probeInterval)
		if n := r.requests("PATCH") - before; n != 0 {
			t.Errorf("got %d writes, want 0", n)
		}
	})
	t.Run("one namespace changed, one without findings", func(t *testing.T) {
		before := r.requests("PATCH")
		shop.Verdict = policy.Admitted
		r.evaluate(&compliance.Result{Findings: []compliance.Finding{shop}})
		r.awaitReports(t, map[string]string{
			"shop/countersign": "1 pass 0 fail 0 error", "old/theirs": "none", "default/countersign": "none",
		})
		if n := r.requests("PATCH") - before; n != 2 {
			t.Errorf("got %d writes, want one in each format", n)
		}
	})
	t.Run("a report that a user deleted", func(t *testing.T) {
		for _, f := range formats() {
			r.remove(f, "shop")
		}
		r.step(renewalInterval - probeInterval)
		r.step(probeInterval)
		r.awaitReports(t, map[string]string{
			"shop/countersign": "1 pass 0 fail 0 error", "old/theirs": "none", "default/countersign": "none",
		})
	})
	t.Run("a namespace without the right to write", func(t *testing.T) { r.testForbidden(t, both) })
	t.Run("a report that another client filled", func(t *testing.T) { r.testFilled(t, both) })
	t.Run("CRDs deleted, and installed again", func(t *testing.T) {
		r.clearLog()
		uninstall()
		shop.Verdict = policy.CouldNotCheck
		r.evaluate(&compliance.Result{Findings: []compliance.Finding{shop}})
		for range 5 {
			r.step(probeInterval)
		}
		for _, line := range r.logged() {
			if !strings.Contains(line, `"installed"=false`) {
				t.Errorf("got log line %s, want only the deletion of the CRD", line)
			}
		}
		kubeserver.RunReportCRDs(t, r.kube)
		r.time.Step(probeInterval - 6*time.Second)
		r.evaluate(&compliance.Result{Findings: []compliance.Finding{shop}}) // does not delay the next probe
		r.step(6 * time.Second)
		r.awaitReports(t, map[string]string{"shop/countersign": "0 pass 0 fail 1 error"})
	})
	t.Run("no findings", func(t *testing.T) {
		r.evaluate(&compliance.Result{})
		r.awaitReports(t, map[string]string{})
	})
}

// testForbidden revokes the right to write in one namespace.
func (r *reports) testForbidden(t *testing.T, found *compliance.Result) {
	want := map[string]string{
		"shop/countersign": "0 pass 1 fail 0 error", "cart/countersign": "1 pass 0 fail 1 error", "old/theirs": "none",
		"default/countersign": "none",
	}
	r.revoke("cart")
	r.clearLog()
	r.evaluate(found)
	delete(want, "cart/countersign")
	r.awaitReports(t, want) // the refusal in one namespace does not delay the other
	for range 10 {
		r.step(longestRetry)
	}
	if got := r.logged(); len(got) != 2 || !strings.Contains(strings.Join(got, "\n"), "report of namespace cart") {
		t.Errorf("got log lines %q, want one failure in each format", got)
	}
	r.grant("cart")
	want["cart/countersign"] = "1 pass 0 fail 1 error"
	r.awaitRetried(t, want)
}

// testFilled fills the reports of a namespace as another client, until nothing can be added. The
// writer deletes and recreates such a report. If it cannot be deleted, the other namespaces still
// get their reports.
func (r *reports) testFilled(t *testing.T, found *compliance.Result) {
	want := map[string]string{
		"shop/countersign": "0 pass 1 fail 0 error", "cart/countersign": "1 pass 0 fail 1 error", "old/theirs": "none",
		"default/countersign": "none",
	}
	for name, finalizers := range map[string][]string{"without finalizer": nil, "finalizer": {"example.com/hold"}} {
		t.Run(name, func(t *testing.T) {
			for _, f := range formats() {
				r.remove(f, "cart")
				r.fill(f, "cart", finalizers)
			}
			r.clearLog()
			r.step(renewalInterval)
			r.step(longestRetry)
			if len(finalizers) > 0 {
				for _, verdict := range []policy.Verdict{policy.Admitted, policy.CouldNotCheck} {
					changed := slices.Clone(found.Findings)
					changed[0].Verdict = verdict
					r.evaluate(&compliance.Result{Findings: changed})
					r.awaitReports(t, map[string]string{
						"shop/countersign": map[policy.Verdict]string{
							policy.Admitted: "1 pass 0 fail 0 error", policy.CouldNotCheck: "0 pass 0 fail 1 error",
						}[verdict],
						"cart/countersign": "none", "old/theirs": "none", "default/countersign": "none",
					})
				}
				if got := r.logged(); len(got) < 2 || !strings.Contains(strings.Join(got, "\n"), "too large") {
					t.Errorf("got log lines %.300q, want a failure in each format", got)
				}
				for _, f := range formats() {
					r.empty(f, "cart")
				}
				r.evaluate(found)
			}
			r.awaitRetried(t, want)
		})
	}
}

// reports is a running writer, with its log lines and the counts of its requests.
type reports struct {
	*Writer
	t      *testing.T
	kube   *kubeserver.Server
	client client.Client
	time   *countTimers

	mu    sync.Mutex
	lines []string
	sent  map[string]int
}

// startReports runs a writer with the rights on reports that config/rbac grants the manager, in
// three namespaces.
func startReports(t *testing.T) *reports {
	t.Helper()
	r := &reports{
		t: t, kube: kubeserver.Run(t, kubeserver.Options{WithoutCRDs: true}),
		time: &countTimers{FakeClock: clocktesting.NewFakeClock(time.Now())}, sent: map[string]int{},
	}
	var err error
	if r.client, err = client.New(r.kube.Config, client.Options{}); err != nil {
		t.Fatal(err)
	}
	rule := rbacv1.PolicyRule{
		APIGroups: []string{"wgpolicyk8s.io", "openreports.io"}, Resources: []string{"policyreports", "reports"},
		Verbs: []string{"create", "patch", "delete"}, ResourceNames: []string{report.Name},
	}
	r.create(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "write"}, Rules: []rbacv1.PolicyRule{rule}})
	rule.Verbs, rule.ResourceNames = []string{"list"}, nil
	r.create(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "list"}, Rules: []rbacv1.PolicyRule{rule}})
	r.create(&rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "writer"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "list"},
		Subjects: []rbacv1.Subject{{Kind: "User", Name: "writer"}},
	})
	for _, namespace := range []string{"shop", "cart", "old"} {
		r.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
		r.grant(namespace)
	}
	config := rest.CopyConfig(r.kube.Config)
	config.Impersonate.UserName = "writer"
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return countRequests{r, next} })
	if r.Writer, err = NewWriter(config, r.time); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(ctrl.LoggerInto(t.Context(), funcr.New(r.log, funcr.Options{})))
	done := make(chan error, 1)
	go func() { done <- r.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// grant grants the writer the right to write in a namespace.
func (r *reports) grant(namespace string) {
	r.create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "writer"},
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: "write"},
		Subjects:   []rbacv1.Subject{{Kind: "User", Name: "writer"}},
	})
	r.awaitRight(namespace, true)
}

// revoke revokes that right.
func (r *reports) revoke(namespace string) {
	r.t.Helper()
	if err := r.client.Delete(r.t.Context(),
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "writer"}}); err != nil {
		r.t.Fatal(err)
	}
	r.awaitRight(namespace, false)
}

// awaitRight waits until the API server grants or denies the right to write. Its cache may be
// stale.
func (r *reports) awaitRight(namespace string, want bool) {
	r.t.Helper()
	poll.Await(r.t, "the right to write", func() error {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "writer",
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: namespace, Group: report.OpenReport().Group, Resource: report.OpenReport().Resource,
				Verb: "create", Name: report.Name,
			}}}
		if err := r.client.Create(r.t.Context(), review); err != nil {
			return err
		}
		if review.Status.Allowed != want {
			return fmt.Errorf("got allowed %t in %s, want %t", review.Status.Allowed, namespace, want)
		}
		return nil
	})
}

// evaluate publishes a result and waits until the writer has processed it.
func (r *reports) evaluate(found *compliance.Result) {
	r.untilIdle(func() { r.publish(found) })
}

// step advances the clock and waits until the writer is idle.
func (r *reports) step(d time.Duration) {
	r.untilIdle(func() { r.time.Step(d) })
}

// untilIdle calls begin, which wakes the idle writer, and waits until it is idle again. The writer
// creates a timer each time it becomes idle.
func (r *reports) untilIdle(begin func()) {
	poll.AwaitTrue(r.t, "the start of the writer", func() bool { return r.time.timers.Load() > 0 })
	before := r.time.timers.Load()
	begin()
	poll.AwaitTrue(r.t, "the idle writer", func() bool { return r.time.timers.Load() > before })
}

// countTimers is a fake clock that counts its timers.
type countTimers struct {
	*clocktesting.FakeClock
	timers atomic.Int64
}

// NewTimer implements clock.Clock.
func (c *countTimers) NewTimer(d time.Duration) clock.Timer {
	timer := c.FakeClock.NewTimer(d)
	c.timers.Add(1)
	return timer
}

func (r *reports) create(o client.Object) {
	r.t.Helper()
	if err := r.client.Create(r.t.Context(), o); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reports) remove(f report.Format, namespace string) {
	r.t.Helper()
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(f.GroupVersionKind)
	o.SetNamespace(namespace)
	o.SetName(report.Name)
	if err := r.client.Delete(r.t.Context(), o); err != nil {
		r.t.Fatal(err)
	}
}

// fill creates a report with Countersign's name and nearly the maximum size of an object.
func (r *reports) fill(f report.Format, namespace string, finalizers []string) {
	r.t.Helper()
	for size := 1536 << 10; ; size -= 1 << 10 { // etcd's limit of one request
		o := &unstructured.Unstructured{
			Object: map[string]any{"scope": map[string]any{"kind": "Pod", "name": strings.Repeat("x", size)}},
		}
		o.SetGroupVersionKind(f.GroupVersionKind)
		o.SetNamespace(namespace)
		o.SetName(report.Name)
		o.SetFinalizers(finalizers)
		err := r.client.Create(r.t.Context(), o)
		if err == nil {
			return
		}
		if size < 1<<20 || !strings.Contains(err.Error(), "too large") {
			r.t.Fatalf("%.300s", err.Error())
		}
	}
}

// empty removes the content of fill from a report.
func (r *reports) empty(f report.Format, namespace string) {
	r.t.Helper()
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(f.GroupVersionKind)
	o.SetNamespace(namespace)
	o.SetName(report.Name)
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null},"scope":null}`))
	if err := r.client.Patch(r.t.Context(), o, patch); err != nil {
		r.t.Fatal(err)
	}
}

// awaitReports waits until the reports in both formats equal want, by namespace and name.
func (r *reports) awaitReports(t *testing.T, want map[string]string) {
	t.Helper()
	poll.Await(t, "the reports", func() error { return r.compare(t, want) })
}

// awaitRetried is awaitReports with retries: the API server's cache may be stale, so it may refuse
// one more write.
func (r *reports) awaitRetried(t *testing.T, want map[string]string) {
	t.Helper()
	poll.Await(t, "the reports", func() error {
		r.step(longestRetry)
		return r.compare(t, want)
	})
}

// compare compares the reports in both formats with want. The reports of other clients exist only
// in the older format.
func (r *reports) compare(t *testing.T, want map[string]string) error {
	for _, f := range formats() {
		want := maps.Clone(want)
		if f == report.OpenReport() {
			delete(want, "old/theirs")
			delete(want, "default/countersign")
		}
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(f.GroupVersionKind)
		if err := r.client.List(t.Context(), list); apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
			return errors.New("the CRD is not installed")
		} else if err != nil {
			return err
		}
		got := map[string]string{}
		for _, o := range list.Items {
			text := "none"
			if s, ok := o.Object["summary"].(map[string]any); ok {
				text = fmt.Sprintf("%d pass %d fail %d error", s["pass"], s["fail"], s["error"])
			}
			got[o.GetNamespace()+"/"+o.GetName()] = text
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("%s: got %v, want %v; log lines: %q", f.Resource, got, want, r.logged())
		}
	}
	return nil
}

func (r *reports) log(prefix, args string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, prefix+args)
}

func (r *reports) logged() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

func (r *reports) clearLog() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = nil
}

// requests returns the number of requests with one of the methods.
func (r *reports) requests(methods ...string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, m := range methods {
		n += r.sent[m]
	}
	return n
}

// countRequests is a transport that counts requests by method. It counts lists of reports as LIST,
// and discovery as GET.
type countRequests struct {
	*reports
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (c countRequests) RoundTrip(req *http.Request) (*http.Response, error) {
	method := req.Method
	if req.URL.Query().Has("labelSelector") {
		method = "LIST"
	}
	c.mu.Lock()
	c.sent[method]++
	c.mu.Unlock()
	return c.next.RoundTrip(req)
}

func formats() []report.Format { return []report.Format{report.PolicyReport(), report.OpenReport()} }

func finding(namespace, name string, verdict policy.Verdict) compliance.Finding {
	return compliance.Finding{
		Policy: "production", Mode: v1alpha1.ModeEnforce, Verdict: verdict,
		Workload: compliance.Workload{APIVersion: "apps/v1", Kind: "Deployment", Namespace: namespace, Name: name},
	}
}

// reportOf returns a report as another client may write it.
func reportOf(namespace, name string, labels map[string]string) client.Object {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(report.PolicyReport().GroupVersionKind)
	o.SetNamespace(namespace)
	o.SetName(name)
	o.SetLabels(labels)
	return o
}
