package main

import (
	"context"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
)

const (
	// openShiftGroup is the API group that OpenShift configures itself with.
	openShiftGroup = "config.openshift.io"
	// platformInterval is how often the API server is asked for its groups while it does not answer.
	platformInterval = 2 * time.Second
)

// onOpenShift asks the API server whether it is that of an OpenShift cluster, until it answers or ctx ends.
func onOpenShift(ctx context.Context, config *rest.Config) (bool, error) {
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return false, err
	}
	var found bool
	err = wait.PollUntilContextCancel(ctx, platformInterval, true, func(ctx context.Context) (bool, error) {
		groups, err := d.ServerGroupsWithContext(ctx)
		if err != nil {
			ctrl.Log.Error(err, "Could not ask the API server for its groups")
			return false, nil
		}
		found = slices.ContainsFunc(groups.Groups, func(g metav1.APIGroup) bool { return g.Name == openShiftGroup })
		return true, nil
	})
	return found, err
}
