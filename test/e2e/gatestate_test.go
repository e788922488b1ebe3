package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

func webhookOwner() *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "countersign-webhook-owner"}}
}

// gated waits for the condition Gated of a policy, and until Ready and the metric agree with it.
func (b *bed) gated(t *testing.T, policy string, status metav1.ConditionStatus, reason string) string {
	t.Helper()
	message := b.condition(t, &v1alpha1.ImagePolicy{}, policy, v1alpha1.ConditionGated, status, reason)
	ready, metric := reason, 0.
	if status == metav1.ConditionTrue {
		ready, metric = v1alpha1.ReasonInForce, 1
	}
	b.ready(t, &v1alpha1.ImagePolicy{}, policy, status, ready)
	poll.Await(t, "the metric", func() error {
		if got, there := b.scrape(t)["countersign_gated"]; !there || got != metric {
			return fmt.Errorf("got countersign_gated %v (exported: %t), want %v", got, there, metric)
		}
		return nil
	})
	return message
}

// testGateAbsent deletes the ClusterRole that owns the webhook configurations, and creates it
// again.
func (b *bed) testGateAbsent(t *testing.T) {
	unsigned := registry + "/acme/nobody-signed:v1"
	b.gated(t, "production", metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace)
	b.denied(t, pod(production, unsigned), http.StatusForbidden, `role "ci"`)

	must(t, b.Delete(t.Context(), webhookOwner()))
	t.Log(b.gated(t, "production", metav1.ConditionFalse, v1alpha1.ReasonWebhookOwnerMissing))
	b.awaitAdmitted(t, "the API server to call no webhook", production, unsigned)
	late := b.policy("late", registry+"/late/**", "acme-notary", "ci")
	late.Spec.Mode = v1alpha1.ModeWarn
	b.create(t, late)
	b.gated(t, "late", metav1.ConditionFalse, v1alpha1.ReasonWebhookOwnerMissing)
	b.event(t, "ImagePolicy", "late", v1alpha1.ReasonWebhookOwnerMissing)

	b.create(t, webhookOwner())
	for _, policy := range []string{"production", "late"} {
		b.gated(t, policy, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace)
	}
	must(t, b.Delete(t.Context(), late))
	b.shutAgain(t, unsigned)

	// The garbage collector deletes the configurations that the deleted ClusterRole owned.
	must(t, b.Delete(t.Context(), webhookOwner()))
	role := webhookOwner()
	b.create(t, role)
	began := time.Now()
	poll.Await(t, "configurations of the new owner", func() error {
		for _, o := range []client.Object{
			&admissionv1.MutatingWebhookConfiguration{}, &admissionv1.ValidatingWebhookConfiguration{},
		} {
			if err := b.Get(t.Context(), client.ObjectKey{Name: "countersign"}, o); err != nil {
				return err
			}
			if owners := o.GetOwnerReferences(); len(owners) != 1 || owners[0].UID != role.UID {
				return fmt.Errorf("got owners %v of %T, want the new ClusterRole", owners, o)
			}
		}
		return nil
	})
	t.Logf("both exist %s after the owner was replaced", time.Since(began).Round(10*time.Millisecond))
	b.gated(t, "production", metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace)
	b.shutAgain(t, unsigned)
}

// shutAgain waits until the API server calls the webhook again, and an image is denied.
func (b *bed) shutAgain(t *testing.T, unsigned string) {
	t.Helper()
	b.awaitDenied(t, "the gate to be shut", production, unsigned)
}

// testPlatform adds a platform's expressions to the namespaceSelector each time that the manager
// removes them. When every policy reports the contest, it stops.
func (b *bed) testPlatform(t *testing.T) {
	const writes = `countersign_webhook_configuration_writes_total{cause="restored",configuration="validating"}`
	before, edits := b.scrape(t)[writes], 0
	key, c, p := client.ObjectKey{
		Name: "countersign",
	}, &admissionv1.ValidatingWebhookConfiguration{}, &v1alpha1.ImagePolicy{}
	poll.Await(t, "a policy that reports the contest over the configuration", func() error {
		if err := errors.Join(
			b.Get(t.Context(), key, c), b.Get(t.Context(), client.ObjectKey{Name: "production"}, p),
		); err != nil {
			return err
		}
		if s := c.Webhooks[0].NamespaceSelector; len(s.MatchExpressions) == 1 {
			s.MatchExpressions = append(s.MatchExpressions,
				metav1.LabelSelectorRequirement{
					Key: "control-plane", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"true"},
				},
				metav1.LabelSelectorRequirement{
					Key: "kubernetes.azure.com/managedby", Operator: metav1.LabelSelectorOpNotIn,
					Values: []string{"aks"},
				},
			)
			if err := b.Update(t.Context(), c); err != nil {
				return err // a conflict: the manager has updated it in between
			}
			edits++
		}
		for _, is := range p.Status.Conditions {
			if is.Type == v1alpha1.ConditionGated && is.Reason == v1alpha1.ReasonConfigurationContested {
				t.Log(is.Message)
				return nil
			}
		}
		return fmt.Errorf("after %d edits: got conditions %v", edits, p.Status.Conditions)
	})
	b.gated(t, "production", metav1.ConditionFalse, v1alpha1.ReasonConfigurationContested)
	b.event(t, "ImagePolicy", "production", v1alpha1.ReasonConfigurationContested)
	b.gated(t, "production", metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace)
	must(t, b.Get(t.Context(), key, c))
	if got := len(c.Webhooks[0].NamespaceSelector.MatchExpressions); got != 1 {
		t.Errorf("got %d expressions in the selector, want 1", got)
	}
	if got := b.scrape(t)[writes] - before; got > float64(edits) || edits > 5 {
		t.Errorf("got %v writes after %d edits, want no more writes than edits, and at most 5 edits", got, edits)
	}
}
