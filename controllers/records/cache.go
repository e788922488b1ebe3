package records

import (
	"context"
	"fmt"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/recordmap"
)

// fieldHead indexes the parts of records by the name of their head, so that the cost of listing
// those of one record does not grow with the number of records.
const fieldHead = "metadata.head"

// Cache holds the metadata of the ConfigMaps in the operator's namespace, and none of their data.
// The manager starts it with its own cache, before any controller.
type Cache struct{ cache.Cache }

// GetCache marks Cache as a cache for the manager.
func (r Cache) GetCache() cache.Cache { return r.Cache }

// NewCache adds a cache to the manager, with the index fieldHead.
func NewCache(ctx context.Context, mgr ctrl.Manager, namespace string) (Cache, error) {
	c, err := cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		DefaultNamespaces: map[string]cache.Config{namespace: {}},
		DefaultTransform:  cache.TransformStripManagedFields(),
	})
	if err != nil {
		return Cache{}, fmt.Errorf("making the cache of records: %w", err)
	}
	if err := c.IndexField(ctx, configMapHead(), fieldHead, headName); err != nil {
		return Cache{}, fmt.Errorf("indexing the parts of records: %w", err)
	}
	return Cache{c}, mgr.Add(Cache{c})
}

// headName returns the value of fieldHead for a ConfigMap; none where it is not a part.
func headName(o client.Object) []string {
	if name := recordmap.HeadName(o.GetName()); name != "" {
		return []string{name}
	}
	return nil
}
