// Package webhooks decides at admission whether the images of a workload may run.
//
// There are two handlers. Mutate pins: it rewrites a tag to the verified digest. It never denies,
// and leaves to Validate what it cannot decide. Validate is the gate: it runs after every mutating
// webhook, decides again, and denies every image that is not clearly admitted. So it denies on a
// missing signature, a fault, an object that cannot be parsed, or a panic.
//
// Both decide on a known repository from memory. They use the network, within the deadline, only
// for a repository that is not loaded and before a denial. They trust nothing that an object says
// about itself, its owner or its deletion. Only the break-glass label of the Namespace, read live
// from the API server, turns a denial of images into an admission.
package webhooks

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/countersign-dev/countersign/internal/metrics"
	"github.com/countersign-dev/countersign/internal/port"
	"github.com/countersign-dev/countersign/internal/pullsecrets"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/workload"
)

// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch

// The URL paths of the handlers.
const (
	MutatePath   = "/mutate-workloads"
	ValidatePath = "/validate-workloads"
)

// The API server calls both handlers one after the other, so an unknown image of a server that
// hangs is denied after both deadlines: within 8 s, all included. The timeout in the webhook
// configurations must be longer than validateDeadline and confirmDeadline together. Otherwise the
// API server would stop waiting before the answer. A timeout of 10 s leaves 4 s for the connection,
// the queue and the answer.
const (
	// mutateDeadline is the time for the decision of Mutate, and validateDeadline for that of
	// Validate, if Gate has no Deadline. The fetch goes on in between.
	mutateDeadline   = 3 * time.Second
	validateDeadline = 4500 * time.Millisecond
	// confirmDeadline is the time to read a break-glass label.
	confirmDeadline = 1500 * time.Millisecond
)

// Gate is the admission handler for workloads. All fields but Metrics, PullSecrets, Deadline and
// Limits must be set before Register.
type Gate struct {
	// Store holds the snapshot from which the Gate decides.
	Store *store.Store
	// Tracker fetches evidence that the snapshot lacks.
	Tracker *store.Tracker
	// Namespaces reads Namespaces, normally from a cache.
	Namespaces client.Reader
	// LiveNamespaces reads from the API server: Namespaces that the cache does not have yet, and
	// break-glass labels.
	LiveNamespaces client.Reader
	// Kinds are the kinds of workload that are checked. A request for any other kind is denied.
	Kinds workload.Kinds
	// Clock is the time for expiry.
	Clock clock.PassiveClock
	// Events records admissions by break-glass.
	Events events.EventRecorder
	// Metrics counts decisions and requests; nil counts nothing.
	Metrics *metrics.Metrics
	// PullSecrets receives what each workload says about its pull secrets, before anything is
	// fetched for it. Nil: no pull secrets are in use.
	PullSecrets *pullsecrets.Finder
	// Deadline is the time for the decision on one request. If it is not positive, Mutate has 3 s
	// and Validate 4.5 s.
	Deadline time.Duration

	// Limits limit the memory of the requests in flight; port.DefaultLimits if they are zero.
	Limits port.Limits

	budget *port.Budget // the memory of the requests in flight

	recordOnce       sync.Once
	breakGlassLimits *recordLimits
}

// Register adds both handlers to a server, through the function that adds one handler under a path.
// A request may have 7 MiB: an object and its predecessor, each of the largest size that the API
// server allows. Limits limit all requests together.
func (g *Gate) Register(handle func(path string, handler http.Handler)) {
	if g.Limits == (port.Limits{}) {
		g.Limits = port.DefaultLimits()
	}
	g.budget = port.NewBudget(g.Limits)
	for path, h := range map[string]*endpoint{
		MutatePath: {handle: g.measured("mutate", g.Mutate), deadline: g.deadline(mutateDeadline)},
		ValidatePath: {
			handle: g.measured("validate", g.Validate), deadline: g.deadline(validateDeadline) + confirmDeadline,
		},
	} {
		h.budget, h.metrics = g.budget, g.Metrics
		handle(path, h)
	}
}

