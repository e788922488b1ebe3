package controllers

import (
	"context"
	"sync/atomic"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Changes wakes a reconciler for an object, from outside of the API server. The zero value is ready for use.
type Changes struct {
	queue atomic.Pointer[workqueue.TypedRateLimitingInterface[reconcile.Request]]
}

// Notify enqueues the object of a name. It never blocks; before the controller has started, which reconciles everything
// anyhow, it does nothing.
func (c *Changes) Notify(name string) { c.add(requestFor(name)) }

func (c *Changes) add(request reconcile.Request) {
	if queue := c.queue.Load(); queue != nil {
		(*queue).Add(request)
	}
}

func (c *Changes) source() source.Source {
	return source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		c.queue.Store(&queue)
		return nil
	})
}
