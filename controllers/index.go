package controllers

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	// fieldTrustRoots indexes ImagePolicies by the TrustRoots that they name.
	fieldTrustRoots = "spec.trustRoots"
	// fieldMaterial indexes TrustRoots by the Secrets and ConfigMaps that they refer to, as "Kind/name".
	fieldMaterial = "spec.material"
)

// listed returns a request for every object that a list with the given options holds. A map function can only log a
// failure; it is the cache that answers, so there is none once the caches are synced.
func listed(ctx context.Context, c client.Reader, list client.ObjectList, options ...client.ListOption) []reconcile.Request {
	if err := c.List(ctx, list, options...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list what depends on a changed object; its next change is seen again")
		return nil
	}
	var requests []reconcile.Request
	_ = meta.EachListItem(list, func(o runtime.Object) error {
		if object, ok := o.(client.Object); ok {
			requests = append(requests, requestFor(object.GetName()))
		}
		return nil
	})
	return requests
}

func requestFor(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}
}
