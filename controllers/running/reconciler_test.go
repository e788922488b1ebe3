package running

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/gate"
	"github.com/countersign-dev/countersign/controllers/publication"
	"github.com/countersign-dev/countersign/controllers/records"
	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/testenv/controlplane"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
	"github.com/countersign-dev/countersign/internal/trustroot"
)

// TestWhatRuns runs all tests of this package that need an API server on one of them.
func TestWhatRuns(t *testing.T) {
	c := controlplane.Run(t, acmeObjects()...)
	for _, namespace := range []string{"shop", "acme-exempt"} {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "default"}}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web"},
			Spec: corev1.PodSpec{
				AutomountServiceAccountToken: ptr.To(false),
				Containers: []corev1.Container{
					{Name: "app", Image: "registry.example.com/acme/app:v1"},
				},
			},
		}
		for _, o := range []client.Object{
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, account, pod,
		} {
			c.Make(t, o)
		}
	}
	t.Run("conflicting status writes", func(t *testing.T) { testConflicts(t, c) })
	t.Run("pace", func(t *testing.T) { testPace(t, c) })
	t.Run("owner", func(t *testing.T) { testOwner(t, c) })
	t.Run("events", func(t *testing.T) { testEvents(t, c) })
	t.Run("leader", func(t *testing.T) { testLeaderOnly(t, c) })
}

// testConflicts writes the status as another client, each time between the reconciler's read and
// write.
func testConflicts(t *testing.T, c client.WithWatch) {
	elected := make(chan struct{})
	close(elected)
	// meddle adds a condition of its own to an object before the reconciler patches it for the
	// first time.
	meddled := map[string]bool{}
	meddle := func(ctx context.Context, name string, o client.Object, conditions func() *[]metav1.Condition) error {
		if meddled[name] {
			return nil
		}
		meddled[name] = true
		if err := c.Get(ctx, client.ObjectKey{Name: name}, o); err != nil {
			return err
		}
		meta.SetStatusCondition(conditions(), metav1.Condition{
			Type: "Other", Status: metav1.ConditionTrue, Reason: "Theirs",
		})
		return c.Status().Update(ctx, o)
	}
	meddling := interceptor.NewClient(c,
		interceptor.Funcs{SubResourcePatch: func(ctx context.Context, _ client.Client, sub string, o client.Object,
			patch client.Patch, opts ...client.SubResourcePatchOption) error {
			var err error
			switch o.(type) {
			case *v1alpha1.ImagePolicy:
				p := &v1alpha1.ImagePolicy{}
				err = meddle(ctx, o.GetName(), p, func() *[]metav1.Condition { return &p.Status.Conditions })
			case *v1alpha1.TrustRoot:
				tr := &v1alpha1.TrustRoot{}
				err = meddle(ctx, o.GetName(), tr, func() *[]metav1.Condition { return &tr.Status.Conditions })
			}
			return errors.Join(err, c.SubResource(sub).Patch(ctx, o, patch, opts...))
		}})
	decisions := store.New(store.Options{Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO})
	writer := status.Writer{Client: meddling, Events: events.NewFakeRecorder(100), Elected: elected}
	found := &Compliance{}
	reconcilers := map[string]struct {
		reconcile func(context.Context, ctrl.Request) (ctrl.Result, error)
		object    client.Object
		is        func(client.Object) []metav1.Condition
		ours      []string
	}{
		"acme": {
			(&publication.TrustRootReconciler{
				Client: meddling, Status: writer, Clock: clock.RealClock{}, ExpiryWarning: time.Hour,
				Publisher: &publication.Publisher{
					Reader: c, Store: decisions, Builder: trustroot.Builder{
						Reader: c, Namespace: "default", Formats: []trust.Format{notary.Format{}},
					},
					Tracker: store.NewTracker(decisions, clock.RealClock{}, func(string) {}),
					Records: &records.Reconciler{
						Changes: &records.Changes{}, Client: c, Live: c, Heads: c, Namespace: "default",
					},
				},
			}).Reconcile,
			&v1alpha1.TrustRoot{},
			func(o client.Object) []metav1.Condition { return o.(*v1alpha1.TrustRoot).Status.Conditions },
			[]string{v1alpha1.ConditionReady, v1alpha1.ConditionFresh, v1alpha1.ConditionExpiring},
		},
		"production": {
			(&publication.ImagePolicyReconciler{
				Client: meddling, Store: decisions, Status: writer, Compliance: found, Gate: &gate.Observation{},
			}).Reconcile,
			&v1alpha1.ImagePolicy{},
			func(o client.Object) []metav1.Condition { return o.(*v1alpha1.ImagePolicy).Status.Conditions },
			[]string{v1alpha1.ConditionReady, v1alpha1.ConditionCompliant},
		},
	}
	for name, r := range reconcilers {
		t.Run(name, func(t *testing.T) {
			if err := c.Get(t.Context(), client.ObjectKey{Name: name}, r.object); err != nil {
				t.Fatal(err)
			}
			found.current.Store(&evaluated{
				states: map[string]state{
					name: {
						Version: status.Version(r.object), Compliant: metav1.ConditionTrue,
						Reason: v1alpha1.ReasonNothingRuns,
					},
				},
			})
			again, err := r.reconcile(t.Context(), requests.For(name))
			if err != nil || again.RequeueAfter <= 0 || again.RequeueAfter > time.Second {
				t.Errorf("after a conflict: got %v, %v; want a requeue within a second and no error", again, err)
			}
			if _, err := r.reconcile(t.Context(), requests.For(name)); err != nil {
				t.Fatal(err)
			}
			if err := c.Get(t.Context(), client.ObjectKey{Name: name}, r.object); err != nil {
				t.Fatal(err)
			}
			for _, kind := range append([]string{"Other"}, r.ours...) {
				if meta.FindStatusCondition(r.is(r.object), kind) == nil {
					t.Errorf("got conditions %v, want %s too", r.is(r.object), kind)
				}
			}
		})
	}
}

