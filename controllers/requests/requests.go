// Package requests makes the requests of reconcilers: for an object by its name, for every object
// of a list, and by a Trigger for events outside of the API server. Settle retries after a
// conflict.
package requests

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// ConflictRetry is the delay of a retry after a conflict: the cache is mostly up to date by then.
const ConflictRetry = 100 * time.Millisecond

// Listed returns a request for every object in a list. A map function cannot return an error, so
// Listed logs it. The cache answers the list, so there is none once the caches are synced.
func Listed(ctx context.Context, c client.Reader, list client.ObjectList,
	options ...client.ListOption) []reconcile.Request {
	if err := c.List(ctx, list, options...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err,
			"Failed to list what depends on a changed object; its next change is seen again")
		return nil
	}
	var requests []reconcile.Request
	_ = meta.EachListItem(list, func(o runtime.Object) error {
		if object, ok := o.(client.Object); ok {
			requests = append(requests, For(object.GetName()))
		}
		return nil
	})
	return requests
}

// For returns the request for a cluster-scoped object.
func For(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}
}

// Settle turns Conflict and AlreadyExists into a quiet retry: the cache that the write rested on is
// stale.
func Settle(result ctrl.Result, err error) (ctrl.Result, error) {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return ctrl.Result{RequeueAfter: ConflictRetry}, nil
	}
	return result, err
}
