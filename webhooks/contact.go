package webhooks

import (
	"context"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

const (
	// contactInterval is how often the API server is asked for a sign of life, and how long it is
	// waited for.
	contactInterval = 5 * time.Second
	// outOfTouch is for how long a replica may not have heard of the API server until what it
	// decides by counts as old. Restarts of an API server are shorter.
	outOfTouch = time.Minute
)

// Contact knows whether this replica still hears of the API server. An API server that asks a
// replica does not know whether the replica's own way back is cut, so that no edit of a policy or
// trust root arrives there.
type Contact struct {
	// Live reads past the cache.
	Live  client.Reader
	Clock clock.WithTicker

	heard atomic.Pointer[time.Time]
	lost  atomic.Bool // as far as it was told to the log
}

// +kubebuilder:rbac:groups=countersign.dev,resources=imagepolicies,verbs=list

// Start implements manager.Runnable: it asks until ctx ends.
func (c *Contact) Start(ctx context.Context) error {
	ticker := c.Clock.NewTicker(contactInterval)
	defer ticker.Stop()
	for {
		c.ask(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
	}
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*Contact) NeedLeaderElection() bool { return false }

func (c *Contact) ask(ctx context.Context) {
	began := c.Clock.Now()
	asking, cancel := context.WithTimeout(ctx, contactInterval)
	defer cancel()
	err := c.Live.List(asking, &v1alpha1.ImagePolicyList{}, client.Limit(1))
	if err == nil {
		c.heard.Store(&began)
	}
	if lost := c.Lost(); c.lost.Swap(lost) != lost {
		ctrl.Log.WithName("admission").Info("Contact with the API server", "lost", lost, "cause", err)
	}
}

// Lost reports whether nothing was heard of the API server for a minute.
func (c *Contact) Lost() bool {
	heard := c.heard.Load()
	return heard != nil && c.Clock.Since(*heard) > outOfTouch
}
