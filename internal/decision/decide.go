// Package decision decides about images, and fetches the evidence that a decision needs until a
// deadline. The admission handlers and the command line share it.
package decision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/clock"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/text"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxConcurrentFetches is how many subjects are fetched or queued at the same time for one
	// request.
	maxConcurrentFetches = 32
	// maxNewImages is how many images of one request are fetched that are not loaded. A Pod may
	// name hundreds; a retry continues with the next ones.
	maxNewImages = 32
)

// errTooManyNew says that an image of a request was not fetched.
var errTooManyNew = fmt.Errorf("one request fetches at most %d images that are not loaded; a retry fetches the next "+
	"ones", maxNewImages)

// errNotPrimed says that some policies are not loaded yet. One of them may deny the image.
var errNotPrimed = errors.New("the policies are still being loaded")

// Set is the decisions on images, by reference as it is written.
type Set map[string]policy.Decision

// Unpinned returns the warning about an image that is admitted for a digest which its reference
// does not name, and which no policy pins; empty: the image is not one.
func Unpinned(image string, d policy.Decision) string {
	if d.Verdict != policy.Admitted || d.Digest == "" || d.Image.Digest != "" || d.Pin != v1alpha1.PinNone {
		return ""
	}
	return fmt.Sprintf("image %q: verified as %s and not pinned to it (pinDigests: None): the node asks the registry "+
		"again what the tag means", image, text.Cut(d.Digest, len("sha256:")+8+len("...")))
}

// Decider decides from a store, and fetches through its tracker.
type Decider struct {
	// Store holds the snapshot from which the Decider decides.
	Store *store.Store
	// Tracker fetches evidence that the snapshot lacks.
	Tracker *store.Tracker
	// Clock is the time for expiry.
	Clock clock.PassiveClock
}

// requestState is the state of one request during the decision.
type requestState struct {
	name      string // of the namespace
	namespace labels.Set
	arrived   time.Time
	// failed are the fetches for the request that failed.
	failed map[trust.Key]error
	// fetched are the images that load has fetched so far, at most maxNewImages.
	fetched map[string]bool
}

// Decide decides on each distinct image in a namespace, all from one snapshot, until ctx ends.
//
// If evidence is not loaded, or the answer about a tag is too old, Decide fetches it and decides
// again. Before a denial it refreshes the evidence that the denial depends on, and decides again.
// The result may depend on further evidence, as of the digest to which a tag has moved, so Decide
// repeats both until nothing is left to fetch. If a refresh fails, the result is "could not check"
// and not a denial. An error says that no decision was possible.
func (r *Decider) Decide(ctx context.Context, namespace string, labels labels.Set, images []string) (Set, error) {
	arrived := r.Clock.Now()
	ctx = trust.WithPurpose(ctx, trust.Purpose{Namespace: namespace})
	a := &requestState{name: namespace, namespace: labels, arrived: arrived, fetched: map[string]bool{}}
	decided, err := r.evaluate(a, images)
	if err != nil {
		return nil, err
	}
	renew := func(ctx context.Context, k trust.Key) error { return r.Tracker.Renew(ctx, k, arrived) }
	for renewed := map[trust.Key]bool{}; ; {
		if len(decided.subjects(notLoaded)) > 0 {
			r.load(ctx, a, decided)
			if decided, err = r.evaluate(a, images); err != nil {
				return nil, err
			}
		}
		used := decided.subjects(consulted)
		maps.DeleteFunc(used, func(k trust.Key, _ bool) bool { return renewed[k] || a.failed[k] != nil })
		if len(used) == 0 {
			break
		}
		maps.Copy(renewed, used)
		a.fail(fetchAll(ctx, used, renew))
		if decided, err = r.evaluate(a, images); err != nil {
			return nil, err
		}
	}
	decided.notRenewed(a.failed)
	decided.explainNotLoaded(a.failed)
	return decided, nil
}

// fail adds fetches that failed.
func (a *requestState) fail(failed map[trust.Key]error) {
	if a.failed == nil {
		a.failed = map[trust.Key]error{}
	}
	maps.Copy(a.failed, failed)
}

// explainNotLoaded adds the errors of load to the decisions that still lack evidence: for example
// that the server is down, so that the operator sent it no request.
func (ds Set) explainNotLoaded(failed map[trust.Key]error) {
	for image, d := range ds {
		if d.Verdict != policy.CouldNotCheck {
			continue
		}
		for _, k := range d.NotLoaded {
			err, root := failed[k], k.Root
			if err == nil {
				continue
			}
			d.Message += fmt.Sprintf("; TrustRoot %q: %v", root, err)
			d.Outcomes = slices.Clone(d.Outcomes)
			for i := range d.Outcomes {
				if o := &d.Outcomes[i]; o.Reason == v1alpha1.ReasonNotLoaded && slices.Contains(o.Roots, root) {
					o.Reason = trust.AsFault(err, v1alpha1.ReasonNotLoaded).Reason
				}
			}
		}
		ds[image] = d
	}
}

// notRenewed turns a denial into "could not check" if the refresh of its evidence failed: the image
// may have been signed since the last refresh.
func (ds Set) notRenewed(failed map[trust.Key]error) {
	for image, d := range ds {
		if d.Verdict != policy.Denied {
			continue
		}
		for _, k := range d.Consulted {
			if err := failed[k]; err != nil && !hasTenant(d.Consulted, k) {
				d.Verdict = policy.CouldNotCheck
				d.Message += fmt.Sprintf("; TrustRoot %q could not be asked for newer signatures: %v", k.Root, err)
				d.Outcomes = outcomesNotRenewed(d.Outcomes, k.Root, err)
			}
		}
		ds[image] = d
	}
}

// hasTenant reports whether one of the subjects is k as pull secrets read it. The refresh of k
// itself may then fail: the decision depends on the other one.
func hasTenant(all []trust.Key, k trust.Key) bool {
	return slices.ContainsFunc(all, func(other trust.Key) bool {
		tenant := other.Tenant
		other.Tenant = k.Tenant
		return tenant != k.Tenant && other == k
	})
}

// outcomesNotRenewed returns the outcomes in which each denial that depends on the trust root is
// turned into "could not check". Outcomes of policies in mode Warn and Audit do not deny, and stay.
func outcomesNotRenewed(outcomes []policy.Outcome, root string, err error) []policy.Outcome {
	outcomes = slices.Clone(outcomes)
	for i := range outcomes {
		o := &outcomes[i]
		advises := o.Mode == v1alpha1.ModeWarn || o.Mode == v1alpha1.ModeAudit
		if !advises && o.Verdict == policy.Denied && slices.Contains(o.Roots, root) {
			o.Verdict, o.Reason = policy.CouldNotCheck, trust.AsFault(err, v1alpha1.ReasonTimeout).Reason
		}
	}
	return outcomes
}

// evaluate decides on each distinct image from the current snapshot, without the network.
func (r *Decider) evaluate(a *requestState, images []string) (Set, error) {
	snapshot := r.Store.Load()
	if snapshot == nil || snapshot.Policies == nil || !snapshot.Primed {
		return nil, errNotPrimed
	}
	now := r.Clock.Now()
	decided := make(Set, len(images))
	for _, image := range images {
		if _, done := decided[image]; !done {
			decided[image] = snapshot.Policies.Decide(policy.Request{
				Image: image, Namespace: a.name, NamespaceLabels: a.namespace, Now: now, Arrived: a.arrived,
				Failed: a.failed,
			}, snapshot)
		}
	}
	return decided, nil
}
