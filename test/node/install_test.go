//go:build node && linux

package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/certs"
)

const (
	selector    = "app.kubernetes.io/name=countersign,app.kubernetes.io/component=manager"
	owner       = "countersign-webhook-owner"  // a ClusterRole
	metricsRole = "countersign-metrics-reader" // a ClusterRole
)

// install applies the manifests of the previous release to an empty cluster. A Pod that runs
// already must keep running.
func (b *bed) install(t *testing.T) {
	must(t,
		b.Create(t.Context(), &corev1.Namespace{
			ObjectMeta: metav1.ObjectMeta{Name: shop, Labels: map[string]string{"env": "production"}},
		}))
	b.await(t, "the service account of "+shop, func(ctx context.Context) error {
		return b.Get(ctx, client.ObjectKey{Namespace: shop, Name: "default"}, &corev1.ServiceAccount{})
	})
	legacy := pod(b.tag("v0"))
	legacy.Name = "legacy"
	must(t, b.Create(t.Context(), legacy))
	b.running(t, legacy)

	b.apply(t, b.Operators[0])
	b.rolledOut(t, b.Operators[0])
	b.configured(t)
	if err := b.Get(t.Context(), client.ObjectKeyFromObject(legacy), legacy); err != nil ||
		legacy.Status.Phase != corev1.PodRunning {
		t.Errorf("the older Pod: got phase %q, %v; want Running", legacy.Status.Phase, err)
	}

	namespace := &corev1.Namespace{}
	must(t, b.Get(t.Context(), client.ObjectKey{Name: own}, namespace))
	if got := namespace.Labels["pod-security.kubernetes.io/enforce"]; got != "restricted" {
		t.Errorf("got Pod Security %q of %s, want restricted", got, own)
	}
	plain := pod(b.tag("v0"))
	plain.Namespace = own
	if err := b.Create(t.Context(), plain, client.DryRunAll); err == nil ||
		!strings.Contains(err.Error(), "violates PodSecurity") {
		t.Errorf("a Pod in %s that is not restricted: got %v, want it refused by Pod Security", own, err)
	}
}

// apply runs kubectl apply with the manifests of a version.
func (b *bed) apply(t *testing.T, o version) {
	t.Helper()
	_, err := b.kubectl("apply", "--filename="+o.Manifests)
	must(t, err)
}

// rolledOut waits until all replicas of a version are available, and no other replica exists.
func (b *bed) rolledOut(t *testing.T, o version) {
	t.Helper()
	b.await(t, fmt.Sprintf("%d replicas of %s", o.Replicas, o.Version), func(ctx context.Context) error {
		d := &appsv1.Deployment{}
		if err := b.Get(ctx, client.ObjectKey{Namespace: own, Name: manager}, d); err != nil {
			return err
		}
		s := d.Status
		if s.ObservedGeneration != d.Generation || s.UpdatedReplicas != o.Replicas ||
			s.AvailableReplicas != o.Replicas || s.Replicas != o.Replicas {
			return fmt.Errorf("%+v", s)
		}
		pods, err := b.replicas(ctx)
		if err != nil {
			return err
		}
		if len(pods) != int(o.Replicas) {
			return fmt.Errorf("got %d Pods, want %d", len(pods), o.Replicas)
		}
		for _, p := range pods {
			if status := p.Status.ContainerStatuses; len(status) != 1 || status[0].ImageID != o.Image {
				return fmt.Errorf("%s: got %+v, want image %s", p.Name, status, o.Image)
			}
		}
		return nil
	})
}

// replicas returns the Pods of the operator.
func (b *bed) replicas(ctx context.Context) ([]corev1.Pod, error) {
	list := &corev1.PodList{}
	parsed, err := metav1.ParseToLabelSelector(selector)
	if err != nil {
		return nil, err
	}
	labels, err := metav1.LabelSelectorAsSelector(parsed)
	if err != nil {
		return nil, err
	}
	err = b.List(ctx, list, client.InNamespace(own), client.MatchingLabelsSelector{Selector: labels})
	return list.Items, err
}

