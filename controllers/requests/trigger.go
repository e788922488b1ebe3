package requests

import (
	"context"
	"sync/atomic"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Trigger wakes a reconciler for an object, from outside of the API server. The zero value is ready
// for use.
type Trigger struct {
	queue atomic.Pointer[workqueue.TypedRateLimitingInterface[reconcile.Request]]
}

// Notify enqueues the object of a name. It never blocks; before the controller has started, which
// reconciles everything anyhow, it does nothing.
func (t *Trigger) Notify(name string) { t.Add(For(name)) }

// Add enqueues a request, as Notify does.
func (t *Trigger) Add(request reconcile.Request) {
	if queue := t.queue.Load(); queue != nil {
		(*queue).Add(request)
	}
}

// Source hands the queue of a reconciler to the trigger.
func (t *Trigger) Source() source.Source {
	return source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		t.queue.Store(&queue)
		return nil
	})
}
