package gate

import (
	"fmt"
	"slices"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/controlplane"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// TestWebhookConfigurations has the tests without a threat of their own, on one API server.
func TestWebhookConfigurations(t *testing.T) {
	b := newGateBed(t)
	b.Make(t, owner())
	b.reconcile(t)
	t.Run("created", b.testCreated)
	t.Run("left alone", b.testLeftAlone)
	t.Run("corrected", b.testPutRight)
	t.Run("a new CA is no contest", b.testNewCA)
	t.Run("first creation", b.testFirstCreation)
	t.Run("woken by an endpoint", b.testWoken)
}

// testWoken runs the reconciler in a manager with a stopped clock: only the endpoint can end its
// wait.
func (b *gateBed) testWoken(t *testing.T) {
	b.delete(t, both()...)
	if err := b.DeleteAllOf(t.Context(), &discoveryv1.EndpointSlice{},
		client.InNamespace(operator.Namespace)); err != nil {
		t.Fatal(err)
	}
	b.restart(t, &authority{bundle: "first"})
	mgr := b.NewManager(t, nil, ctrl.Options{})
	r := b.configurations
	r.Client, r.Live, r.URL = mgr.GetClient(), mgr.GetAPIReader(), ""
	if err := r.SetupWithManager(mgr); err != nil {
		t.Fatal(err)
	}
	stop := controlplane.Start(t, mgr)
	defer func() {
		if err := stop(); err != nil {
			t.Errorf("the manager ended with %v, want no error", err)
		}
	}()
	poll.AwaitTrue(t, "a wait for an endpoint", func() bool {
		s := r.Observation.load()
		return s != nil && s.reason == v1alpha1.ReasonWaitingForEndpoints
	})
	slice := endpoints(ServiceName, new(false))
	b.Make(t, slice)
	slice.Endpoints[0].Conditions.Ready = new(true)
	if err := b.Update(t.Context(), slice); err != nil {
		t.Fatal(err)
	}
	poll.AwaitTrue(t, "the configurations", func() bool { gated, _ := r.Observation.Gated(); return gated })
	b.validating(t)
	b.mutating(t)
}

func (b *gateBed) testCreated(t *testing.T) {
	for _, o := range []client.Object{b.mutating(t), b.validating(t)} {
		if o.GetLabels()["admissions.enforcer/disabled"] != "true" ||
			o.GetAnnotations()["admissions.enforcer/disabled"] != "true" {
			t.Errorf("%T has the labels %v and annotations %v", o, o.GetLabels(), o.GetAnnotations())
		}
	}
}

// edit changes the validating configuration, reconciles, and returns the configuration and whether
// it was written.
func (b *gateBed) edit(t *testing.T,
	change func(*admissionv1.ValidatingWebhookConfiguration)) (*admissionv1.ValidatingWebhookConfiguration, bool) {
	t.Helper()
	c := b.validating(t)
	change(c)
	if err := b.Update(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	b.reconcile(t)
	is := b.validating(t)
	return is, is.ResourceVersion != c.ResourceVersion
}

func (b *gateBed) testLeftAlone(t *testing.T) {
	names := func(values ...string) metav1.LabelSelectorRequirement {
		return metav1.LabelSelectorRequirement{
			Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: values,
		}
	}
	for name, change := range map[string]func(*admissionv1.ValidatingWebhookConfiguration){
		"a label": func(c *admissionv1.ValidatingWebhookConfiguration) {
			c.Labels["example.com/team"] = "platform"
		},
		"a label of ours": func(c *admissionv1.ValidatingWebhookConfiguration) {
			c.Labels["app.kubernetes.io/managed-by"] = "Helm"
		},
		"an annotation": func(c *admissionv1.ValidatingWebhookConfiguration) {
			c.Annotations["example.com/seen"] = "yes"
		},
		"what is exempt": func(c *admissionv1.ValidatingWebhookConfiguration) {
			c.Webhooks[0].NamespaceSelector.MatchExpressions = []metav1.LabelSelectorRequirement{
				names("platform", "kube-system"), names("kube-system"),
			}
		},
		"names of a system": func(c *admissionv1.ValidatingWebhookConfiguration) {
			s := c.Webhooks[0].NamespaceSelector
			s.MatchExpressions = append(s.MatchExpressions, names("kube-system"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, written := b.edit(t, change); written {
				t.Error("it was written")
			}
			b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace, "")
		})
	}
	is, written := b.edit(t, func(c *admissionv1.ValidatingWebhookConfiguration) {
		c.Webhooks[0].FailurePolicy = new(admissionv1.Ignore)
	})
	if !written || is.Labels["example.com/team"] != "platform" || is.Annotations["example.com/seen"] != "yes" {
		t.Errorf("with what had to be put right (%t), others' labels and annotations became %v, %v", written, is.Labels,
			is.Annotations)
	}
}

func (b *gateBed) testPutRight(t *testing.T) {
	if err := b.Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "another"}}); err != nil {
		t.Fatal(err)
	}
	another := &rbacv1.ClusterRole{}
	if err := b.Get(t.Context(), client.ObjectKey{Name: "another"}, another); err != nil {
		t.Fatal(err)
	}
	type configuration = admissionv1.ValidatingWebhookConfiguration
	first := func(c *configuration) *admissionv1.ValidatingWebhook { return &c.Webhooks[0] }
	for name, change := range map[string]func(*configuration){
		"expressions of a platform": func(c *configuration) {
			s := first(c).NamespaceSelector
			s.MatchExpressions = append(s.MatchExpressions, platform()...)
		},
		"another exempt name": func(c *configuration) {
			e := &first(c).NamespaceSelector.MatchExpressions[0]
			e.Values = append(e.Values, "shop")
		},
		"one exempt name less": func(c *configuration) {
			first(c).NamespaceSelector.MatchExpressions[0].Values = []string{"kube-system"}
		},
		"no selector":  func(c *configuration) { first(c).NamespaceSelector = nil },
		"no rules":     func(c *configuration) { first(c).Rules = nil },
		"another path": func(c *configuration) { *first(c).ClientConfig.URL += "/elsewhere" },
		"another webhook": func(c *configuration) {
			more := first(c).DeepCopy()
			more.Name = "more.example.com"
			c.Webhooks = append(c.Webhooks, *more)
		},
		"no owner": func(c *configuration) { c.OwnerReferences = nil },
		"a second owner": func(c *configuration) {
			c.OwnerReferences = append(c.OwnerReferences,
				metav1.OwnerReference{
					APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole", Name: another.Name,
					UID: another.UID,
				})
		},
		"the opt-out as a label":       func(c *configuration) { delete(c.Labels, enforcerOptOut) },
		"the opt-out as an annotation": func(c *configuration) { c.Annotations[enforcerOptOut] = "false" },
	} {
		t.Run(name, func(t *testing.T) {
			b.restart(t, &authority{bundle: "first"})
			b.reconcile(t)
			want := b.validating(t)
			got, written := b.edit(t, change)
			if !written || len(different(got.Webhooks, want.Webhooks)) > 0 ||
				!slices.Equal(got.OwnerReferences, want.OwnerReferences) ||
				got.Labels[enforcerOptOut] != "true" || got.Annotations[enforcerOptOut] != "true" {
				t.Errorf("written: %t; it is %v", written, got)
			}
			b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace, "")
		})
	}
}

