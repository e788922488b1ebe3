package webhooks

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/countersign-dev/countersign/internal/decision"
	"github.com/countersign-dev/countersign/internal/workload"
)

// decide decides on the images of a workload in a namespace, until ctx ends. An error says that no
// decision was possible.
func (g *Gate) decide(ctx context.Context, namespace string, images []workload.Image) (decision.Set, error) {
	if len(images) == 0 {
		return nil, nil
	}
	set, err := g.namespaceLabels(ctx, namespace)
	if err != nil {
		return nil, err
	}
	references := make([]string, 0, len(images))
	for _, i := range images {
		references = append(references, i.Image)
	}
	decider := decision.Decider{Store: g.Store, Tracker: g.Tracker, Clock: g.Clock}
	return decider.Decide(ctx, namespace, set, references)
}

// namespaceLabels returns the labels of a namespace, by which policies select it. If the read
// fails, no decision is possible: with empty labels fewer policies would hold.
func (g *Gate) namespaceLabels(ctx context.Context, name string) (labels.Set, error) {
	var namespace corev1.Namespace
	key := types.NamespacedName{Name: name}
	err := g.Namespaces.Get(ctx, key, &namespace)
	if apierrors.IsNotFound(err) {
		err = g.LiveNamespaces.Get(ctx, key, &namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the labels of namespace %q: %w", name, err)
	}
	return namespace.Labels, nil
}
