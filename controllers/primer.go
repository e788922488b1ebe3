package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/options"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
)

const (
	// loadTimeout bounds how long a replica waits, before it is ready, for what runs to be loaded.
	loadTimeout = 20 * time.Second
	// loadsAtOnce is how many repositories it waits for at the same time.
	loadsAtOnce = 32
	// podsPage is how many Pods are read from the API server at a time.
	podsPage = 500
)

// Primer marks the store as primed once every ImagePolicy and TrustRoot that exists at the start is in it, with what was
// written down. Then it loads the repositories of what runs that are still unknown. It runs on every replica, for all of them serve
// admission.
type Primer struct {
	// Client reads the cache, and Live the Pods, of which none is cached.
	Client, Live client.Reader
	Store        *store.Store
	Tracker      *store.Tracker
	Clock        clock.PassiveClock
	// Exempt namespaces are not looked at.
	Exempt options.Exempt

	loaded atomic.Bool
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*Primer) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable.
func (p *Primer) Start(ctx context.Context) error {
	err := wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, p.complete)
	if errors.Is(err, context.Canceled) {
		return nil // the manager stops
	}
	if err != nil {
		return fmt.Errorf("waiting for the policies that exist: %w", err)
	}
	p.Store.MarkPrimed()
	ctrl.LoggerFrom(ctx).Info("Published everything that existed at the start")
	if err := p.load(ctx); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not load everything that runs; it is fetched when it is asked for")
	}
	p.loaded.Store(true)
	return nil
}

// Ready says why the replica is not ready to decide; nil: it is.
func (p *Primer) Ready() error {
	switch {
	case !p.Store.Load().Primed:
		return errors.New("the policies that exist are not published yet")
	case !p.loaded.Load():
		return errors.New("the signatures of what runs are still being loaded")
	}
	return nil
}

// load fetches what the images that run are checked against and of which nothing is known. What fails is reported by the
// tracker, and a server that hangs is waited for no longer than loadTimeout.
func (p *Primer) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	pods, err := p.running(ctx)
	if err != nil {
		return err
	}
	snapshot := p.Store.Load()
	in, err := evaluationInput(ctx, p.Client, snapshot, p.Exempt, p.Clock.Now())
	if err != nil {
		return err
	}
	in.Pods = pods
	var g errgroup.Group
	g.SetLimit(loadsAtOnce)
	for _, k := range compliance.Evaluate(in).Needs {
		if _, _, err := snapshot.Evidence(k); !errors.Is(err, policy.ErrNotLoaded) {
			continue
		}
		g.Go(func() error {
			if ctx.Err() == nil {
				_ = p.Tracker.Ensure(ctx, k) // what failed is in the tracker
			}
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	return ctx.Err()
}

// running returns the Pods that have not ended, of namespaces that are not exempt.
func (p *Primer) running(ctx context.Context) ([]compliance.Pod, error) {
	var pods []compliance.Pod
	page := &corev1.PodList{}
	for {
		err := p.Live.List(ctx, page, client.MatchingFieldsSelector{Selector: podSelector(p.Exempt)}, client.Limit(podsPage), client.Continue(page.Continue))
		if err != nil {
			return nil, fmt.Errorf("listing the Pods that run: %w", err)
		}
		for i := range page.Items {
			pods = append(pods, compliance.NewPod(&page.Items[i]))
		}
		if page.Continue == "" {
			return pods, nil
		}
	}
}

// complete says whether everything that the cache holds is published.
func (p *Primer) complete(ctx context.Context) (bool, error) {
	policies, roots := &v1alpha1.ImagePolicyList{}, &v1alpha1.TrustRootList{}
	if err := p.Client.List(ctx, policies); err != nil {
		return false, err
	}
	if err := p.Client.List(ctx, roots); err != nil {
		return false, err
	}
	snapshot := p.Store.Load()
	for i := range policies.Items {
		if snapshot.PolicyVersion(policies.Items[i].Name) == "" {
			return false, nil
		}
	}
	for i := range roots.Items {
		if snapshot.Root(roots.Items[i].Name) == nil {
			return false, nil
		}
	}
	return true, nil
}
