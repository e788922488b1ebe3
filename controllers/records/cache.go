package records

import (
	"fmt"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// Cache holds the metadata of the ConfigMaps in the operator's namespace, and none of their data.
// The manager starts it with its own cache, before any controller.
type Cache struct{ cache.Cache }

// GetCache marks Cache as a cache for the manager.
func (r Cache) GetCache() cache.Cache { return r.Cache }

// NewCache adds a cache to the manager.
func NewCache(mgr ctrl.Manager, namespace string) (Cache, error) {
	c, err := cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		DefaultNamespaces: map[string]cache.Config{namespace: {}},
		DefaultTransform:  cache.TransformStripManagedFields(),
	})
	if err != nil {
		return Cache{}, fmt.Errorf("making the cache of records: %w", err)
	}
	return Cache{c}, mgr.Add(Cache{c})
}
