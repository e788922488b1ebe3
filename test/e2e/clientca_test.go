package e2e

import (
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/webhooks"
)

// TestClientCA runs an API server with a client certificate for the webhook, as described in
// docs/client-certificates.md, and a manager that requires this certificate.
func TestClientCA(t *testing.T) {
	t.Parallel()
	front := operator.RunBalancer(t)
	dir, ca := t.TempDir(), newClientCA(t)
	mounted := filepath.Join(t.TempDir(), "clients")
	must(t, os.Mkdir(mounted, 0o700))
	mount := func(ca []byte) {
		t.Helper()
		must(t, (&secret{Certificate: &tlstest.Certificate{}, ca: ca}).mount(mounted))
	}
	mount(ca.PEM)
	b := newBedWith(t,
		kubeserver.Options{
			APIServerArgs: []string{"--admission-control-config-file", admissionConfig(t, dir, ca, front.URL)},
		}, func(b *bed) *operator.Manager {
			m := operator.RunWith(t, b.kube, operator.Options{Args: []string{
				"--webhook-url=" + front.URL, "--webhook-client-ca=" + filepath.Join(mounted, "ca.crt"),
			}})
			front.Add(m)
			return m
		})
	gun := b.repository(t, "ci", "qa")
	b.sign(t, gun, "v1", 1, "ci", "qa")
	b.admitted(t, pod(production, gun+":v1"))
	b.denied(t, pod(production, gun+":unsigned"), http.StatusForbidden, `role "qa" has not signed`)

	t.Run("other clients are refused", func(t *testing.T) {
		poll.Await(t, "a response with status 401", func() error {
			v, err := review(t.Context(), b.manager, webhooks.ValidatePath, gun+":v1")
			if err == nil {
				t.Fatalf("got %+v without a client certificate, want status 401", v)
			}
			if !strings.Contains(err.Error(), "401") {
				return err
			}
			return nil
		})
		var shop corev1.Namespace
		must(t, b.Get(t.Context(), client.ObjectKey{Name: production}, &shop))
		b.update(t, &shop, func() { shop.Labels[v1alpha1.LabelBreakGlass] = "INC-1" })
		b.awaitAdmitted(t, "break-glass, through the API server", production, gun+":unsigned")
		if v, err := review(t.Context(), b.manager, webhooks.ValidatePath, gun+":unsigned"); err == nil {
			t.Errorf("got %+v without a client certificate under break-glass, want status 401", v)
		}
		b.update(t, &shop, func() { delete(shop.Labels, v1alpha1.LabelBreakGlass) })
		b.awaitDenied(t, "the end of break-glass", production, gun+":unsigned")
	})
	t.Run("another CA", func(t *testing.T) {
		mount(newClientCA(t).PEM)
		t.Log(b.refusedCall(t, gun))
		poll.Await(t, "the manager to be ready: its CA is valid", func() error { return b.manager.Ready(t.Context()) })
		mount(append(newClientCA(t).PEM, ca.PEM...))
		b.awaitAdmitted(t, "a signed Pod to be admitted", production, gun+":v1")
	})
	t.Run("no CA", func(t *testing.T) {
		mount(nil)
		t.Log(b.refusedCall(t, gun))
		poll.Await(t, "the manager to be not ready", func() error {
			if b.manager.Ready(t.Context()) == nil {
				return errors.New("got ready")
			}
			return nil
		})
		mount(ca.PEM)
		poll.Await(t, "the manager to be ready", func() error { return b.manager.Ready(t.Context()) })
		b.awaitAdmitted(t, "a signed Pod to be admitted", production, gun+":v1")
	})
}

// refusedCall waits until the creation of a signed Pod fails because the manager refuses the API
// server's call. It returns the error.
func (b *bed) refusedCall(t *testing.T, gun string) (refused error) {
	t.Helper()
	poll.Await(t, "the manager to refuse the API server's call", func() error {
		if refused = b.Create(t.Context(), pod(production, gun+":v1")); refused == nil {
			return errors.New("a Pod was admitted, want an error")
		}
		if !apierrors.IsInternalError(refused) || !strings.Contains(refused.Error(), "failed calling webhook") {
			return refused
		}
		return nil
	})
	return refused
}

func newClientCA(t *testing.T) *tlstest.CA {
	t.Helper()
	ca, err := tlstest.NewCA("countersign client CA")
	must(t, err)
	return ca
}

// admissionConfig writes an API server's configuration with a client certificate for the webhook at
// a URL, and returns its path.
func admissionConfig(t *testing.T, dir string, ca *tlstest.CA, webhook string) string {
	t.Helper()
	u, err := url.Parse(webhook)
	must(t, err)
	c, err := ca.Issue(pkix.Name{CommonName: "kube-apiserver"})
	must(t, err)
	certFile, keyFile, err := c.Write(dir, "webhook-client")
	must(t, err)
	config := clientcmdapi.NewConfig()
	config.AuthInfos[u.Host] = &clientcmdapi.AuthInfo{ClientCertificate: certFile, ClientKey: keyFile}
	kubeconfig := filepath.Join(dir, "webhook-clients.yaml")
	must(t, clientcmd.WriteToFile(*config, kubeconfig))
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n"
	for _, plugin := range []string{"MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"} {
		text += fmt.Sprintf(
			"- name: %s\n  configuration:\n    apiVersion: apiserver.config.k8s.io/v1\n    kind: "+
				"WebhookAdmissionConfiguration\n    kubeConfigFile: %s\n", plugin, kubeconfig)
	}
	path := filepath.Join(dir, "admission.yaml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}
