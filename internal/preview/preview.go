// Package preview decides as the gate would, in the process of the command line.
//
// An Engine has the manager's own parts: its store, its tracker, its formats, and its decision. It
// is filled once, from ImagePolicies and TrustRoots that the caller has read from files or from a
// cluster. It changes nothing in a cluster, and keeps nothing when the process ends. A TrustRoot
// that is missing or cannot be used denies the scope of its policies, as in the manager.
//
// Two things differ from the manager. Registry credentials beside those of the TrustRoots come from
// Docker's configuration, where the manager may use pull secrets. And the user has time: a decision
// waits for slow servers until the Engine's timeout, instead of the deadline of a webhook.
package preview

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/clock"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/decision"
	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/formats"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trustroot"
)

const (
	// defaultTimeout is the time for one call of Decide, if Options has none.
	defaultTimeout = 30 * time.Second
	// imagesAtOnce is how many images are decided on together. The decision fetches at most 32 new
	// images for one request, and one list of images is many requests.
	imagesAtOnce = 16
	// requestsAtOnce is how many of these are decided on at the same time.
	requestsAtOnce = 4
	// maxEvidence bounds the memory of verified evidence: 1 GiB, as in a manager without a limit.
	maxEvidence = 1 << 30
)

// Options are what an Engine decides from.
type Options struct {
	Source
	// Settings are those of the manager.
	Settings flags.Settings
	// Timeout is the time for one call of Decide; 30 s if it is not positive.
	Timeout time.Duration
	// Docker returns the credentials of Docker's configuration. Nil: of the user's own.
	Docker Docker
}

// Engine decides on images as the gate would. Make it with New. It is safe for concurrent use.
type Engine struct {
	// Store holds the policies, the trust roots, and the evidence that decisions have fetched. It
	// must not be changed.
	Store *store.Store
	// Tracker fetches evidence into the Store.
	Tracker *store.Tracker
	// Clock is the time for expiry.
	Clock clock.PassiveClock
	// Source and Settings are those of Options.
	Source   Source
	Settings flags.Settings
	// Exempt are the namespaces for which the API server does not call the gate.
	Exempt flags.Exempt

	timeout time.Duration
}

// New returns an Engine. It reads what the TrustRoots refer to, and sends no other request. Of what
// is wrong with a policy or a TrustRoot, only the decisions that depend on it show. So the error is
// one of the Reader, but not that the user may not read an object: that makes the TrustRoot
// unusable.
func New(ctx context.Context, o Options) (*Engine, error) {
	now := clock.RealClock{}
	docker := o.Docker
	if docker == nil {
		docker = UserDocker
	}
	s := store.New(store.Options{
		Uncovered: o.Settings.Uncovered, ShortNames: o.Settings.ReadShortNames(o.OpenShift), MaxSize: maxEvidence,
	})
	e := &Engine{
		Store: s, Tracker: store.NewTracker(s, now, func(string) {}), Clock: now, Source: o.Source,
		Settings: o.Settings, Exempt: o.Settings.Exempt(o.OpenShift), timeout: o.Timeout,
	}
	if e.timeout <= 0 {
		e.timeout = defaultTimeout
	}
	for _, p := range o.ImagePolicies {
		compiled, _ := policy.Compile(p.Name, &p.Spec) // an invalid policy denies its scope, with the reason
		s.PutPolicy(compiled, "1")
	}
	builder := trustroot.Builder{
		Reader: o.Reader, Namespace: o.Settings.Namespace, Formats: formats.All(formats.Options{
			Hosts: registry.NewHosts(time.Now), Budget: budget.New(budget.Default), Keychain: keychain{docker},
			NotaryAccount: docker.serverAccount,
		}),
	}
	if err := publish(ctx, s, &builder, o.TrustRoots); err != nil {
		return nil, err
	}
	s.MarkPrimed()
	return e, nil
}

// publish builds the trust roots and puts them into the store.
func publish(ctx context.Context, s *store.Store, builder *trustroot.Builder, roots []*v1alpha1.TrustRoot) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(requestsAtOnce)
	for _, tr := range roots {
		g.Go(func() error {
			material, err := builder.Gather(ctx, tr)
			if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
				material.Missing = trust.NewFault(v1alpha1.ReasonReferenceNotFound,
					"you may not read what the trust root refers to: %w; get that right, or check by files alone "+
						"with --policies", err)
			} else if err != nil {
				return fmt.Errorf("TrustRoot %q: %w", tr.Name, err)
			}
			root := builder.Build(tr, material)
			root.UID, root.Version = tr.UID, "1"
			s.PutRoot(tr.Name, root)
			return nil
		})
	}
	return g.Wait()
}

// NamespaceLabels returns the labels of a namespace as the API server completes them.
func NamespaceLabels(namespace string, set labels.Set) labels.Set {
	all := maps.Clone(set)
	if all == nil {
		all = labels.Set{}
	}
	all[corev1.LabelMetadataName] = namespace
	return all
}

// Decide decides on each distinct image in a namespace with these labels, until the Engine's
// timeout or the end of ctx. What was not fetched by then could not be checked. Decide does not
// look at whether the namespace is exempt, nor at break-glass. The error is that of a ctx that has
// ended, or says that no decision was possible.
func (e *Engine) Decide(ctx context.Context, namespace string, set labels.Set, images []string) (decision.Set, error) {
	timed, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	set = NamespaceLabels(namespace, set)
	distinct := slices.Clone(images)
	slices.Sort(distinct)
	distinct = slices.Compact(distinct)
	decider := decision.Decider{Store: e.Store, Tracker: e.Tracker, Clock: e.Clock}
	var mu sync.Mutex
	all := make(decision.Set, len(distinct))
	var g errgroup.Group
	g.SetLimit(requestsAtOnce)
	for some := range slices.Chunk(distinct, imagesAtOnce) {
		g.Go(func() error {
			decided, err := decider.Decide(timed, namespace, set, some)
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(all, decided)
			return err
		})
	}
	return all, errors.Join(g.Wait(), ctx.Err())
}
