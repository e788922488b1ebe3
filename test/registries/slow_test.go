package registries

import (
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// TestRegistrySlow has a registry that takes longer for each response than a request may wait. Then
// it responds. Each response still counts: the fetches go on, and a retry finds their result.
func TestRegistrySlow(t *testing.T) {
	t.Parallel()
	s := newSite(t, newDistribution(t), 0)
	s.learn(t)
	s.Clock.Step(time.Second)
	s.proxy.Set(faultproxy.Fault{Hold: true})
	s.want(t, "fresh", admitted)
	s.want(t, "digest", admitted)
	decided := make(chan struct{})
	go func() {
		defer close(decided)
		s.want(t, "stale", warned)
	}()
	poll.AwaitTrue(t, "the older answer", func() bool {
		select {
		case <-decided:
			return true
		default:
			s.Clock.Step(time.Second)
			return false
		}
	})

	s.Deadline = 200 * time.Millisecond
	s.proxy.Reset()
	poll.AwaitTrue(t, "the fetches to begin", func() bool { // a busy machine may take longer than the deadline
		for _, tag := range []string{"half", "new", "new-digest"} {
			s.want(t, tag, couldNotCheck, "not loaded yet", "waiting for", "deadline exceeded")
		}
		return len(s.proxy.Requests()) >= 3
	})
	s.Deadline = time.Minute
	s.proxy.Set()
	for _, tag := range []string{"new", "new-digest", "stale", "fresh", "digest"} {
		s.await(t, tag, admitted, time.Second)
	}
	s.await(t, "half", denied, time.Second)
	s.awaitStatus(t, "")
}
