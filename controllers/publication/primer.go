// Package publication brings ImagePolicies and TrustRoots into the store that admission decides
// from, on every replica, and reports in their status how that went, on the leader. A Primer says
// when all that existed at the start is there. Nothing here decides about an image.
package publication

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// loadTimeout bounds how long a replica waits, before it is ready, for what runs to be loaded.
	loadTimeout = 20 * time.Second
	// loadsAtOnce is how many repositories it waits for at the same time.
	loadsAtOnce = 32
)

// Primer marks the store as primed once every ImagePolicy and TrustRoot that exists at the start is
// in it, with what was written down. Then it loads the repositories of what runs that are still
// unknown. It runs on every replica, for all of them serve admission.
type Primer struct {
	// Client reads the cache.
	Client  client.Reader
	Store   *store.Store
	Tracker *store.Tracker
	// Running says what the images that run are checked against.
	Running Needs

	loaded atomic.Bool
}

// Needs says what the images that run are checked against.
type Needs interface {
	// Missing returns the subjects among it of which nothing is known.
	Missing(ctx context.Context) ([]trust.Key, error)
}

// SetupWithManager has the manager run the primer. The replica is ready when it can decide.
func (p *Primer) SetupWithManager(mgr ctrl.Manager) error {
	return errors.Join(
		mgr.Add(p),
		mgr.AddReadyzCheck("policies", func(*http.Request) error { return p.Ready() }),
	)
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

// load fetches what the images that run are checked against and of which nothing is known. What
// fails is reported by the tracker, and a server that hangs is waited for no longer than
// loadTimeout.
func (p *Primer) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	missing, err := p.Running.Missing(ctx)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(loadsAtOnce)
	for _, k := range missing {
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
