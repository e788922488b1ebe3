package bydigest

import (
	"context"

	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
)

var _ trust.Lister = (*Root)(nil)

// Tags implements trust.Lister.
func (r *Root) Tags(ctx context.Context, about trust.Subject, limit int) (tags []string, more bool, err error) {
	images, ok := r.Registry.(interface {
		Tags(ctx context.Context, repository string, limit int) ([]string, bool, error)
	})
	if !ok {
		return nil, false, nil
	}
	if about.Tenant != "" && r.Keychain != nil {
		ctx = registry.WithKeychain(ctx, r.Keychain, about.Tenant)
	}
	return images.Tags(ctx, about.Pulled, limit)
}
