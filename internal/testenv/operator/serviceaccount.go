package operator

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/process"
)

// managerAccount is the ServiceAccount of config/rbac.
const managerAccount = "countersign-manager"

// kubeconfig creates the operator's namespace and the objects of config/rbac if they are missing.
// Then it writes a kubeconfig with a token of the operator's ServiceAccount into a folder. So the
// manager has the rights of an installation, and no others.
func kubeconfig(ctx context.Context, c client.Client, k *kubeserver.Server, server, dir string) (string, error) {
	err := c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace}})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fmt.Errorf("creating namespace %s: %w", Namespace, err)
	}
	if err := applyRBAC(ctx, c); err != nil {
		return "", err
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: managerAccount}}
	request := &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(24 * 3600))},
	}
	if err := c.SubResource("token").Create(ctx, account, request); err != nil {
		return "", fmt.Errorf("requesting a token of the ServiceAccount: %w", err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["countersign"] = &clientcmdapi.Cluster{
		Server: cmp.Or(server, k.Config.Host), CertificateAuthorityData: k.Config.CAData,
	}
	config.AuthInfos["manager"] = &clientcmdapi.AuthInfo{Token: request.Status.Token}
	config.Contexts["countersign"] = &clientcmdapi.Context{Cluster: "countersign", AuthInfo: "manager"}
	config.CurrentContext = "countersign"
	if err := awaitRights(ctx, c); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "manager.kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return "", fmt.Errorf("writing the manager's kubeconfig: %w", err)
	}
	return path, nil
}

// awaitRights waits until the API server has loaded the operator's rights, cluster-wide and in its
// namespace.
func awaitRights(ctx context.Context, c client.Client) error {
	return wait.PollUntilContextTimeout(ctx, poll.Interval, process.StartTimeout, true,
		func(ctx context.Context) (bool, error) {
			for _, a := range []authorizationv1.ResourceAttributes{
				{Group: "countersign.dev", Resource: "imagepolicies", Verb: "watch"},
				{Namespace: Namespace, Resource: "configmaps", Verb: "watch"},
			} {
				review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
					User: "system:serviceaccount:" + Namespace + ":" + managerAccount, ResourceAttributes: &a,
				}}
				if err := c.Create(ctx, review); err != nil || !review.Status.Allowed {
					return false, nil //nolint:nilerr // the poll retries
				}
			}
			return true, nil
		})
}

func applyRBAC(ctx context.Context, c client.Client) error {
	root, err := build.ModuleRoot()
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(root, "config", "rbac", "*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("config/rbac holds no manifests (%w)", err)
	}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
		for {
			o := &unstructured.Unstructured{}
			if err := decoder.Decode(o); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return fmt.Errorf("reading %s: %w", file, err)
			}
			if err := c.Create(ctx, o); err != nil && !apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("creating %s of %s: %w", o.GetName(), file, err)
			}
		}
	}
	return nil
}
