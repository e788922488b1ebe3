package install

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/recordmap"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/trust"
)

// refusal is how the API server says that a ValidatingAdmissionPolicy of the component refused a
// write.
const refusal = "ValidatingAdmissionPolicy 'countersign-own-"

// testRestricted installs with the component restrict-operator, and wants the operator to do its
// work under it, and whoever has stolen its token to write no webhook configuration by which
// somebody else, or the operator itself, hears of more than workloads. What the thief tries is a
// dry run.
func (b *bed) testRestricted(t *testing.T) {
	restricted := *b
	restricted.manifest = render(t, "restrict-operator")
	restricted.install(t)
	defer restricted.uninstall(t)
	config := rest.AnonymousClientConfig(b.kube.Config)
	config.BearerToken = b.token(t, operator.Namespace, "countersign-manager")
	thief, err := client.New(config, client.Options{Scheme: b.Scheme()})
	must(t, err)
	poll.Await(t, "the policies to be in force", func() error {
		for _, o := range []client.Object{
			&admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "another"}},
			&admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "another"}},
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operator.Namespace, Name: "another"}},
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: operator.Namespace, Name: "another"}},
		} {
			if err := thief.Create(t.Context(), o, client.DryRunAll); err == nil ||
				!strings.Contains(err.Error(), refusal) {
				return fmt.Errorf("creating another %T: %w", o, err)
			}
		}
		return nil
	})
	restricted.endpoint(t)
	// The further kinds are in the rules, and the Service in place of the URL by which other tests
	// reach the manager.
	m := restricted.manager(t, "--webhook-url=",
		"--workload-kinds=rollouts.v1alpha1.example.com=spec.template,jobsets.v1alpha2.jobset.x-k8s.io=spec.template")
	restricted.testRestored(t)
	must(t, m.Stop())
	t.Run("another name", func(t *testing.T) { restricted.testOtherNames(t, thief) })
	t.Run("its own configurations", func(t *testing.T) { restricted.testOwnConfigurations(t, thief) })
	t.Run("Secrets", func(t *testing.T) { restricted.testSecrets(t, thief) })
	t.Run("ConfigMaps", func(t *testing.T) { restricted.testConfigMaps(t, thief) })
}

// endpoint gives the webhook's Service an endpoint that counts as ready, since no kubelet has a Pod
// be so.
func (b *bed) endpoint(t *testing.T) {
	t.Helper()
	must(t, b.Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: operator.Namespace, Name: "countersign-webhook-test",
			Labels: map[string]string{discoveryv1.LabelServiceName: "countersign-webhook"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"192.0.2.1"}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}},
		},
		Ports: []discoveryv1.EndpointPort{
			{Name: new("webhook"), Port: new(int32(9443)), Protocol: new(corev1.ProtocolTCP)},
		},
	}))
}

// testRestored has somebody narrow one configuration and delete the other, and wants the operator
// to put both back.
func (b *bed) testRestored(t *testing.T) {
	t.Helper()
	mutating, validating := b.own(t)
	kept := validating.Webhooks[0].DeepCopy()
	validating.Webhooks[0].Rules = validating.Webhooks[0].Rules[:1]
	must(t, b.Update(t.Context(), validating))
	must(t, b.Delete(t.Context(), mutating))
	poll.Await(t, "both configurations to be put back", func() error {
		for _, o := range []client.Object{mutating, validating} {
			if err := b.Get(t.Context(), client.ObjectKey{Name: "countersign"}, o); err != nil {
				return err
			}
		}
		if got := len(validating.Webhooks[0].Rules); got != len(kept.Rules) {
			return fmt.Errorf("there are %d rules of %d", got, len(kept.Rules))
		}
		return nil
	})
	if service := validating.Webhooks[0].ClientConfig.Service; service == nil || service.Name != "countersign-webhook" {
		t.Errorf("the webhook is reached by %v", validating.Webhooks[0].ClientConfig)
	}
}

// own returns the operator's two configurations.
func (b *bed) own(t *testing.T) (*admissionv1.MutatingWebhookConfiguration,
	*admissionv1.ValidatingWebhookConfiguration) {
	t.Helper()
	mutating, validating := &admissionv1.MutatingWebhookConfiguration{}, &admissionv1.ValidatingWebhookConfiguration{}
	must(t, b.Get(t.Context(), client.ObjectKey{Name: "countersign"}, mutating))
	must(t, b.Get(t.Context(), client.ObjectKey{Name: "countersign"}, validating))
	return mutating, validating
}

