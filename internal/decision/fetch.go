package decision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

// load fetches the evidence that the decisions lack, until all fetches have ended or ctx ends. It
// adds those that fail to the request, and fetches none again that has failed.
//
// After each fetch it decides again on the images that lacked this subject, because a decision may
// then need another one: the digest of a tag first, then who has signed that digest. So one slow
// server does not delay the others. A denial waits for none: only policies in mode Warn and Audit
// lack evidence then, and if they used up the deadline, the denial could not be confirmed.
func (r *Decider) load(ctx context.Context, a *requestState, decided Set) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ensure := func(ctx context.Context, k trust.Key) error { return r.Tracker.EnsureFor(ctx, k, a.arrived) }
	incomplete := r.toLoad(a, decided)
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
			r.reevaluate(a, incomplete, f.key)
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
func (r *Decider) toLoad(a *requestState, decided Set) (incomplete Set) {
	incomplete = maps.Clone(decided)
	maps.DeleteFunc(incomplete, func(_ string, d policy.Decision) bool { return len(d.NotLoaded) == 0 })
	snapshot := r.Store.Load()
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
func (r *Decider) reevaluate(a *requestState, incomplete Set, k trust.Key) {
	for image, d := range incomplete {
		if !slices.Contains(d.NotLoaded, k) {
			continue
		}
		delete(incomplete, image)
		if again, err := r.evaluate(a, []string{image}); err == nil &&
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
func (ds Set) subjects(list func(policy.Decision) []trust.Key) map[trust.Key]bool {
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
	defer recoverPanic(ctx, &err)
	if ctx.Err() != nil {
		return ctx.Err() // the request has ended: a fetch would only delay other requests
	}
	if err = fetch(ctx, k); err != nil {
		logf.FromContext(ctx).V(1).Info("Could not refresh the evidence",
			"trustRoot", k.Root, "subject", k.String(), "cause", err.Error())
	}
	return err
}

// recoverPanic recovers from a panic, logs it, and makes it the error. It must be deferred.
func recoverPanic(ctx context.Context, err *error) {
	if cause := recover(); cause != nil {
		*err = fmt.Errorf("panic: %v", cause)
		logf.FromContext(ctx).Error(*err, "Recovered from a panic", "stack", string(debug.Stack()))
	}
}
