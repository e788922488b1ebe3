// Package running evaluates the running workloads against the policies, on the leader. It watches
// Pods, stores the last result in Compliance, and records events on the owners of workloads. It
// denies nothing.
package running

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/store"
)

const (
	// evaluationPause is the minimum time between two evaluations. The first change after a pause
	// is evaluated at once.
	evaluationPause = time.Second
	// evaluationInterval is the maximum time between two evaluations: no event announces an expiry.
	evaluationInterval = time.Minute
	// firstLoadTimeout is the maximum time that no result is published because repositories are
	// being fetched for the first time. Otherwise the start of the operator or of a new application
	// would look like lost evidence.
	firstLoadTimeout = 10 * time.Second
)

// everything is the one request of the compliance controller.
const everything = "everything-that-runs"

// Reconciler evaluates the running workloads when Pods, namespaces, policies, trust roots or
// evidence change. It runs on the leader only, and only there watches Pods.
type Reconciler struct {
	// Client reads namespaces and ImagePolicies.
	Client client.Reader
	// Live reads the owners of Pods, of which none is cached.
	Live    client.Reader
	Store   *store.Store
	Tracker *store.Tracker
	Status  status.Writer
	Clock   clock.PassiveClock
	// Exempt namespaces are left out.
	Exempt flags.Exempt
	// Compliance receives the result.
	Compliance *Compliance

	// Changes wakes this reconciler. The store calls Notify after each new snapshot.
	Changes *Changes

	pods runningPods

	// The rest belongs to the one worker.

	earliest time.Time // of the next evaluation
	// loadingSince is the time of the first evaluation that found evidence not loaded yet. It is
	// zero if none is missing.
	loadingSince time.Time
	overLimit    bool // more repositories run than are retained
	ledger       *ledger
}

// +kubebuilder:rbac:groups="",resources=pods,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=replicationcontrollers,verbs=get
// +kubebuilder:rbac:groups=apps,resources=replicasets,verbs=get
// +kubebuilder:rbac:groups=batch,resources=jobs,verbs=get

// SetupWithManager registers the reconciler, on the leader.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.pods.changed = r.Changes.Notify
	watch, err := watchPods(mgr, &r.pods, r.Exempt)
	if err != nil {
		return err
	}
	if err := mgr.Add(watch); err != nil {
		return fmt.Errorf("watching Pods: %w", err)
	}
	wake := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{requests.For(everything)}
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named("compliance").
		Watches(&corev1.Namespace{}, wake, builder.WithPredicates(predicate.LabelChangedPredicate{})).
		WatchesRawSource(r.Changes.trigger.Source()).
		Complete(r)
}

// Changes wakes the reconciler. The zero value is ready for use.
type Changes struct{ trigger requests.Trigger }

// Notify requests an evaluation soon. It never blocks, and does nothing on a replica that does not
// lead.
func (c *Changes) Notify() { c.trigger.Notify(everything) }

// Reconcile evaluates all running workloads.
func (r *Reconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	snapshot := r.Store.Load()
	if !snapshot.Primed {
		return ctrl.Result{}, nil // the store calls Notify when it is
	}
	if wait := r.earliest.Sub(r.Clock.Now()); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	pods, complete := r.pods.list()
	if !complete {
		return ctrl.Result{}, nil // the store of Pods calls Notify when it is
	}
	in, err := evaluationInput(ctx, r.Client, snapshot, r.Exempt, r.Clock.Now())
	if err != nil {
		return ctrl.Result{}, err
	}
	in.Pods = pods
	if r.ledger == nil {
		if r.ledger, err = readLedger(ctx, r.Client); err != nil {
			return ctrl.Result{}, err
		}
	}
	result := compliance.Evaluate(in)
	r.retain(ctx, result)
	r.earliest = r.Clock.Now().Add(evaluationPause)
	if r.loading(result, in.Now) {
		return ctrl.Result{RequeueAfter: evaluationPause}, nil
	}
	selected, waiting := r.ledger.enter(result, in.Now)
	if waiting > 0 {
		ctrl.LoggerFrom(ctx).Info("Recorded events for some workloads, the next evaluation records more",
			"recorded", len(selected), "waiting", waiting)
	}
	r.Compliance.publish(&evaluated{result: result, states: r.states(snapshot, result)})
	r.announce(ctx, selected)
	return ctrl.Result{RequeueAfter: evaluationInterval}, nil
}

// retain keeps the evidence for the running images up to date. It logs if there are too many.
func (r *Reconciler) retain(ctx context.Context, result *compliance.Result) {
	beyond := r.Tracker.Retain(result.Needs)
	if beyond > 0 && !r.overLimit {
		ctrl.LoggerFrom(ctx).Info(
			"Too many running repositories without known signatures, so some are not kept up to date",
			"passedOver", beyond)
	}
	r.overLimit = beyond > 0
}

// loading reports whether repositories are being fetched for the first time, for less than
// firstLoadTimeout.
func (r *Reconciler) loading(result *compliance.Result, now time.Time) bool {
	switch {
	case result.NotLoaded == 0:
		r.loadingSince = time.Time{}
	case r.loadingSince.IsZero():
		r.loadingSince = now
	}
	return result.NotLoaded > 0 && now.Sub(r.loadingSince) < firstLoadTimeout
}

// evaluationInput returns the input of an evaluation, without the Pods. It reads the cache without
// a copy, so callers must not change the result.
func evaluationInput(ctx context.Context, c client.Reader, snapshot *store.Snapshot, exempt flags.Exempt,
	now time.Time) (compliance.Input, error) {
	namespaces := &corev1.NamespaceList{}
	if err := c.List(ctx, namespaces, client.UnsafeDisableDeepCopy); err != nil {
		return compliance.Input{}, fmt.Errorf("listing namespaces: %w", err)
	}
	in := compliance.Input{
		Namespaces: make(map[string]labels.Set, len(namespaces.Items)), Policies: snapshot.Policies, Roots: snapshot,
		Now: now,
	}
	for i := range namespaces.Items {
		if name := namespaces.Items[i].Name; !exempt.Has(name) {
			in.Namespaces[name] = namespaces.Items[i].Labels
		}
	}
	return in, nil
}

// states returns the state of each policy after a result.
func (r *Reconciler) states(snapshot *store.Snapshot, result *compliance.Result) map[string]state {
	states := make(map[string]state, len(result.Policies))
	for name, summary := range result.Policies {
		s := state{
			Version: snapshot.PolicyVersion(name),
			Workloads: v1alpha1.WorkloadCounts{
				Covered: status.Count(summary.Covered), Violating: status.Count(summary.Violating),
				Unchecked: status.Count(summary.Unchecked),
				WouldDeny: status.Count(summary.WouldDeny),
			},
			Violations: r.ledger.first(summary.Findings),
		}
		for _, b := range summary.BreakGlass[:min(len(summary.BreakGlass), maxListed)] {
			s.BreakGlass = append(s.BreakGlass, v1alpha1.BreakGlass{Namespace: b.Namespace, Reason: b.Reason})
		}
		s.Compliant, s.Reason, s.Message = compliant(&summary)
		states[name] = s
	}
	return states
}