// configured waits until both webhook configurations name the operator's Service, with a CA and the
// right owner.
func (b *bed) configured(t *testing.T) {
	t.Helper()
	b.await(t, "the webhook configurations", func(ctx context.Context) error {
		validating := &admissionv1.ValidatingWebhookConfiguration{}
		mutating := &admissionv1.MutatingWebhookConfiguration{}
		if err := b.Get(ctx, client.ObjectKey{Name: configs}, validating); err != nil {
			return err
		}
		if err := b.Get(ctx, client.ObjectKey{Name: configs}, mutating); err != nil {
			return err
		}
		clientConfigs := []admissionv1.WebhookClientConfig{
			validating.Webhooks[0].ClientConfig, mutating.Webhooks[0].ClientConfig,
		}
		for i, o := range []client.Object{validating, mutating} {
			if owners := o.GetOwnerReferences(); len(owners) != 1 || owners[0].Kind != "ClusterRole" ||
				owners[0].Name != owner {
				return fmt.Errorf("%T: got owners %+v, want ClusterRole %s", o, owners, owner)
			}
			if c := clientConfigs[i]; c.URL != nil || c.Service == nil || c.Service.Name != "countersign-webhook" ||
				c.Service.Namespace != own || len(c.CABundle) == 0 {
				return fmt.Errorf("%T: got %+v, want Service countersign-webhook, with a CA", o, c)
			}
		}
		return nil
	})
}

// reached waits until the API server calls the webhook and gets a response. The API server loads
// the configurations, and kube-proxy the Service's endpoints, a moment after they exist.
func (b *bed) reached(t *testing.T) {
	t.Helper()
	b.await(t, "a response of the webhook", func(ctx context.Context) error {
		err := b.Create(ctx, pod(b.tag(unsignedTag)), client.DryRunAll)
		switch {
		case err == nil:
			return errors.New("admitted, want a call of the webhook")
		case strings.Contains(err.Error(), "failed calling webhook"):
			return err
		}
		return nil
	})
}

// metrics requests the metrics through their Service: without a token, with a token of an account
// without rights, and with one that has the right.
func (b *bed) metrics(t *testing.T) {
	service := &corev1.Service{}
	must(t, b.Get(t.Context(), client.ObjectKey{Namespace: own, Name: "countersign-metrics"}, service))
	secret := &corev1.Secret{}
	must(t, b.Get(t.Context(), client.ObjectKey{Namespace: own, Name: certs.SecretName}, secret))
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(secret.Data["ca.crt"]) {
		t.Fatal("no CA in the Secret of the serving certificate")
	}
	get := func(token string) (int, string, error) {
		url := "https://" + net.JoinHostPort(service.Spec.ClusterIP, "8443") + "/metrics"
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			return 0, "", err
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		transport := &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: "countersign-webhook." + own + ".svc"},
			DisableKeepAlives: true,
		}
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body), err
	}
	want := func(token string, code int, text string) {
		t.Helper()
		b.await(t, fmt.Sprintf("status %d of the metrics", code), func(context.Context) error {
			got, body, err := get(token)
			if err == nil && (got != code || !strings.Contains(body, text)) {
				err = fmt.Errorf("got status %d, %.200q; want %q", got, body, text)
			}
			return err
		})
	}
	want("", http.StatusUnauthorized, "")
	token := b.token(t, "scraper")
	want(token, http.StatusForbidden, "")
	must(t, b.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "scraper"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: metricsRole},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: shop, Name: "scraper"}},
	}))
	want(token, http.StatusOK, "countersign_")
}

// token creates a ServiceAccount in the shop, and returns a token of it.
func (b *bed) token(t *testing.T, account string) string {
	t.Helper()
	made := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: account}}
	must(t, b.Create(t.Context(), made))
	request := &authenticationv1.TokenRequest{}
	must(t, b.SubResource("token").Create(t.Context(), made, request))
	return request.Status.Token
}