// testPace calls the reconciler directly, with a fake clock.
func testPace(t *testing.T, c client.Client) {
	decisions, found := store.New(
		store.Options{Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO}), &Compliance{}
	now := clocktesting.NewFakeClock(time.Now())
	r := &Reconciler{
		Client: c, Live: c, Store: decisions, Tracker: store.NewTracker(decisions, now, func(string) {}), Clock: now,
		Status: status.Writer{Events: events.NewFakeRecorder(100)},
		Exempt: flags.Exempt{Prefixes: []string{"acme-ex"}}, Compliance: found,
	}
	results := 0
	found.OnResult(func(*compliance.Result) { results++ })
	reconciled := func(step string, want int, after time.Duration) {
		t.Helper()
		result, err := r.Reconcile(t.Context(), requests.For(everything))
		if err != nil {
			t.Fatal(err)
		}
		if results != want || result.RequeueAfter != after {
			t.Errorf("%s: got %d results and a requeue after %s, want %d and %s", step, results,
				result.RequeueAfter, want, after)
		}
	}
	reconciled("before the store is primed", 0, 0)
	decisions.MarkPrimed()
	reconciled("before the first list of Pods", 0, 0)
	pods := &corev1.PodList{}
	if err := c.List(t.Context(), pods); err != nil {
		t.Fatal(err)
	}
	var all []any
	for i := range pods.Items {
		all = append(all, &pods.Items[i])
	}
	r.pods.changed = func() {}
	if err := r.pods.Replace(all, ""); err != nil {
		t.Fatal(err)
	}
	reconciled("the first time", 1, evaluationInterval)
	now.Step(evaluationPause / 4)
	reconciled("right after", 1, evaluationPause*3/4)
	now.Step(evaluationPause)
	reconciled("after a pause", 2, evaluationInterval)

	var root v1alpha1.TrustRoot
	var p v1alpha1.ImagePolicy
	for name, o := range map[string]client.Object{"acme": &root, "production": &p} {
		if err := c.Get(t.Context(), client.ObjectKey{Name: name}, o); err != nil {
			t.Fatal(err)
		}
	}
	built, err := notary.Format{Clock: now.Now}.Build(&root, nil)
	if err != nil {
		t.Fatal(err)
	}
	decisions.PutRoot("acme", store.Root{Verifier: built})
	compiled, err := policy.Compile(p.Name, &p.Spec)
	if err != nil {
		t.Fatal(err)
	}
	decisions.PutPolicy(compiled, status.Version(&p))
	now.Step(evaluationPause)
	// The tracker does not run, so the repository is never loaded.
	reconciled("with a repository that is not loaded", 2, evaluationPause)
	if got := found.state(p.Name, status.Version(&p)); got != nil {
		t.Errorf("got state %+v of a policy that was not evaluated, want none", got)
	}
	now.Step(firstLoadTimeout - time.Millisecond)
	reconciled("just before the timeout", 2, evaluationPause)
	now.Step(evaluationPause)
	reconciled("after the timeout", 3, evaluationInterval)
	got := found.state(p.Name, status.Version(&p))
	if got == nil || got.Workloads != (v1alpha1.WorkloadCounts{Covered: 1, Unchecked: 1}) ||
		got.Compliant != metav1.ConditionUnknown {
		t.Errorf("got state %+v, want the one Pod of the namespace that is not exempt, unchecked", got)
	}
	if got := found.state(p.Name, "another/version"); got != nil {
		t.Errorf("got state %+v of another version of the policy, want none", got)
	}
}

// recorded is a transport that records the URL of each request.
type recorded struct {
	next http.RoundTripper
	mu   *sync.Mutex
	urls *[]string
}

func (r recorded) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	*r.urls = append(*r.urls, req.URL.Path+"?"+req.URL.RawQuery)
	r.mu.Unlock()
	return r.next.RoundTrip(req)
}

