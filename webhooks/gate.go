// Package webhooks decides at admission whether the images of a workload may run.
//
// Two handlers share one way of deciding. Mutate pins: it rewrites a tag to the digest that was
// verified, never denies, and leaves to Validate what it cannot decide. Validate is the gate: it
// runs after every mutation, decides anew, and denies whatever is not clearly admitted: a missing
// signature, a fault, an object that cannot be read, a panic. A known repository is decided from
// memory; the network is asked, within the deadline, only where a repository is seen for the first
// time or before a denial. Nothing that the object says about itself, its owner or its deletion is
// believed. A denial of images gives way to one thing alone, the break-glass label of the Namespace
// as the API server has it now.
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
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/workload"
)

// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch

// Where the handlers are served.
const (
	MutatePath   = "/mutate-workloads"
	ValidatePath = "/validate-workloads"
)

// The webhooks' own timeout must be longer than these two together, or a request would end without
// our answer: 10 s leaves the connection, the queue and the answer one and a half.
const (
	// defaultDeadline bounds a decision where Gate has no Deadline.
	defaultDeadline = 7 * time.Second
	// confirmDeadline bounds the reading of a break-glass label.
	confirmDeadline = 1500 * time.Millisecond
)

// Gate is the admission handler for workloads. All fields but Metrics, Deadline and Limits must be
// set before Register.
type Gate struct {
	// Store holds the snapshot that decisions are made from.
	Store *store.Store
	// Tracker fetches what the snapshot lacks.
	Tracker *store.Tracker
	// Namespaces reads Namespaces, normally from a cache.
	Namespaces client.Reader
	// LiveNamespaces reads past the cache: Namespaces that it does not know yet, and break-glass
	// before it is believed.
	LiveNamespaces client.Reader
	// Kinds are the kinds of workload that are checked. A request about any other is denied.
	Kinds workload.Kinds
	// Clock says when a signature has expired.
	Clock clock.PassiveClock
	// Events takes what was admitted by break-glass.
	Events events.EventRecorder
	// Metrics counts decisions and requests; nil counts nothing.
	Metrics *metrics.Metrics
	// Deadline bounds the decision of one request; 7 s where it is not positive.
	Deadline time.Duration

	// Limits bound what the requests under way take; port.DefaultLimits where they are zero.
	Limits port.Limits

	budget *port.Budget // what the requests under way take

	recordsOnce sync.Once
	recorded    *records
}

// Register adds both handlers under their paths, with the function that adds a handler to a server.
// Requests are bounded to 7 MiB, an object and its predecessor of the greatest size that the API
// server takes, and all together to Limits.
func (g *Gate) Register(handle func(path string, handler http.Handler)) {
	if g.Limits == (port.Limits{}) {
		g.Limits = port.DefaultLimits()
	}
	g.budget = port.NewBudget(g.Limits)
	for path, h := range map[string]admission.HandlerFunc{
		MutatePath: g.measured("mutate", g.Mutate), ValidatePath: g.measured("validate", g.Validate),
	} {
		handle(path, &endpoint{
			handle: h, budget: g.budget, metrics: g.Metrics, deadline: g.deadline() + confirmDeadline,
		})
	}
}

// deadline returns how long a decision may take.
func (g *Gate) deadline() time.Duration {
	if g.Deadline > 0 {
		return g.Deadline
	}
	return defaultDeadline
}

// Mutate pins the images that policies want pinned: of Pods, and under pinDigests All of templates
// too. It always admits: what is not pinned for whatever reason is for Validate to judge. On an
// update a digest that the object has already stays, where the policies admit it.
func (g *Gate) Mutate(ctx context.Context, req admission.Request) (resp admission.Response) {
	defer recovered(ctx, func(any) { resp = admission.Allowed("") })
	r, err := g.take(ctx, &req)
	if err != nil || r.ownedTemplate() {
		return admission.Allowed("")
	}
	decided, err := g.decide(ctx, req.Namespace, toPin(r))
	if err != nil {
		return admission.Allowed("")
	}
	ops, warnings := pins(r, decided)
	return admission.Patched("", ops...).WithWarnings(bounded(warnings, maxWarnings)...)
}

// Validate admits a workload only when every image that the request brings in may run.
func (g *Gate) Validate(ctx context.Context, req admission.Request) (resp admission.Response) {
	defer recovered(ctx, func(any) { resp = broke() })
	log := logf.FromContext(ctx).WithValues("namespace", req.Namespace, "kind", req.Kind.Kind)
	r, err := g.take(ctx, &req)
	if err != nil {
		return unreadable(logf.IntoContext(ctx, log.WithValues("name", req.Name)), err)
	}
	ctx = logf.IntoContext(ctx, log.WithValues("name", r.name(req)))
	ruled := g.rule(ctx, req.Namespace, r)
	if !ruled.admitted {
		return g.unlessBreakGlass(ctx, req, r, ruled)
	}
	return ruled.admit(ctx, maxWarnings)
}

// rule decides on the images of a request, and counts each decision.
func (g *Gate) rule(ctx context.Context, namespace string, r review) ruling {
	decided, err := g.decide(ctx, namespace, r.images)
	if err != nil {
		return undecided(err)
	}
	for _, d := range decided {
		g.Metrics.Decided(d)
	}
	return judge(r, decided)
}

// measured notes how long each request to a handler took, and what came of it.
func (g *Gate) measured(name string, handle admission.HandlerFunc) admission.HandlerFunc {
	return func(ctx context.Context, req admission.Request) admission.Response {
		arrived := g.Clock.Now()
		resp := handle(ctx, req)
		g.Metrics.Admission(name, outcome(resp), g.Clock.Since(arrived))
		return resp
	}
}

// outcome names what an answer says, as metrics do.
func outcome(resp admission.Response) string {
	_, broken := resp.AuditAnnotations[breakGlassAnnotation]
	switch {
	case resp.Allowed && broken:
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

// recovered, deferred, keeps a panic from ending the process, and hands the answer to otherwise.
func recovered(ctx context.Context, otherwise func(cause any)) {
	if cause := recover(); cause != nil {
		logf.FromContext(ctx).Error(fmt.Errorf("panic: %v", cause), "Broke off", "stack", string(debug.Stack()))
		otherwise(cause)
	}
}
