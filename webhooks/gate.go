// Package webhooks decides at admission whether the images of a workload may run.
//
// Two handlers share one way of deciding. Mutate pins: it rewrites a tag to the digest that was verified, never denies,
// and leaves to Validate what it cannot decide. Validate is the gate: it runs after every mutation, decides anew, and
// denies whatever is not clearly admitted: a missing signature, a fault, an object that cannot be read, a panic. A known
// repository is decided from memory; the network is asked, within the deadline, only where a repository is seen for the
// first time or before a denial. Nothing that the object says about itself, its owner or its deletion is believed.
package webhooks

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/workload"
)

// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch

// Where the handlers are served.
const (
	MutatePath   = "/mutate-workloads"
	ValidatePath = "/validate-workloads"
)

// defaultDeadline bounds a request where Gate has no Deadline. The webhooks' own timeout must be longer, or a request would end
// without our answer: 10 s leaves the connection, the queue and the answer three.
const defaultDeadline = 7 * time.Second

// Gate is the admission handler for workloads. All fields but Deadline must be set before Register.
type Gate struct {
	// Store holds the snapshot that decisions are made from.
	Store *store.Store
	// Tracker fetches what the snapshot lacks.
	Tracker *store.Tracker
	// Namespaces reads Namespaces, normally from a cache.
	Namespaces client.Reader
	// LiveNamespaces reads those that Namespaces does not find: a cache may not know yet what was made just now.
	LiveNamespaces client.Reader
	// Kinds are the kinds of workload that are checked. A request about any other is denied.
	Kinds workload.Kinds
	// Clock says when a signature has expired.
	Clock clock.PassiveClock
	// Deadline bounds the decision of one request; 7 s where it is not positive.
	Deadline time.Duration
}

// Register adds both handlers under their paths, with the function that adds a handler to a server. Requests are
// bounded to 7 MiB, an object and its predecessor of the greatest size that the API server takes.
func (g *Gate) Register(handle func(path string, handler http.Handler)) {
	for path, handler := range map[string]admission.HandlerFunc{MutatePath: g.Mutate, ValidatePath: g.Validate} {
		handle(path, &admission.Webhook{
			Handler: handler,
			LogConstructor: func(base logr.Logger, req *admission.Request) logr.Logger {
				if req == nil {
					return base
				}
				return base.WithValues("requestID", req.UID, "user", req.UserInfo.Username, "operation", req.Operation)
			},
		})
	}
}

// Mutate pins the images that policies want pinned: of Pods, and under pinDigests All of templates too. It always
// admits: what is not pinned for whatever reason is for Validate to judge.
func (g *Gate) Mutate(ctx context.Context, req admission.Request) (resp admission.Response) {
	defer recovered(ctx, func(any) { resp = admission.Allowed("") })
	r, err := g.read(req)
	if err != nil || r.ownedTemplate() {
		return admission.Allowed("")
	}
	decided, err := g.decide(ctx, req.Namespace, r.images)
	if err != nil {
		return admission.Allowed("")
	}
	return admission.Patched("", pins(r, decided)...)
}

// Validate admits a workload only when every image that the request brings in may run.
func (g *Gate) Validate(ctx context.Context, req admission.Request) (resp admission.Response) {
	defer recovered(ctx, func(any) { resp = broke() })
	log := logf.FromContext(ctx).WithValues("namespace", req.Namespace, "kind", req.Kind.Kind)
	r, err := g.read(req)
	if err != nil {
		return unreadable(logf.IntoContext(ctx, log.WithValues("name", req.Name)), err)
	}
	ctx = logf.IntoContext(ctx, log.WithValues("name", r.name(req)))
	decided, err := g.decide(ctx, req.Namespace, r.images)
	if err != nil {
		return unchecked(ctx, err)
	}
	return judge(ctx, r, decided)
}

// recovered, deferred, keeps a panic from ending the process, and hands the answer to otherwise.
func recovered(ctx context.Context, otherwise func(cause any)) {
	if cause := recover(); cause != nil {
		logf.FromContext(ctx).Error(fmt.Errorf("panic: %v", cause), "Broke off", "stack", string(debug.Stack()))
		otherwise(cause)
	}
}
