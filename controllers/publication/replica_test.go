package publication

import (
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/gate"
	"github.com/countersign-dev/countersign/controllers/records"
	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/controllers/running"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/testenv/controlplane"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/trustroot"
)

// TestReplicas runs the controllers as a replica that does not lead, on a real API server, and then
// lets it lead.
func TestReplicas(t *testing.T) {
	c := controlplane.Run(t, objects()...)
	mgr := c.NewManager(t, nil, ctrl.Options{})
	leads, changes := make(chan struct{}), &requests.Trigger{}
	decisions := store.New(store.Options{Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO})
	tracker := store.NewTracker(decisions, clock.RealClock{}, changes.Notify)
	writer := status.Writer{Client: mgr.GetClient(), Events: mgr.GetEventRecorder("countersign"), Elected: leads}
	err := errors.Join(
		(&ImagePolicyReconciler{
			Client: mgr.GetClient(), Store: decisions, Status: writer, Compliance: &running.Compliance{},
			Gate: &gate.Observation{},
		}).SetupWithManager(t.Context(), mgr),
		(&TrustRootReconciler{
			Client: mgr.GetClient(), Status: writer, Changes: changes, Clock: clock.RealClock{},
			Publisher: &Publisher{
				Reader: mgr.GetClient(), Store: decisions, Tracker: tracker,
				Builder: trustroot.Builder{Reader: mgr.GetClient(), Namespace: "default", Formats: trustFormats()},
				Records: &records.Reconciler{
					Changes: &records.Changes{}, Client: mgr.GetClient(), Live: mgr.GetAPIReader(),
					Heads: mgr.GetClient(), Namespace: "default",
				},
			},
		}).SetupWithManager(t.Context(), mgr),
		mgr.Add(&Primer{
			Client: mgr.GetClient(), Store: decisions, Tracker: tracker,
			Running: running.Needs{
				Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Store: decisions, Clock: clock.RealClock{},
			},
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	if decisions.Load().Primed {
		t.Error("the store is primed before anything was published")
	}
	stop := controlplane.Start(t, mgr)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("the manager ended with %v, want no error", err)
		}
	})

	poll.AwaitTrue(t, "the store of a replica that does not lead", func() bool { return decisions.Load().Primed })
	snapshot := decisions.Load()
	if snapshot.PolicyVersion("production") == "" || snapshot.Usable("acme") != nil {
		t.Errorf("primed without the policy (%q) or its trust root (%v)", snapshot.PolicyVersion("production"),
			snapshot.Usable("acme"))
	}
	p := &v1alpha1.ImagePolicy{}
	if err := c.Get(t.Context(), client.ObjectKey{Name: "production"}, p); err != nil {
		t.Fatal(err)
	}
	if len(p.Status.Conditions) > 0 {
		t.Errorf("a replica that does not lead wrote %v", p.Status.Conditions)
	}

	close(leads)
	poll.AwaitTrue(t, "the status, once it leads", func() bool {
		return c.Get(t.Context(), client.ObjectKey{Name: "production"}, p) == nil && len(p.Status.Conditions) == 2
	})
	if got := p.Status.Roles; got != "ci,2 of 3" {
		t.Errorf("roles are %q, want \"ci,2 of 3\"", got)
	}

	t.Run("status of a deleted object", func(t *testing.T) {
		gone := p.DeepCopy()
		gone.Name, gone.UID = "gone", ""
		changed := gone.DeepCopy()
		changed.Status.Roles = "qa"
		if err := writer.Write(t.Context(), gone, changed, nil, nil); err != nil {
			t.Errorf("Write returned %v, want no error", err)
		}
	})
	t.Run("not ready, by mode", func(t *testing.T) {
		r := &ImagePolicyReconciler{
			Client: c,
			Store:  store.New(store.Options{Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO}),
		}
		for mode, want := range map[v1alpha1.PolicyMode]string{
			v1alpha1.ModeEnforce: "is denied", "": "is denied", v1alpha1.ModeWarn: "in mode Warn denies nothing",
			v1alpha1.ModeAudit: "in mode Audit denies nothing",
		} {
			other := p.DeepCopy()
			other.Spec.Mode = mode
			got, err := r.ready(t.Context(), other, nil, metav1.Condition{})
			if err != nil || got.Reason != v1alpha1.ReasonTrustRootNotFound || !strings.Contains(got.Message, want) {
				t.Errorf("mode %q: %s, %q, %v; want it to say %q", mode, got.Reason, got.Message, err, want)
			}
		}
	})
	t.Run("trust root deleted, but still in the store", func(t *testing.T) {
		late := store.New(store.Options{Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO})
		late.PutRoot("ghost", *decisions.Load().Root("acme"))
		other := p.DeepCopy()
		other.Spec.TrustRoots = []v1alpha1.ObjectName{"ghost"}
		got, err := (&ImagePolicyReconciler{Client: c, Store: late}).ready(t.Context(), other, nil, metav1.Condition{})
		if err != nil || got.Status != metav1.ConditionFalse || got.Reason != v1alpha1.ReasonTrustRootNotFound {
			t.Errorf("condition %s, %s, %v; want the trust root not found", got.Status, got.Reason, err)
		}
	})

	if err := c.Delete(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	poll.AwaitTrue(t, "the deleted policy to be out of force",
		func() bool { return decisions.Load().PolicyVersion("production") == "" })
}

// objects are a trust root and a policy.
func objects() []client.Object {
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
