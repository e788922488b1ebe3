package gate

import (
	"context"
	"fmt"
	"strings"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/requests"
)

// endpointPatience is how long the first creation of the webhook configurations waits for a ready
// endpoint. A Service without one by then may never get one, and the gate must not stay open for
// that.
const endpointPatience = time.Minute

// obstacle is why a configuration is not written now, and when to retry; the zero value is none.
type obstacle struct {
	reason, why string
	after       time.Duration
}

// finding is what remains wrong with one configuration after an attempt to correct it.
type finding struct {
	// defect says in which way the configuration narrows the gate; "": it does not.
	defect  string
	missing bool
	obstacle
}

// toCreate returns what forbids the creation of a missing configuration. unread is why the owner
// could not be read.
func (r *Reconciler) toCreate(
	ctx context.Context, both [2]*configuration, unread error,
) (obstacle, error) {
	first := both[0].missing() && both[1].missing() && r.contests[0].wanted == nil && r.contests[1].wanted == nil
	switch {
	case !both[0].missing() && !both[1].missing():
		return obstacle{}, nil
	case apierrors.IsNotFound(unread):
		why := ownerMissing + ", so none is created: apply the installation again"
		return obstacle{reason: v1alpha1.ReasonWebhookOwnerMissing, why: why}, nil
	case unread != nil:
		refused := obstacle{reason: v1alpha1.ReasonConfigurationRefused, why: unread.Error()}
		return refused, nil //nolint:nilerr // the obstacle holds the error
	case !r.Store.Load().Primed:
		const why = "policies and signatures are still being loaded"
		return obstacle{v1alpha1.ReasonPoliciesNotLoaded, why, primedInterval}, nil
	case r.URL == "" && first:
		return r.endpoints(ctx)
	}
	return obstacle{}, nil
}

const (
	ownerMissing = "ClusterRole " + OwnerName + ", which owns the webhook configurations, does not exist"
	// primedInterval is how often the reconciler checks the store until it is primed.
	primedInterval = 100 * time.Millisecond
)

// endpoints makes the first creation wait for a ready endpoint of the Service: without one every
// workload would be refused. A configuration that this process has seen in place is restored
// without a wait.
func (r *Reconciler) endpoints(ctx context.Context) (obstacle, error) {
	ready, err := r.endpointReady(ctx)
	if ready || err != nil {
		return obstacle{}, err
	}
	now := r.Clock.Now()
	if r.waiting.IsZero() {
		r.waiting = now
	}
	left := r.waiting.Add(endpointPatience).Sub(now)
	if left <= 0 {
		ctrl.LoggerFrom(ctx).Info("Waited long enough for an endpoint; until there is one, workloads are refused",
			"service", ServiceName)
		return obstacle{}, nil
	}
	why := fmt.Sprintf("they are created once Service %s/%s has a ready endpoint, or after %s",
		r.Namespace, ServiceName, endpointPatience)
	return obstacle{v1alpha1.ReasonWaitingForEndpoints, why, left}, nil
}

// endpointReady reports whether the Service has a ready endpoint.
func (r *Reconciler) endpointReady(ctx context.Context) (bool, error) {
	slices := &discoveryv1.EndpointSliceList{}
	ofWebhook := client.MatchingLabels{discoveryv1.LabelServiceName: ServiceName}
	if err := r.Client.List(ctx, slices, client.InNamespace(r.Namespace), ofWebhook); err != nil {
		return false, fmt.Errorf("listing the endpoints of Service %s: %w", ServiceName, err)
	}
	for _, s := range slices.Items {
		for _, e := range s.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready { // nil counts as ready, by the API
				return true, nil
			}
		}
	}
	return false, nil
}

// ofService maps the EndpointSlices of the webhook's Service to the only request.
func ofService(_ context.Context, o client.Object) []reconcile.Request {
	if o.GetLabels()[discoveryv1.LabelServiceName] != ServiceName {
		return nil
	}
	return []reconcile.Request{requests.For(ConfigurationName)}
}

// obstacle forbids a write that comes too soon after the last one of a contest.
func (c *contest) obstacle(of *configuration, defect string, now time.Time) obstacle {
	left := c.differs(of.want, defect, now)
	if left <= 0 {
		return obstacle{}
	}
	return obstacle{v1alpha1.ReasonConfigurationContested, contestedWhy, left}
}

// contestedWhy does not name the current delay: each change of a message writes the status of every
// policy.
const contestedWhy = "something keeps changing or deleting it, and it is restored after growing delays of up to 5m"

// inPlace returns the finding on a configuration that is in place. During a contest it counts as
// narrowed all the same: it was a moment ago, and may be again.
func inPlace(c *configuration, rivalry *contest, now time.Time) finding {
	f := finding{}
	f.after = rivalry.stands(c.want, now)
	if rivalry.on() && rivalry.defect != "" {
		f.defect, f.reason, f.why = rivalry.defect, v1alpha1.ReasonConfigurationContested, contestedWhy
	}
	return f
}

// stateOf returns the state that follows from the findings on the mutating and the validating
// configuration.
func stateOf(found [2]finding, noOwner bool) state {
	mutating, validating := found[0], found[1]
	switch {
	case mutating.defect == "" && validating.defect == "" && noOwner:
		message := ownerMissing + ": the garbage collector deletes them, and then nothing is checked at admission; " +
			"apply the installation again"
		return state{true, v1alpha1.ReasonWebhookOwnerMissing, message}
	case mutating.defect == "" && validating.defect == "":
		const message = "the API server asks the webhook about what the policy covers"
		return state{true, v1alpha1.ReasonConfigurationsInPlace, message}
	}
	s := state{reason: validating.reason}
	switch {
	case validating.defect == "":
		s.reason, s.message = mutating.reason, "all is checked at admission, and tags may not be pinned to digests"
	case validating.missing && validating.reason != v1alpha1.ReasonConfigurationContested:
		s.message = "nothing is checked at admission"
	default:
		s.message = "not all is checked at admission"
	}
	var parts []string
	for _, f := range []finding{validating, mutating} {
		if f.defect != "" {
			parts = append(parts, f.defect)
		}
	}
	s.message += ": " + strings.Join(parts, "; ")
	for i, f := range []finding{validating, mutating} {
		if f.defect != "" && (i == 0 || f.why != validating.why || validating.defect == "") {
			s.message += "; " + f.why
		}
	}
	return s
}
