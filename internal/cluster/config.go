// Package cluster says how the API server is reached, what kinds there are, and what the cluster
// serves. It starts nothing.
package cluster

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// Config says how the API server is reached: as the file kubeconfig says, or without one as the
// environment does. It is reached directly, unless the kubeconfig names a proxy. The proxy of the
// environment is for signing servers, and one that does not know the network of the cluster would
// keep the manager from it.
func Config(kubeconfig string) (*rest.Config, error) {
	config, err := configOf(kubeconfig)
	if err == nil && config.Proxy == nil {
		config.Proxy = func(*http.Request) (*url.URL, error) {
			return nil, nil
		} //nolint:nilnil // net/http takes nil for no proxy
	}
	return config, err
}

func configOf(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		return ctrl.GetConfig()
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	config.QPS = -1 // as in a cluster: the API server shares itself out, and a queue here would hold up admission
	return config, nil
}

// Scheme returns the kinds of Kubernetes, and ours.
func Scheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
}
