// Package publication publishes ImagePolicies and TrustRoots to the store that admission decides
// from, on every replica. On the leader it reports in their status whether they are in force. A
// Primer reports when everything that existed at the start is published. Nothing here decides on an
// image.
package publication

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
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
	// loadTimeout bounds how long a replica that starts waits for the evidence of what runs.
	loadTimeout = 20 * time.Second
	// loadsAtOnce is how many subjects it fetches at the same time.
	loadsAtOnce = 32
)

// Primer marks the store as primed once every ImagePolicy and TrustRoot that exists at the start is
// published, with its records. Then it loads the missing evidence for the images that run. It runs
// on every replica, because every replica serves admission.
type Primer struct {
	// Client reads the cache.
	Client  client.Reader
	Store   *store.Store
	Tracker *store.Tracker
	// Running returns the subjects that the images that run need.
	Running Needs

	loaded atomic.Bool
}

// Needs returns what the decisions on running images need.
type Needs interface {
	// Missing returns the needed subjects without evidence.
	Missing(ctx context.Context) ([]trust.Key, error)
}

// SetupWithManager adds the primer and its readiness check to the manager.
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
	debug.FreeOSMemory() // verifying everything at once took more than keeping it does
	return nil
}

// Ready returns an error until the replica can decide.
func (p *Primer) Ready() error {
	switch {
	case !p.Store.Load().Primed:
		return errors.New("the policies that exist are not published yet")
	case !p.loaded.Load():
		return errors.New("the signatures of what runs are still being loaded")
	}
	return nil
}

// load fetches the missing subjects for the images that run. The tracker reports failures. load
// waits no longer than loadTimeout, so that a server that hangs does not keep the replica from
// being ready.
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
				_ = p.Tracker.Ensure(ctx, k) // the tracker reports failures
			}
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	return ctx.Err()
}

// complete reports whether everything in the cache is published.
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