// testNewCA replaces the CA often. Each must be written at once and count as no contest.
func (b *gateBed) testNewCA(t *testing.T) {
	ca := &authority{}
	b.restart(t, ca)
	for i := range 3 * contestBurst {
		ca.bundle = fmt.Sprint("CA ", i)
		b.reconcile(t)
		if got := string(b.validating(t).Webhooks[0].ClientConfig.CABundle); got != ca.bundle {
			t.Fatalf("the bundle is %q, want %q", got, ca.bundle)
		}
	}
	b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace, "")
}

// testFirstCreation tests that the first creation waits for a ready endpoint, and that a
// restoration never does.
func (b *gateBed) testFirstCreation(t *testing.T) {
	start := func(t *testing.T) {
		t.Helper()
		b.delete(t, both()...)
		if err := b.DeleteAllOf(t.Context(), &discoveryv1.EndpointSlice{},
			client.InNamespace(operator.Namespace)); err != nil {
			t.Fatal(err)
		}
		b.restart(t, &authority{bundle: "first"})
		b.configurations.URL = ""
	}
	waits := func(t *testing.T) {
		t.Helper()
		if again := b.reconcile(t); again <= 0 || again > endpointPatience {
			t.Errorf("due again in %s", again)
		}
		b.wants(t, metav1.ConditionFalse, v1alpha1.ReasonWaitingForEndpoints, "nothing is checked at admission")
	}
	stands := func(t *testing.T) {
		t.Helper()
		b.reconcile(t)
		b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace, "")
	}
	t.Run("no endpoint is ready", func(t *testing.T) {
		start(t)
		waits(t)
		b.Make(t, endpoints(ServiceName, new(false)))
		b.Make(t, endpoints("countersign-metrics", new(true)))
		elsewhere := endpoints(ServiceName, new(true))
		elsewhere.Namespace = metav1.NamespaceDefault
		b.Make(t, elsewhere)
		waits(t)
		b.Make(t, endpoints(ServiceName, new(true)))
		stands(t)
		// It exists now, so it is restored whatever the endpoints are.
		if err := b.DeleteAllOf(t.Context(), &discoveryv1.EndpointSlice{},
			client.InNamespace(operator.Namespace)); err != nil {
			t.Fatal(err)
		}
		b.delete(t, both()...)
		stands(t)
	})
	t.Run("an endpoint without the condition ready", func(t *testing.T) {
		start(t)
		b.Make(t, endpoints(ServiceName, nil))
		stands(t)
	})
	t.Run("never ready", func(t *testing.T) {
		start(t)
		waits(t)
		b.clock.Step(endpointPatience - time.Second)
		waits(t)
		b.clock.Step(time.Second)
		stands(t)
	})
	t.Run("created by an earlier leader", func(t *testing.T) {
		start(t)
		b.configurations.URL = "https://127.0.0.1:9443"
		b.reconcile(t)
		b.delete(t, b.validating(t))
		b.restart(t, &authority{bundle: "first"})
		b.configurations.URL = ""
		stands(t)
	})
	t.Run("reached by a URL", func(t *testing.T) {
		start(t)
		b.configurations.URL = "https://127.0.0.1:9443"
		stands(t)
	})
}
