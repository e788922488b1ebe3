package inventory

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Overlay reads objects of files, and those that the files do not have of a cluster.
type Overlay struct {
	// Reader reads the cluster.
	client.Reader
	// Files are read first.
	Files client.Reader
}

// Get implements client.Reader.
func (o Overlay) Get(ctx context.Context, key client.ObjectKey, into client.Object, opts ...client.GetOption) error {
	if err := o.Files.Get(ctx, key, into, opts...); !apierrors.IsNotFound(err) {
		return err
	}
	return o.Reader.Get(ctx, key, into, opts...)
}
