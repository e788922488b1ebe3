package requests

import (
	"context"
	"sync/atomic"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Trigger wakes a reconciler of cluster-scoped objects by their names. The zero value is ready for
// use.
type Trigger struct {
	TypedTrigger[reconcile.Request]
}

// Notify enqueues the object of a name. It never blocks.
func (t *Trigger) Notify(name string) { t.Add(For(name)) }

// TypedTrigger wakes a reconciler for a request that no watch makes. The zero value is ready for
// use.
type TypedTrigger[R comparable] struct {
	queue atomic.Pointer[workqueue.TypedRateLimitingInterface[R]]
}

// Add enqueues a request. It never blocks. Before the controller has started it does nothing: a
// controller reconciles everything when it starts.
func (t *TypedTrigger[R]) Add(request R) {
	if queue := t.queue.Load(); queue != nil {
		(*queue).Add(request)
	}
}

// Source gives the queue of a controller to the trigger. A trigger has one controller.
func (t *TypedTrigger[R]) Source() source.TypedSource[R] {
	return source.TypedFunc[R](func(_ context.Context, queue workqueue.TypedRateLimitingInterface[R]) error {
		t.queue.Store(&queue)
		return nil
	})
}
