package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

const (
	// OpenShiftGroup is the API group of the configuration of OpenShift.
	OpenShiftGroup = "config.openshift.io"
	// platformInterval is how often Discover retries.
	platformInterval = 2 * time.Second
)

// Discover reports whether the API server is that of an OpenShift cluster. It retries until the API
// server answers and serves our kinds, or ctx ends: when a manifest is applied, the manager may
// start before its CRDs are in force.
func Discover(ctx context.Context, config *rest.Config) (openShift bool, err error) {
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return false, err
	}
	err = wait.PollUntilContextCancel(ctx, platformInterval, true, func(ctx context.Context) (bool, error) {
		groups, err := d.ServerGroupsWithContext(ctx)
		if err == nil {
			openShift = slices.ContainsFunc(groups.Groups,
				func(g metav1.APIGroup) bool { return g.Name == OpenShiftGroup })
			err = servesOurKinds(ctx, d)
		}
		if err != nil {
			ctrl.Log.Error(err, "Could not start yet, and asks the API server again")
		}
		return err == nil, nil
	})
	return openShift, err
}

// servesOurKinds returns an error, with the remedy, where one of our CRDs is not in force.
func servesOurKinds(ctx context.Context, d discovery.ServerResourcesInterfaceWithContext) error {
	served, err := d.ServerResourcesForGroupVersionWithContext(ctx, v1alpha1.GroupVersion.String())
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	for _, plural := range []string{"imagepolicies", "trustroots"} {
		if served == nil ||
			!slices.ContainsFunc(served.APIResources, func(r metav1.APIResource) bool { return r.Name == plural }) {
			return fmt.Errorf(
				"the CustomResourceDefinition %s.%s is not in force: apply it, or the whole of the installation again",
				plural, v1alpha1.GroupVersion.Group)
		}
	}
	return nil
}