// testOtherNames copies the operator's configurations, which are good in all else, under names of
// the thief's. Whoever else may is not bound.
func (b *bed) testOtherNames(t *testing.T, thief client.Client) {
	mutating, validating := b.own(t)
	for _, name := range []metav1.ObjectMeta{{Name: "another"}, {Name: "countersign2"}, {GenerateName: "countersign"}} {
		mutating.ObjectMeta, validating.ObjectMeta = name, name
		for _, o := range []client.Object{mutating, validating} {
			err := thief.Create(t.Context(), o.DeepCopyObject().(client.Object), client.DryRunAll)
			if err == nil || !strings.Contains(err.Error(), refusal) {
				t.Errorf("%T %v: %v, want it refused by the policy", o, name, err)
			}
			if err := b.Create(t.Context(), o.DeepCopyObject().(client.Object), client.DryRunAll); err != nil {
				t.Errorf("%T %v by an administrator: %v", o, name, err)
			}
		}
	}
}

// A change is one that a thief makes in a webhook of the operator's, or in the rules and the way to
// it that both kinds have.
type change struct {
	client  func(*admissionv1.WebhookClientConfig)
	rules   func(*admissionv1.RuleWithOperations)
	policy  admissionv1.FailurePolicyType
	name    string
	allowed bool
}

func changes() map[string]change {
	to := func(group, resource string) func(r *admissionv1.RuleWithOperations) {
		return func(r *admissionv1.RuleWithOperations) {
			r.APIGroups, r.Resources = []string{group}, []string{resource}
		}
	}
	also := func(resource string) func(r *admissionv1.RuleWithOperations) {
		return func(r *admissionv1.RuleWithOperations) { r.Resources = append(r.Resources, resource) }
	}
	scope := func(s admissionv1.ScopeType) func(r *admissionv1.RuleWithOperations) {
		return func(r *admissionv1.RuleWithOperations) { r.Scope = &s }
	}
	on := func(operation admissionv1.OperationType) func(r *admissionv1.RuleWithOperations) {
		return func(r *admissionv1.RuleWithOperations) {
			r.Operations = []admissionv1.OperationType{operation}
		}
	}
	return map[string]change{
		"none": {allowed: true},
		"another CA": {
			client: func(c *admissionv1.WebhookClientConfig) { c.CABundle = nil }, allowed: true,
		},
		"another further kind":    {rules: to("apps.example.com", "clonesets"), allowed: true},
		"a kind of a sub-project": {rules: to("jobset.x-k8s.io", "jobsets"), allowed: true},
		"Deployments again":       {rules: to("apps", "deployments"), allowed: true},
		"another Service": {
			client: func(c *admissionv1.WebhookClientConfig) { c.Service.Name = "countersign-metrics" },
		},
		"a Service of a team": {
			client: func(c *admissionv1.WebhookClientConfig) { c.Service.Namespace = covered },
		},
		"a URL": {
			client: func(c *admissionv1.WebhookClientConfig) {
				c.Service, c.URL = nil, new("https://evil.example.com")
			},
		},
		"failures ignored":         {policy: admissionv1.Ignore},
		"another name":             {name: "intercept.example.com"},
		"Secrets":                  {rules: to("", "secrets")},
		"Secrets besides":          {rules: also("secrets")},
		"ConfigMaps":               {rules: to("", "configmaps")},
		"everything":               {rules: to("*", "*")},
		"everything of the core":   {rules: to("", "*")},
		"everything of apps":       {rules: to("apps", "*")},
		"everything of a group":    {rules: to("apps.example.com", "*")},
		"any subresource":          {rules: to("", "pods/*")},
		"tokens":                   {rules: to("", "serviceaccounts/token")},
		"exec":                     {rules: to("", "pods/exec")},
		"the status of a kind":     {rules: to("example.com", "rollouts/status")},
		"any group's Deployments":  {rules: to("*", "deployments")},
		"bindings of roles":        {rules: to("rbac.authorization.k8s.io", "rolebindings")},
		"leases":                   {rules: to("coordination.k8s.io", "leases")},
		"a group without a domain": {rules: to("autoscaling", "horizontalpodautoscalers")},
		"Routes":                   {rules: to("route.openshift.io", "routes")},
		"what is cluster-scoped":   {rules: scope(admissionv1.ClusterScope)},
		"any scope":                {rules: scope(admissionv1.AllScopes)},
		"deletions":                {rules: on(admissionv1.Delete)},
		"any operation":            {rules: on(admissionv1.OperationAll)},
		"connections":              {rules: on(admissionv1.Connect)},
	}
}