// deadline returns the time for a decision.
func (g *Gate) deadline(usual time.Duration) time.Duration {
	if g.Deadline > 0 {
		return g.Deadline
	}
	return usual
}

// Mutate pins images as the policies want: in Pods, and with pinDigests All in templates too. On an
// update, an image keeps the digest that it has in the old object if the policies admit that
// digest. Mutate always admits: Validate then decides on every image that is not pinned.
func (g *Gate) Mutate(ctx context.Context, req admission.Request) (resp admission.Response) {
	defer recoverPanic(ctx, func(any) { resp = admission.Allowed("") })
	r, err := g.readAndFree(ctx, &req)
	if err != nil || r.ownedTemplate() {
		return admission.Allowed("")
	}
	ctx, cancel := context.WithTimeout(ctx, g.deadline(mutateDeadline))
	defer cancel()
	decided, err := g.decide(ctx, req.Namespace, pinCandidates(r))
	if err != nil {
		return admission.Allowed("")
	}
	ops, warnings := pinPatch(r, decided)
	return admission.Patched("", ops...).WithWarnings(limitLines(warnings, maxWarnings)...)
}

// Validate admits a workload only if every image that the request adds or changes is admitted.
func (g *Gate) Validate(ctx context.Context, req admission.Request) (resp admission.Response) {
	defer recoverPanic(ctx, func(any) { resp = panicked() })
	log := logf.FromContext(ctx).WithValues("namespace", req.Namespace, "kind", req.Kind.Kind)
	r, err := g.readAndFree(ctx, &req)
	if err != nil {
		return unreadable(logf.IntoContext(ctx, log.WithValues("name", req.Name)), err)
	}
	ctx = logf.IntoContext(ctx, log.WithValues("name", r.name(req)))
	v := g.check(ctx, req.Namespace, r)
	if !v.admitted {
		return g.denyUnlessBreakGlass(ctx, req, r, v)
	}
	return v.admit(ctx, maxWarnings)
}

// check decides on the images of a request, and counts each decision.
func (g *Gate) check(ctx context.Context, namespace string, r parsedRequest) verdict {
	ctx, cancel := context.WithTimeout(ctx, g.deadline(validateDeadline))
	defer cancel()
	decided, err := g.decide(ctx, namespace, r.images)
	if err != nil {
		return undecided(err)
	}
	for _, d := range decided {
		g.Metrics.Decided(d)
	}
	return combine(r, decided)
}

// measured wraps a handler: it measures the duration of each request and counts its outcome.
func (g *Gate) measured(name string, handle admission.HandlerFunc) admission.HandlerFunc {
	return func(ctx context.Context, req admission.Request) admission.Response {
		arrived := g.Clock.Now()
		resp := handle(ctx, req)
		g.Metrics.Admission(name, outcome(resp), g.Clock.Since(arrived))
		return resp
	}
}

// outcome returns the metric label for an answer.
func outcome(resp admission.Response) string {
	_, breakGlass := resp.AuditAnnotations[breakGlassAnnotation]
	switch {
	case resp.Allowed && breakGlass:
		return "break_glass"
	case resp.Allowed:
		return "admitted"
	case resp.Result != nil && resp.Result.Code == http.StatusForbidden:
		return "denied"
	case resp.Result != nil && resp.Result.Code == http.StatusBadRequest:
		return "unreadable"
	}
	return "could_not_check"
}

// recoverPanic recovers from a panic, logs it and calls onPanic. It must be deferred.
func recoverPanic(ctx context.Context, onPanic func(cause any)) {
	if cause := recover(); cause != nil {
		logf.FromContext(ctx).Error(fmt.Errorf("panic: %v", cause), "Recovered from a panic", "stack",
			string(debug.Stack()))
		onPanic(cause)
	}
}
