package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/store"
)

// Primer marks the store as primed once every ImagePolicy and TrustRoot that exists at the start is in it. It runs on
// every replica, for all of them serve admission.
type Primer struct {
	Client client.Reader
	Store  *store.Store
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (Primer) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable.
func (p Primer) Start(ctx context.Context) error {
	err := wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, p.complete)
	if errors.Is(err, context.Canceled) {
		return nil // the manager stops
	}
	if err != nil {
		return fmt.Errorf("waiting for the policies that exist: %w", err)
	}
	p.Store.MarkPrimed()
	ctrl.LoggerFrom(ctx).Info("Published everything that existed at the start")
	return nil
}

// complete says whether everything that the cache holds is published.
func (p Primer) complete(ctx context.Context) (bool, error) {
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