// testOwnConfigurations changes the operator's configurations, both of them in the same way.
func (b *bed) testOwnConfigurations(t *testing.T, thief client.Client) {
	for name, c := range changes() {
		mutating, validating := b.own(t)
		apply := func(webhook *string, way *admissionv1.WebhookClientConfig, rules *[]admissionv1.RuleWithOperations,
			policy **admissionv1.FailurePolicyType) {
			if c.name != "" {
				*webhook = c.name
			}
			if c.client != nil {
				c.client(way)
			}
			if c.rules != nil {
				last := (*rules)[0].DeepCopy()
				c.rules(last)
				*rules = append(*rules, *last)
			}
			if c.policy != "" {
				*policy = &c.policy
			}
		}
		m, v := &mutating.Webhooks[0], &validating.Webhooks[0]
		apply(&m.Name, &m.ClientConfig, &m.Rules, &m.FailurePolicy)
		apply(&v.Name, &v.ClientConfig, &v.Rules, &v.FailurePolicy)
		b.judged(t, thief, name, c.allowed, mutating, validating)
	}
	for name, c := range map[string]struct {
		change  func(m *admissionv1.MutatingWebhookConfiguration, v *admissionv1.ValidatingWebhookConfiguration)
		allowed bool
	}{
		"no webhook": {func(m *admissionv1.MutatingWebhookConfiguration,
			v *admissionv1.ValidatingWebhookConfiguration) {
			m.Webhooks, v.Webhooks = nil, nil
		}, false},
		"no rules": {func(m *admissionv1.MutatingWebhookConfiguration, v *admissionv1.ValidatingWebhookConfiguration) {
			m.Webhooks[0].Rules, v.Webhooks[0].Rules = nil, nil
		}, false},
		"one more webhook": {func(m *admissionv1.MutatingWebhookConfiguration,
			v *admissionv1.ValidatingWebhookConfiguration) {
			m.Webhooks, v.Webhooks = append(m.Webhooks, *m.Webhooks[0].DeepCopy()), append(v.Webhooks,
				*v.Webhooks[0].DeepCopy())
			m.Webhooks[1].Name, v.Webhooks[1].Name = "intercept.example.com", "intercept.example.com"
		}, false},
		"the name of the other's webhook": {func(m *admissionv1.MutatingWebhookConfiguration,
			v *admissionv1.ValidatingWebhookConfiguration) {
			m.Webhooks[0].Name, v.Webhooks[0].Name = v.Webhooks[0].Name, m.Webhooks[0].Name
		}, false},
		"labels, annotations, owners, conditions": {func(m *admissionv1.MutatingWebhookConfiguration,
			v *admissionv1.ValidatingWebhookConfiguration) {
			for _, o := range []client.Object{m, v} {
				o.SetLabels(map[string]string{"a": "b"})
				o.SetAnnotations(map[string]string{"a": "b"})
				o.SetOwnerReferences(append(o.GetOwnerReferences(), metav1.OwnerReference{
					APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRole", Name: "x", UID: "x",
				}))
			}
			more := admissionv1.MatchCondition{Name: "more", Expression: "true"}
			m.Webhooks[0].MatchConditions, v.Webhooks[0].MatchConditions = append(m.Webhooks[0].MatchConditions,
				more), append(v.Webhooks[0].MatchConditions, more)
		}, true},
		"no namespaces left out": {func(m *admissionv1.MutatingWebhookConfiguration,
			v *admissionv1.ValidatingWebhookConfiguration) {
			m.Webhooks[0].NamespaceSelector, v.Webhooks[0].NamespaceSelector = nil, nil
		}, false},
		"kube-system not left out": {func(m *admissionv1.MutatingWebhookConfiguration,
			v *admissionv1.ValidatingWebhookConfiguration) {
			for _, s := range []*metav1.LabelSelector{
				m.Webhooks[0].NamespaceSelector, v.Webhooks[0].NamespaceSelector,
			} {
				values := &s.MatchExpressions[0].Values
				*values = slices.DeleteFunc(*values, func(name string) bool { return name == "kube-system" })
			}
		}, false},
		"one more namespace left out": {func(m *admissionv1.MutatingWebhookConfiguration,
			v *admissionv1.ValidatingWebhookConfiguration) {
			for _, s := range []*metav1.LabelSelector{
				m.Webhooks[0].NamespaceSelector, v.Webhooks[0].NamespaceSelector,
			} {
				s.MatchExpressions[0].Values = append(s.MatchExpressions[0].Values, "infra")
			}
		}, true},
	} {
		mutating, validating := b.own(t)
		c.change(mutating, validating)
		b.judged(t, thief, name, c.allowed, mutating, validating)
	}
}

