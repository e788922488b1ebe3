package gate

import (
	"context"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// platform is what the admissions enforcer of AKS adds.
func platform() []metav1.LabelSelectorRequirement {
	return []metav1.LabelSelectorRequirement{
		{Key: "control-plane", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"true"}},
		{Key: "kubernetes.azure.com/managedby", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"aks"}},
	}
}

// TestThreatContestedGateIsSaid has a rival that edits, or deletes, both configurations as soon as
// they are restored, for thirty seconds. There must be few writes and a condition that names the
// field. Then the rival stops.
func TestThreatContestedGateIsSaid(t *testing.T) {
	b := newGateBed(t)
	b.Make(t, owner())
	for name, c := range map[string]struct {
		rival   func(context.Context, client.Object) error
		message string
	}{
		"edited": {func(ctx context.Context, o client.Object) error {
			switch o := o.(type) {
			case *admissionv1.MutatingWebhookConfiguration:
				s := o.Webhooks[0].NamespaceSelector
				s.MatchExpressions = append(s.MatchExpressions, platform()...)
			case *admissionv1.ValidatingWebhookConfiguration:
				s := o.Webhooks[0].NamespaceSelector
				s.MatchExpressions = append(s.MatchExpressions, platform()...)
			}
			return b.Update(ctx, o)
		}, "webhooks[0].namespaceSelector of ValidatingWebhookConfiguration countersign is not what it must be; " +
			"webhooks[0].namespaceSelector of MutatingWebhookConfiguration countersign is not what it must be; " +
			"something keeps changing or deleting it"},
		"deleted": {
			func(ctx context.Context, o client.Object) error { return b.Delete(ctx, o) },
			"ValidatingWebhookConfiguration countersign is missing",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b.restart(t, &authority{bundle: "first"})
			b.reconcile(t)
			b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace, "")
			b.told("")
			writes, said := b.fight(t, 300, c.rival, c.message)
			// At once, thrice; then after 1, 2, 4 and 8 s: 15 of the 30.
			if want := 2 * (contestBurst + 4); writes != want {
				t.Errorf("%d writes, want %d", writes, want)
			}
			if !said {
				t.Error("no condition or event reported the contest")
			}
			b.wants(t, metav1.ConditionFalse, v1alpha1.ReasonConfigurationContested, c.message)
			if told := b.told(v1alpha1.ReasonConfigurationContested); told != 3 {
				t.Errorf("%d events for three policies", told)
			}
			b.peace(t)
		})
	}
}

// fight makes the rival change the configurations every tenth of a second, whenever they are in
// place. It returns how often they were restored, and whether the policies reported the contest as
// soon as a restoration was delayed.
func (b *gateBed) fight(t *testing.T, rounds int, rival func(context.Context, client.Object) error,
	message string) (writes int, said bool) {
	t.Helper()
	in := b.inPlace(t)
	for range rounds {
		for _, o := range in {
			if err := rival(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
		if again := b.reconcile(t); again <= 0 {
			t.Fatal("it never looks again")
		}
		in = b.inPlace(t)
		writes += len(in)
		if len(in) < 2 && !said {
			b.wants(t, metav1.ConditionFalse, v1alpha1.ReasonConfigurationContested, message)
			said = true
		}
		b.clock.Step(100 * time.Millisecond)
	}
	return writes, said
}

// inPlace returns the configurations with the right selectors.
func (b *gateBed) inPlace(t *testing.T) []client.Object {
	t.Helper()
	want := b.configurations.namespaces()
	var all []client.Object
	for _, o := range both() {
		if err := b.Get(t.Context(), client.ObjectKeyFromObject(o), o); client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		var selector *metav1.LabelSelector
		switch o := o.(type) {
		case *admissionv1.MutatingWebhookConfiguration:
			if len(o.Webhooks) > 0 {
				selector = o.Webhooks[0].NamespaceSelector
			}
		case *admissionv1.ValidatingWebhookConfiguration:
			if len(o.Webhooks) > 0 {
				selector = o.Webhooks[0].NamespaceSelector
			}
		}
		if selector != nil && len(selector.MatchExpressions) == len(want.MatchExpressions) {
			all = append(all, o)
		}
	}
	return all
}

// peace tests that the configurations are restored, count as contested for a while, and then no
// longer.
func (b *gateBed) peace(t *testing.T) {
	t.Helper()
	b.clock.Step(b.reconcile(t))
	again := b.reconcile(t)
	if in := b.inPlace(t); len(in) != 2 {
		t.Fatalf("%d configurations are in place", len(in))
	}
	b.wants(t, metav1.ConditionFalse, v1alpha1.ReasonConfigurationContested, "")
	if again < contestQuiet || again > 4*contestMost {
		t.Errorf("due again in %s", again)
	}
	b.clock.Step(again)
	if again := b.reconcile(t); again != time.Hour {
		t.Errorf("due again in %s, want the interval of the certificate", again)
	}
	b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace, "")
	if told := b.told(v1alpha1.ReasonConfigurationsInPlace); told != 3 {
		t.Errorf("%d events for three policies", told)
	}
}
