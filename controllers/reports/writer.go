// Package reports writes the compliance of running workloads as policy reports, on the leader, in
// every format whose CRD is installed. It evaluates nothing itself.
package reports

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/report"
)

const (
	// probeInterval is how often the writer checks whether the CRD of a format exists.
	probeInterval = 20 * time.Second
	// renewalInterval is how often the writer writes every report, changed or not. That restores
	// reports that a user deleted or changed.
	renewalInterval = 10 * time.Minute
	// firstRetry is the backoff after a failed write. It doubles each time, up to longestRetry.
	firstRetry, longestRetry = time.Second, time.Minute
	// requestTimeout bounds one request.
	requestTimeout = 30 * time.Second
	// requestRate and requestBurst limit the requests of reports. All other requests have a limit
	// of their own.
	requestRate, requestBurst = 10, 20
)

// Writer maintains a report for each namespace in every format whose CRD is installed. It runs on
// the leader. CRDs may appear and disappear at any time. The writer has its own client, so that no
// other request waits for reports.
type Writer struct {
	metadata  metadata.Interface
	discovery discovery.ServerResourcesInterfaceWithContext
	clock     clock.Clock
	found     atomic.Pointer[compliance.Result]
	changed   chan struct{}
}

// The writer creates reports only by server-side apply. Its URL has the name, so that RBAC can
// restrict the right to create by name too.

// +kubebuilder:rbac:groups=wgpolicyk8s.io,resources=policyreports,verbs=list
// +kubebuilder:rbac:groups=wgpolicyk8s.io,resources=policyreports,resourceNames=countersign,verbs=create;patch;delete
// +kubebuilder:rbac:groups=openreports.io,resources=reports,verbs=list
// +kubebuilder:rbac:groups=openreports.io,resources=reports,resourceNames=countersign,verbs=create;patch;delete

// NewWriter returns a writer that uses the API server of config.
func NewWriter(config *rest.Config, c clock.Clock) (*Writer, error) {
	own := rest.CopyConfig(config)
	own.QPS, own.Burst, own.Timeout = requestRate, requestBurst, requestTimeout
	objects, err := metadata.NewForConfig(own)
	if err != nil {
		return nil, fmt.Errorf("making a client for reports: %w", err)
	}
	resources, err := discovery.NewDiscoveryClientForConfig(own)
	if err != nil {
		return nil, fmt.Errorf("making a client for the discovery of report formats: %w", err)
	}
	return &Writer{metadata: objects, discovery: resources, clock: c, changed: make(chan struct{}, 1)}, nil
}

// Results provides the results of the evaluations.
type Results interface {
	// OnResult registers notify, which is called with each new result.
	OnResult(notify func(*compliance.Result))
}

// SetupWithManager adds the writer to the manager, on the leader, and subscribes it to results.
func (w *Writer) SetupWithManager(mgr ctrl.Manager, results Results) error {
	results.OnResult(w.publish)
	return mgr.Add(w)
}

// publish stores the last result and wakes the writer. It never blocks.
func (w *Writer) publish(found *compliance.Result) {
	w.found.Store(found)
	select {
	case w.changed <- struct{}{}:
	default: // the writer is awake and will read the newest
	}
}

// Start implements manager.Runnable. It changes no report before the first result.
func (w *Writer) Start(ctx context.Context) error {
	formats := []*formatWriter{
		{Writer: w, format: report.PolicyReport(), refused: map[string]*refusal{}},
		{Writer: w, format: report.OpenReport(), refused: map[string]*refusal{}},
	}
	for wait := probeInterval; ; {
		timer := w.clock.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-w.changed:
		case <-timer.C():
		}
		timer.Stop()
		wait = probeInterval
		if found := w.found.Load(); found != nil {
			for _, f := range formats {
				wait = min(wait, f.attempt(ctx, found))
			}
		}
	}
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*Writer) NeedLeaderElection() bool { return true }

// attempt writes the reports, unless the backoff of an earlier failure has not ended. It returns
// how long to wait until the next attempt. It logs a failure that differs from the one before.
func (f *formatWriter) attempt(ctx context.Context, found *compliance.Result) time.Duration {
	if left := f.retryAt.Sub(f.clock.Now()); left > 0 {
		return left
	}
	log := ctrl.LoggerFrom(ctx).WithValues("format", f.format.Kind)
	err := f.write(ctrl.LoggerInto(ctx, log), found)
	if ctx.Err() != nil {
		return probeInterval // the manager stops
	}
	if err == nil {
		if f.failure != "" {
			log.Info("Wrote reports after a failure")
		}
		f.failure, f.wait = "", 0
		return f.next()
	}
	if text := err.Error(); text != f.failure {
		f.failure = text
		log.Error(err, "Failed to write reports, will retry")
	}
	f.wait = min(max(2*f.wait, firstRetry), longestRetry)
	f.retryAt = f.clock.Now().Add(f.wait)
	return f.wait
}
