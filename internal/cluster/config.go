// Package cluster configures the connection to the API server, lists the kinds that the manager
// uses, and discovers the platform. It starts nothing.
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

// Config returns the connection to the API server: from the file kubeconfig, or without one from
// the environment. It uses no proxy unless the kubeconfig names one: the proxy of the environment
// is for signing servers, and one that cannot reach the network of the cluster would cut the
// manager off.
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
	config.QPS = -1 // as in a cluster: the API server has fair queuing, and a queue here would delay admission
	return config, nil
}

// Scheme returns the kinds of Kubernetes and of the project.
func Scheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
}
