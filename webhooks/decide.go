package webhooks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

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

// fetchesAtOnce bounds how many subjects one request waits for at the same time.
const fetchesAtOnce = 32

// errNotPrimed says that the policies are not all known yet; the one that would deny may be among
// those missing.
var errNotPrimed = errors.New("the policies are still being loaded")

// decisions are by image, as the workload has it.
type decisions map[string]policy.Decision

// decide decides on each distinct image, all from one snapshot. Where evidence is not loaded it is
// fetched and all is decided anew, and before a denial stands the evidence that it rests on is
// brought up to date, both within the deadline; where that fails the denial is no verdict. An error
// says that nothing could be decided.
func (g *Gate) decide(ctx context.Context, namespace string, images []workload.Image) (decisions, error) {
	if len(images) == 0 {
		return nil, nil
	}
	arrived := g.Clock.Now()
	ctx, cancel := context.WithTimeout(ctx, g.deadline())
	defer cancel()
	set, err := g.namespaceLabels(ctx, namespace)
	if err != nil {
		return nil, err
	}
	decided, err := g.ask(set, images)
	if err != nil {
		return nil, err
	}
	var missing map[trust.Key]error
	if len(decided.needs(notLoaded)) > 0 {
		missing = g.load(ctx, set, decided)
		if decided, err = g.ask(set, images); err != nil {
			return nil, err
		}
	}
	if need := decided.needs(consulted); len(need) > 0 {
		failed := fetch(ctx, need, func(ctx context.Context, k trust.Key) error {
			return g.Tracker.Renew(ctx, k, arrived)
		})
		if decided, err = g.ask(set, images); err != nil {
			return nil, err
		}
		decided.doubt(failed)
	}
	decided.unloaded(missing)
	return decided, nil
}

// unloaded says of what is still not loaded why: the server is down, say, so that nothing was asked
// of it.
func (ds decisions) unloaded(failed map[trust.Key]error) {
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

// doubt turns a verdict that rests on evidence which could not be brought up to date into "could
// not check": the image may have been signed since.
func (ds decisions) doubt(failed map[trust.Key]error) {
	for image, d := range ds {
		if d.Verdict != policy.Denied {
			continue
		}
		for _, k := range d.Consulted {
			if err := failed[k]; err != nil {
				d.Verdict = policy.CouldNotCheck
				d.Message += fmt.Sprintf("; TrustRoot %q could not be asked for newer signatures: %v", k.Root, err)
				d.Outcomes = doubted(d.Outcomes, k.Root, err)
			}
		}
		ds[image] = d
	}
}

// doubted returns the outcomes with those turned into "could not check" on which a denial rests,
// and which rest on the trust root.
func doubted(outcomes []policy.Outcome, root string, err error) []policy.Outcome {
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

// namespaceLabels returns the labels of a namespace, which decide what policies hold in it. Without
// them nothing can be decided: no labels would mean fewer policies.
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

// ask decides on each distinct image from the current snapshot, without a network.
func (g *Gate) ask(namespace labels.Set, images []workload.Image) (decisions, error) {
	snapshot := g.Store.Load()
	if snapshot == nil || snapshot.Policies == nil || !snapshot.Primed {
		return nil, errNotPrimed
	}
	now := g.Clock.Now()
	decided := make(decisions, len(images))
	for _, i := range images {
		if _, done := decided[i.Image]; !done {
			decided[i.Image] = snapshot.Policies.Decide(
				policy.Request{Image: i.Image, NamespaceLabels: namespace, Now: now}, snapshot)
		}
	}
	return decided, nil
}

// load fetches what the decisions lack until nothing more comes or ctx is over. As something comes,
// it decides anew on the images that lacked it: what a tag means has to be known before it can be
// asked who has signed that, and whoever hangs must not hold up the rest. It returns what went
// wrong.
func (g *Gate) load(ctx context.Context, namespace labels.Set, decided decisions) map[trust.Key]error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	lacking := maps.Clone(decided)
	maps.DeleteFunc(lacking, func(_ string, d policy.Decision) bool { return len(d.NotLoaded) == 0 })
	places, arrivals := make(chan struct{}, fetchesAtOnce), make(chan fetched)
	started, ended := map[trust.Key]bool{}, map[trust.Key]bool{}
	failed := map[trust.Key]error{}
	for {
		waits := false
		for k := range lacking.needs(notLoaded) {
			if !started[k] {
				started[k] = true
				go fetchOne(ctx, k, g.Tracker.Ensure, places, arrivals)
			}
			waits = waits || !ended[k]
		}
		if !waits {
			return failed
		}
		select {
		case f := <-arrivals:
			if ended[f.key] = true; f.err != nil {
				failed[f.key] = f.err
			}
			g.askAgain(namespace, lacking, f.key)
		case <-ctx.Done():
			for k := range started {
				if !ended[k] {
					failed[k] = fmt.Errorf("waiting for %s under TrustRoot %q: %w", k.Subject, k.Root, ctx.Err())
				}
			}
			return failed
		}
	}
}

// askAgain decides anew on the images that lacked a subject.
func (g *Gate) askAgain(namespace labels.Set, lacking decisions, k trust.Key) {
	for image, d := range lacking {
		if !slices.Contains(d.NotLoaded, k) {
			continue
		}
		delete(lacking, image)
		if again, err := g.ask(namespace, []workload.Image{{Image: image}}); err == nil &&
			len(again[image].NotLoaded) > 0 {
			lacking[image] = again[image]
		}
	}
}

// fetched is a subject that the tracker has seen to, and what went wrong.
type fetched struct {
	key trust.Key
	err error
}

// fetchOne has the tracker see to a subject, once there is a place.
func fetchOne(ctx context.Context, k trust.Key, see func(context.Context, trust.Key) error, places chan struct{},
	arrivals chan<- fetched) {
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
	case <-ctx.Done():
		return
	}
	select {
	case arrivals <- fetched{k, seeTo(ctx, k, see)}:
	case <-ctx.Done():
	}
}

func notLoaded(d policy.Decision) []trust.Key { return d.NotLoaded }

func consulted(d policy.Decision) []trust.Key { return d.Consulted }

// needs returns the subjects that are named by a part of the decisions.
func (ds decisions) needs(of func(policy.Decision) []trust.Key) map[trust.Key]bool {
	need := map[trust.Key]bool{}
	for _, d := range ds {
		for _, k := range of(d) {
			need[k] = true
		}
	}
	return need
}

// fetch has the tracker see to each subject, at the same time, until all is done or ctx is over,
// and returns what went wrong.
func fetch(ctx context.Context, need map[trust.Key]bool,
	see func(context.Context, trust.Key) error) map[trust.Key]error {
	var group errgroup.Group
	group.SetLimit(fetchesAtOnce)
	var mu sync.Mutex
	failed := map[trust.Key]error{}
	for k := range need {
		group.Go(func() error {
			if err := seeTo(ctx, k, see); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[k] = err
			}
			return nil
		})
	}
	_ = group.Wait() // what went wrong is in failed
	return failed
}

func seeTo(ctx context.Context, k trust.Key, see func(context.Context, trust.Key) error) (err error) {
	defer recovered(ctx, func(cause any) { err = fmt.Errorf("panic: %v", cause) })
	if ctx.Err() != nil {
		return ctx.Err() // nobody waits any more: a fetch begun now would only be in the way of others
	}
	if err = see(ctx, k); err != nil {
		logf.FromContext(ctx).V(1).Info("Could not bring the evidence up to date",
			"trustRoot", k.Root, "subject", k.String(), "cause", err.Error())
	}
	return err
}
