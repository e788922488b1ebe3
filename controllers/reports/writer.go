// Package reports writes what was found of what runs as policy reports, in every format whose CRD
// is installed, on the leader. It evaluates nothing itself.
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
	// probeInterval is how often it is looked whether the CRD of a format is there.
	probeInterval = 20 * time.Second
	// renewalInterval is how often every report is written whether it changed or not, so that what
	// somebody deleted or changed comes back.
	renewalInterval = 10 * time.Minute
	// firstRetry is how long a failed write waits for the next try. It doubles each time, up to
	// longestRetry.
	firstRetry, longestRetry = time.Second, time.Minute
	// requestTimeout bounds one request.
	requestTimeout = 30 * time.Second
	// requestRate and requestBurst bound the requests of reports, apart from those of everything
	// else.
	requestRate, requestBurst = 10, 20
)

// Writer keeps a report on each namespace in every format whose CRD is installed. It runs on the
// leader. CRDs may come and go at any time. It has a client of its own, so that nothing else ever
// waits for reports.
type Writer struct {
	metadata  metadata.Interface
	discovery discovery.ServerResourcesInterfaceWithContext
	clock     clock.Clock
	found     atomic.Pointer[compliance.Result]
	changed   chan struct{}
}

// Reports are created by server-side apply alone, whose URL has the name, so that the right to
// create can be given by name, too.

// +kubebuilder:rbac:groups=wgpolicyk8s.io,resources=policyreports,verbs=list
// +kubebuilder:rbac:groups=wgpolicyk8s.io,resources=policyreports,resourceNames=countersign,verbs=create;patch;delete
// +kubebuilder:rbac:groups=openreports.io,resources=reports,verbs=list
// +kubebuilder:rbac:groups=openreports.io,resources=reports,resourceNames=countersign,verbs=create;patch;delete

// NewWriter returns a writer that asks the API server of config.
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

// Results hands out what was found of what runs.
type Results interface {
	// OnResult has notify called with each new result.
	OnResult(notify func(*compliance.Result))
}

// SetupWithManager has the manager run the writer, on the leader, and writes down each new result.
func (w *Writer) SetupWithManager(mgr ctrl.Manager, results Results) error {
	results.OnResult(w.publish)
	return mgr.Add(w)
}

// publish hands over the last evaluation. It never blocks.
func (w *Writer) publish(found *compliance.Result) {
	w.found.Store(found)
	select {
	case w.changed <- struct{}{}:
	default: // the writer is told already, and takes the newest
	}
}

// Start implements manager.Runnable. Before the first evaluation nothing is known, and no report is
// touched.
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

// attempt writes what there is to write unless an earlier failure is to be waited for, and returns
// for how long to wait until the next attempt. A failure is logged when it is not the same as
// before.
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
			log.Info("Wrote reports again after a failure")
		}
		f.failure, f.wait = "", 0
		return f.next()
	}
	if text := err.Error(); text != f.failure {
		f.failure = text
		log.Error(err, "Failed to write reports, and tries again")
	}
	f.wait = min(max(2*f.wait, firstRetry), longestRetry)
	f.retryAt = f.clock.Now().Add(f.wait)
	return f.wait
}