// judged has the thief write configurations, and wants the policy alone to decide.
func (b *bed) judged(t *testing.T, thief client.Client, name string, allowed bool, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		err := thief.Update(t.Context(), o, client.DryRunAll)
		if refused := err != nil && strings.Contains(err.Error(), refusal); refused == allowed ||
			allowed && err != nil {
			t.Errorf("%s, %T: %v, want it allowed: %t", name, o, err, allowed)
		}
	}
}

// testSecrets has the thief ask for a token of a ServiceAccount by a Secret, under whatever name.
// The operator's own Secret was made under the policy.
func (b *bed) testSecrets(t *testing.T, thief client.Client) {
	own := &corev1.Secret{}
	must(t,
		b.Get(t.Context(), client.ObjectKey{Namespace: operator.Namespace, Name: "countersign-webhook-certificate"},
			own))
	must(t, b.Delete(t.Context(), own))
	token := metav1.ObjectMeta{
		Namespace: operator.Namespace, Name: own.Name,
		Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"},
	}
	another := *token.DeepCopy()
	another.Name = "another"
	for name, c := range map[string]struct {
		secret  *corev1.Secret
		allowed bool
	}{
		"its own": {
			&corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: own.Namespace, Name: own.Name}, Type: own.Type, Data: own.Data,
			}, true,
		},
		"a token": {
			&corev1.Secret{ObjectMeta: another, Type: corev1.SecretTypeServiceAccountToken}, false,
		},
		"a token as its own":    {&corev1.Secret{ObjectMeta: token, Type: corev1.SecretTypeServiceAccountToken}, false},
		"another certificate":   {&corev1.Secret{ObjectMeta: another, Type: own.Type, Data: own.Data}, false},
		"of no type as its own": {&corev1.Secret{ObjectMeta: token}, false},
	} {
		err := thief.Create(t.Context(), c.secret, client.DryRunAll)
		if refused := err != nil && strings.Contains(err.Error(), refusal); refused == c.allowed ||
			c.allowed && err != nil {
			t.Errorf("%s: %v, want it allowed: %t", name, err, c.allowed)
		}
	}
}

// testConfigMaps has the thief write over the keys of a trust root, and what the operator may
// write.
func (b *bed) testConfigMaps(t *testing.T, thief client.Client) {
	for name, allowed := range map[string]bool{
		recordmap.Name("uid", trust.Subject{Repository: "registry.example.com/acme/app"}): true, "root-keys": false,
		"countersign-trusted-ca": false, "countersign-metadata": false,
	} {
		o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: operator.Namespace, Name: name}}
		judge := func(what string, err error) {
			if refused := err != nil && strings.Contains(err.Error(), refusal); refused == allowed ||
				allowed && err != nil {
				t.Errorf("%s %s: %v, want it allowed: %t", what, name, err, allowed)
			}
		}
		judge("create", thief.Create(t.Context(), o.DeepCopy(), client.DryRunAll))
		must(t, b.Create(t.Context(), o))
		judge("update", thief.Update(t.Context(), o.DeepCopy(), client.DryRunAll))
		judge("delete", thief.Delete(t.Context(), o.DeepCopy(), client.DryRunAll))
	}
}
