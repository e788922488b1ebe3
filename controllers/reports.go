package controllers

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
	// reportsProbe is how often it is looked whether the CRD of a format is there.
	reportsProbe = 20 * time.Second
	// reportsRenewal is how often every report is written whether it changed or not, so that what somebody deleted or
	// changed comes back.
	reportsRenewal = 10 * time.Minute
	// reportsRetry is how long a failed write waits for the next try. It doubles each time, up to reportsRetryMost.
	reportsRetry, reportsRetryMost = time.Second, time.Minute
	// reportsTimeout bounds one request.
	reportsTimeout = 30 * time.Second
	// reportsQPS and reportsBurst bound the requests of reports, apart from those of everything else.
	reportsQPS, reportsBurst = 10, 20
)

// ReportWriter keeps a report on each namespace in every format whose CRD is installed. It runs on the leader. CRDs may come
// and go at any time. It has a client of its own, so that nothing else ever waits for reports.
type ReportWriter struct {
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

// NewReportWriter returns a writer that asks the API server of config.
func NewReportWriter(config *rest.Config, c clock.Clock) (*ReportWriter, error) {
	own := rest.CopyConfig(config)
	own.QPS, own.Burst, own.Timeout = reportsQPS, reportsBurst, reportsTimeout
	objects, err := metadata.NewForConfig(own)
	if err != nil {
		return nil, fmt.Errorf("making a client for reports: %w", err)
	}
	resources, err := discovery.NewDiscoveryClientForConfig(own)
	if err != nil {
		return nil, fmt.Errorf("making a client for the discovery of report formats: %w", err)
	}
	return &ReportWriter{metadata: objects, discovery: resources, clock: c, changed: make(chan struct{}, 1)}, nil
}

// SetupWithManager has the manager run the writer, on the leader, and writes down each new result.
func (w *ReportWriter) SetupWithManager(mgr ctrl.Manager, results *Compliance) error {
	results.OnResult(w.publish)
	return mgr.Add(w)
}

// publish hands over the last evaluation. It never blocks.
func (w *ReportWriter) publish(found *compliance.Result) {
	w.found.Store(found)
	select {
	case w.changed <- struct{}{}:
	default: // the writer is told already, and takes the newest
	}
}

// Start implements manager.Runnable. Before the first evaluation nothing is known, and no report is touched.
func (w *ReportWriter) Start(ctx context.Context) error {
	formats := []*formatWriter{
		{ReportWriter: w, format: report.PolicyReport(), refused: map[string]*refusal{}},
		{ReportWriter: w, format: report.OpenReport(), refused: map[string]*refusal{}},
	}
	for wait := reportsProbe; ; {
		timer := w.clock.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-w.changed:
		case <-timer.C():
		}
		timer.Stop()
		wait = reportsProbe
		if found := w.found.Load(); found != nil {
			for _, f := range formats {
				wait = min(wait, f.attempt(ctx, found))
			}
		}
	}
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*ReportWriter) NeedLeaderElection() bool { return true }

// attempt writes what there is to write unless an earlier failure is to be waited for, and returns for how long to wait
// until the next attempt. A failure is logged when it is not the same as before.
func (f *formatWriter) attempt(ctx context.Context, found *compliance.Result) time.Duration {
	if left := f.retryAt.Sub(f.clock.Now()); left > 0 {
		return left
	}
	log := ctrl.LoggerFrom(ctx).WithValues("format", f.format.Kind)
	err := f.write(ctrl.LoggerInto(ctx, log), found)
	if ctx.Err() != nil {
		return reportsProbe // the manager stops
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
	f.wait = min(max(2*f.wait, reportsRetry), reportsRetryMost)
	f.retryAt = f.clock.Now().Add(f.wait)
	return f.wait
}
