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
	// contactInterval is how often the API server is probed, and the timeout of a probe.
	contactInterval = 5 * time.Second
	// outOfTouch is how long no probe may have succeeded before the replica's policies and trust
	// roots count as stale. Restarts of an API server are shorter.
	outOfTouch = time.Minute
)

// Contact probes whether this replica can reach the API server. An API server may reach a replica
// that cannot reach it. Such a replica sees no edit of a policy or trust root, and its decisions
// would be stale.
type Contact struct {
	// Live reads from the API server and not from a cache.
	Live  client.Reader
	Clock clock.WithTicker

	lastSuccess atomic.Pointer[time.Time] // the start of the last probe that succeeded
	logged      atomic.Bool               // the last value of Lost that was logged
}

// +kubebuilder:rbac:groups=countersign.dev,resources=imagepolicies,verbs=list

// Start implements manager.Runnable: it probes the API server until ctx ends.
func (c *Contact) Start(ctx context.Context) error {
	ticker := c.Clock.NewTicker(contactInterval)
	defer ticker.Stop()
	for {
		c.probe(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
	}
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*Contact) NeedLeaderElection() bool { return false }

// probe sends one small request to the API server. It logs each change of Lost.
func (c *Contact) probe(ctx context.Context) {
	began := c.Clock.Now()
	probeCtx, cancel := context.WithTimeout(ctx, contactInterval)
	defer cancel()
	err := c.Live.List(probeCtx, &v1alpha1.ImagePolicyList{}, client.Limit(1))
	if err == nil {
		c.lastSuccess.Store(&began)
	}
	if lost := c.Lost(); c.logged.Swap(lost) != lost {
		ctrl.Log.WithName("admission").Info("Contact with the API server changed", "lost", lost, "cause", err)
	}
}

// Lost reports whether no probe has succeeded for a minute. It is false before the first success.
func (c *Contact) Lost() bool {
	last := c.lastSuccess.Load()
	return last != nil && c.Clock.Since(*last) > outOfTouch
}
