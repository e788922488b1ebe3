package webhooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/workload"
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

// decisions are the decisions on images, by reference as the workload has it.
type decisions map[string]policy.Decision

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

// decide decides on each distinct image, all from one snapshot, until ctx ends.
//
// If evidence is not loaded, or the answer about a tag is too old, decide fetches it and decides
// again. Before a denial it refreshes the evidence that the denial depends on, and decides again.
// The result may depend on further evidence, as of the digest to which a tag has moved, so decide
// repeats both until nothing is left to fetch. If a refresh fails, the result is "could not check"
// and not a denial. An error says that no decision was possible.
func (g *Gate) decide(ctx context.Context, namespace string, images []workload.Image) (decisions, error) {
	if len(images) == 0 {
		return nil, nil
	}
	arrived := g.Clock.Now()
	ctx = trust.WithPurpose(ctx, trust.Purpose{Namespace: namespace})
	set, err := g.namespaceLabels(ctx, namespace)
	if err != nil {
		return nil, err
	}
	a := &requestState{name: namespace, namespace: set, arrived: arrived, fetched: map[string]bool{}}
	decided, err := g.evaluate(a, images)
	if err != nil {
		return nil, err
	}
	renew := func(ctx context.Context, k trust.Key) error { return g.Tracker.Renew(ctx, k, arrived) }
	for renewed := map[trust.Key]bool{}; ; {
		if len(decided.subjects(notLoaded)) > 0 {
			g.load(ctx, a, decided)
			if decided, err = g.evaluate(a, images); err != nil {
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
		if decided, err = g.evaluate(a, images); err != nil {
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
func (ds decisions) explainNotLoaded(failed map[trust.Key]error) {
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
func (ds decisions) notRenewed(failed map[trust.Key]error) {
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

// namespaceLabels returns the labels of a namespace, by which policies select it. If the read
// fails, no decision is possible: with empty labels fewer policies would hold.
func (g *Gate) namespaceLabels(ctx context.Context, name string) (labels.Set, error) {
	var namespace corev1.Namespace
	key := types.NamespacedName{Name: name}
	err := g.Namespaces.Get(ctx, key, &namespace)
	if apierrors.IsNotFound(err) {
		err = g.LiveNamespaces.Get(ctx, key, &namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the labels of namespace %q: %w", name, err)
	}
	return namespace.Labels, nil
}

// evaluate decides on each distinct image from the current snapshot, without the network.
func (g *Gate) evaluate(a *requestState, images []workload.Image) (decisions, error) {
	snapshot := g.Store.Load()
	if snapshot == nil || snapshot.Policies == nil || !snapshot.Primed {
		return nil, errNotPrimed
	}
	now := g.Clock.Now()
	decided := make(decisions, len(images))
	for _, i := range images {
		if _, done := decided[i.Image]; !done {
			decided[i.Image] = snapshot.Policies.Decide(policy.Request{
				Image: i.Image, Namespace: a.name, NamespaceLabels: a.namespace, Now: now, Arrived: a.arrived,
				Failed: a.failed,
			}, snapshot)
		}
	}
	return decided, nil
}

// load fetches the evidence that the decisions lack, until all fetches have ended or ctx ends. It
// adds those that fail to the request, and fetches none again that has failed.
//
// After each fetch it decides again on the images that lacked this subject, because a decision may
// then need another one: the digest of a tag first, then who has signed that digest. So one slow
// server does not delay the others. A denial waits for none: only policies in mode Warn and Audit
// lack evidence then, and if they used up the deadline, the denial could not be confirmed.
func (g *Gate) load(ctx context.Context, a *requestState, decided decisions) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ensure := func(ctx context.Context, k trust.Key) error { return g.Tracker.EnsureFor(ctx, k, a.arrived) }
	incomplete := g.toLoad(a, decided)
	semaphore, results := make(chan struct{}, maxConcurrentFetches), make(chan fetchResult)
	started, ended := map[trust.Key]bool{}, map[trust.Key]bool{}
	for {
		inFlight := false
		for _, d := range incomplete {
			for _, k := range d.NotLoaded {
				if a.failed[k] != nil {
					continue
				}
				if !started[k] {
					started[k] = true
					go fetchInto(ctx, k, ensure, semaphore, results)
				}
				inFlight = inFlight || !ended[k] && d.Verdict != policy.Denied
			}
		}
		if !inFlight {
			return
		}
		select {
		case f := <-results:
			if ended[f.key] = true; f.err != nil {
				a.fail(map[trust.Key]error{f.key: f.err})
			}
			g.reevaluate(a, incomplete, f.key)
		case <-ctx.Done():
			for k := range started {
				if !ended[k] {
					a.fail(map[trust.Key]error{
						k: fmt.Errorf("waiting for %s under TrustRoot %q: %w", k.Subject, k.Root, ctx.Err()),
					})
				}
			}
			return
		}
	}
}

// toLoad returns the decisions that lack evidence. Of those with subjects that the store does not
// know at all, it returns at most maxNewImages images in the whole request, and adds an error for
// each subject that only others lack. Denied images come last: their denial does not depend on what
// they lack.
func (g *Gate) toLoad(a *requestState, decided decisions) (incomplete decisions) {
	incomplete = maps.Clone(decided)
	maps.DeleteFunc(incomplete, func(_ string, d policy.Decision) bool { return len(d.NotLoaded) == 0 })
	snapshot := g.Store.Load()
	unknown := func(k trust.Key) bool { // else its answer about a tag is too old
		_, _, err := snapshot.Evidence(k)
		return errors.Is(err, policy.ErrNotLoaded)
	}
	images := slices.SortedFunc(maps.Keys(incomplete), func(a, b string) int {
		last := func(image string) int {
			if decided[image].Verdict == policy.Denied {
				return 1
			}
			return 0
		}
		return cmp.Or(last(a)-last(b), strings.Compare(a, b))
	})
	beyond := map[trust.Key]error{}
	for _, image := range images {
		d := incomplete[image]
		switch {
		case a.fetched[image], !slices.ContainsFunc(d.NotLoaded, unknown):
		case len(a.fetched) < maxNewImages:
			a.fetched[image] = true
		default:
			for _, k := range d.NotLoaded {
				beyond[k] = errTooManyNew
			}
			delete(incomplete, image)
		}
	}
	for _, k := range slices.Collect(maps.Keys(incomplete.subjects(notLoaded))) {
		delete(beyond, k)
	}
	a.fail(beyond)
	return incomplete
}

// reevaluate decides again on the images that lacked a subject, and keeps those in incomplete that
// lack evidence still.
func (g *Gate) reevaluate(a *requestState, incomplete decisions, k trust.Key) {
	for image, d := range incomplete {
		if !slices.Contains(d.NotLoaded, k) {
			continue
		}
		delete(incomplete, image)
		if again, err := g.evaluate(a, []workload.Image{{Image: image}}); err == nil &&
			len(again[image].NotLoaded) > 0 {
			incomplete[image] = again[image]
		}
	}
}

// fetchResult is the result of the fetch of one subject.
type fetchResult struct {
	key trust.Key
	err error
}

// fetchFunc is a method of the tracker that fetches or refreshes one subject.
type fetchFunc func(context.Context, trust.Key) error

// fetchInto fetches a subject under the semaphore, and sends the result unless ctx ends first.
func fetchInto(ctx context.Context, k trust.Key, fetch fetchFunc, semaphore chan struct{},
	results chan<- fetchResult) {
	select {
	case semaphore <- struct{}{}:
		defer func() { <-semaphore }()
	case <-ctx.Done():
		return
	}
	select {
	case results <- fetchResult{k, fetchOne(ctx, k, fetch)}:
	case <-ctx.Done():
	}
}

func notLoaded(d policy.Decision) []trust.Key { return d.NotLoaded }

func consulted(d policy.Decision) []trust.Key { return d.Consulted }

// subjects returns the subjects that list names for any of the decisions.
func (ds decisions) subjects(list func(policy.Decision) []trust.Key) map[trust.Key]bool {
	found := map[trust.Key]bool{}
	for _, d := range ds {
		for _, k := range list(d) {
			found[k] = true
		}
	}
	return found
}

// fetchAll fetches subjects concurrently, until all fetches have ended or ctx ends. It returns the
// errors.
func fetchAll(ctx context.Context, subjects map[trust.Key]bool, fetch fetchFunc) map[trust.Key]error {
	var group errgroup.Group
	group.SetLimit(maxConcurrentFetches)
	var mu sync.Mutex
	failed := map[trust.Key]error{}
	for k := range subjects {
		group.Go(func() error {
			if err := fetchOne(ctx, k, fetch); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[k] = err
			}
			return nil
		})
	}
	_ = group.Wait() // the errors are in failed
	return failed
}

// fetchOne fetches one subject. It turns a panic into an error, and logs an error.
func fetchOne(ctx context.Context, k trust.Key, fetch fetchFunc) (err error) {
	defer recoverPanic(ctx, func(cause any) { err = fmt.Errorf("panic: %v", cause) })
	if ctx.Err() != nil {
		return ctx.Err() // the request has ended: a fetch would only delay other requests
	}
	if err = fetch(ctx, k); err != nil {
		logf.FromContext(ctx).V(1).Info("Could not refresh the evidence",
			"trustRoot", k.Root, "subject", k.String(), "cause", err.Error())
	}
	return err
}