// testLeaderOnly starts a replica while another client holds the lease, then deletes the lease.
func testLeaderOnly(t *testing.T, c *controlplane.Plane) {
	lease := c.HoldLease(t, "default", "leader")
	var mu sync.Mutex
	var urls []string
	config := rest.CopyConfig(c.Kube.Config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return recorded{next, &mu, &urls} })
	exempt := flags.Exempt{Names: []string{"acme-exempt"}}
	mgr := c.NewManager(t, config, ctrl.Options{
		LeaderElection: true, LeaderElectionID: lease.Name, LeaderElectionNamespace: lease.Namespace,
		RetryPeriod: ptr.To(100 * time.Millisecond),
	})
	found, changes := &Compliance{}, &Changes{}
	decisions := store.New(store.Options{
		Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO, Changed: changes.Notify,
	})
	tracker := store.NewTracker(decisions, clock.RealClock{}, func(string) {})
	writer := status.Writer{
		Client: mgr.GetClient(), Events: mgr.GetEventRecorder("countersign"), Elected: mgr.Elected(),
	}
	r := &Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Store: decisions, Tracker: tracker, Status: writer,
		Clock:  clock.RealClock{},
		Exempt: exempt, Compliance: found, Changes: changes,
	}
	err := errors.Join(
		(&publication.ImagePolicyReconciler{
			Client: mgr.GetClient(), Store: decisions, Status: writer, Compliance: found, Gate: &gate.Observation{},
		}).SetupWithManager(t.Context(), mgr),
		(&publication.TrustRootReconciler{
			Client: mgr.GetClient(), Status: writer, Changes: &requests.Trigger{}, Clock: clock.RealClock{},
			Publisher: &publication.Publisher{
				Reader: mgr.GetClient(), Store: decisions, Tracker: tracker,
				Builder: trustroot.Builder{
					Reader: mgr.GetClient(), Namespace: "default", Formats: []trust.Format{notary.Format{}},
				},
				Records: &records.Reconciler{
					Changes: &records.Changes{}, Live: mgr.GetAPIReader(), Heads: mgr.GetAPIReader(),
					Namespace: "default",
				},
			},
		}).SetupWithManager(t.Context(), mgr),
		r.SetupWithManager(mgr),
		mgr.Add(&publication.Primer{
			Client: mgr.GetClient(), Store: decisions, Tracker: tracker,
			Running: Needs{
				Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Store: decisions, Clock: clock.RealClock{},
				Exempt: exempt,
			},
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	controlplane.Start(t, mgr)
	poll.AwaitTrue(t, "the store of a replica that does not lead", func() bool { return decisions.Load().Primed })
	pods := func() []string {
		mu.Lock()
		defer mu.Unlock()
		// Each replica lists the Pods once when it starts, in pages.
		return slices.DeleteFunc(slices.Clone(urls),
			func(u string) bool { return !strings.HasPrefix(u, "/api/v1/pods?") || strings.Contains(u, "limit=100") })
	}
	if got := pods(); len(got) > 0 || found.Load() != nil {
		t.Errorf("a replica that does not lead: got requests %q and a result: %v, want neither", got,
			found.Load() != nil)
	}
	if err := c.Delete(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	poll.AwaitTrue(t, "a first result", func() bool { return found.Load() != nil })
	if got := found.Load().Policies["production"].Covered; got != 1 {
		t.Errorf("got %d covered workloads, want 1", got)
	}
	for _, u := range pods() {
		for _, part := range []string{
			"status.phase%21%3DSucceeded", "status.phase%21%3DFailed", "metadata.namespace%21%3Dacme-exempt",
		} {
			if !strings.Contains(u, part) {
				t.Errorf("got request %q, want it to contain %s", u, part)
			}
		}
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	if err := c.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	poll.AwaitTrue(t, "the end of the Pod", func() bool { return found.Load().Policies["production"].Covered == 0 })
}

// acmeObjects returns a TrustRoot and an ImagePolicy.
func acmeObjects() []client.Object {
	two := int32(2)
	return []client.Object{
		&v1alpha1.TrustRoot{
			ObjectMeta: metav1.ObjectMeta{Name: "acme"},
			Spec: v1alpha1.TrustRootSpec{Notary: &v1alpha1.NotarySpec{
				Server: "https://127.0.0.1:1",
				Root: v1alpha1.NotaryRoot{
					KeyIDs: []v1alpha1.KeyID{"84ca6e4416416d78c4597e754f38517bea95ab427e5f95871f90d460573071fc"},
				},
			}},
		},
		&v1alpha1.ImagePolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "production"},
			Spec: v1alpha1.ImagePolicySpec{
				Images:     []v1alpha1.ImagePattern{"registry.example.com/acme/**"},
				TrustRoots: []v1alpha1.ObjectName{"acme"},
				RequiredRoles: []v1alpha1.RoleRequirement{
					{Role: "ci"}, {AnyOf: []v1alpha1.RoleName{"a", "b", "c"}, Threshold: &two},
				},
			},
		},
	}
}
