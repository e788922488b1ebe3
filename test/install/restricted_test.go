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

// refusal is the text with which the API server reports that a ValidatingAdmissionPolicy of the
// component refused a write.
const refusal = "ValidatingAdmissionPolicy 'countersign-own-"

// testRestricted installs the component restrict-operator. The operator must still work. A thief of
// its token must not be able to write a webhook configuration that sends other objects than
// workloads to anyone, the operator included. The thief's requests are dry runs.
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
				return fmt.Errorf("creating another %T: got %w, want it refused by the policy", o, err)
			}
		}
		return nil
	})
	restricted.endpoint(t)
	// The rules include further kinds. The webhook uses the Service, not a URL as in other tests.
	m := restricted.manager(t, "--webhook-url=",
		"--workload-kinds=rollouts.v1alpha1.example.com=spec.template,jobsets.v1alpha2.jobset.x-k8s.io=spec.template")
	restricted.testRestored(t)
	must(t, m.Stop())
	t.Run("another name", func(t *testing.T) { restricted.testOtherNames(t, thief) })
	t.Run("its own configurations", func(t *testing.T) { restricted.testOwnConfigurations(t, thief) })
	t.Run("Secrets", func(t *testing.T) { restricted.testSecrets(t, thief) })
	t.Run("ConfigMaps", func(t *testing.T) { restricted.testConfigMaps(t, thief) })
}

// endpoint creates a ready endpoint of the webhook's Service. No kubelet makes a Pod ready here.
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

// testRestored narrows one configuration and deletes the other. The operator must restore both.
func (b *bed) testRestored(t *testing.T) {
	t.Helper()
	mutating, validating := b.own(t)
	kept := validating.DeepCopy()
	validating.Webhooks[0].Rules = validating.Webhooks[0].Rules[:1]
	must(t, b.Patch(t.Context(), validating, client.MergeFrom(kept))) // cannot conflict with the manager
	must(t, b.Delete(t.Context(), mutating))
	poll.Await(t, "both configurations to be restored", func() error {
		for _, o := range []client.Object{mutating, validating} {
			if err := b.Get(t.Context(), client.ObjectKey{Name: "countersign"}, o); err != nil {
				return err
			}
		}
		if got, want := len(validating.Webhooks[0].Rules), len(kept.Webhooks[0].Rules); got != want {
			return fmt.Errorf("got %d rules, want %d", got, want)
		}
		return nil
	})
	if service := validating.Webhooks[0].ClientConfig.Service; service == nil || service.Name != "countersign-webhook" {
		t.Errorf("got client config %v, want Service countersign-webhook", validating.Webhooks[0].ClientConfig)
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

// testOtherNames creates copies of the operator's configurations under other names. The thief must
// be refused. Other users with the right to create them are not restricted.
func (b *bed) testOtherNames(t *testing.T, thief client.Client) {
	mutating, validating := b.own(t)
	for _, name := range []metav1.ObjectMeta{{Name: "another"}, {Name: "countersign2"}, {GenerateName: "countersign"}} {
		mutating.ObjectMeta, validating.ObjectMeta = name, name
		for _, o := range []client.Object{mutating, validating} {
			err := thief.Create(t.Context(), o.DeepCopyObject().(client.Object), client.DryRunAll)
			if err == nil || !strings.Contains(err.Error(), refusal) {
				t.Errorf("%T %v: got %v, want it refused by the policy", o, name, err)
			}
			if err := b.Create(t.Context(), o.DeepCopyObject().(client.Object), client.DryRunAll); err != nil {
				t.Errorf("%T %v by an administrator: got %v, want success", o, name, err)
			}
		}
	}
}

// A change is a thief's change to a webhook of the operator: to its name, failure policy, client
// config or rules.
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

// judged updates configurations as the thief, and checks whether the policy allows that.
func (b *bed) judged(t *testing.T, thief client.Client, name string, allowed bool, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		err := thief.Update(t.Context(), o, client.DryRunAll)
		if refused := err != nil && strings.Contains(err.Error(), refusal); refused == allowed ||
			allowed && err != nil {
			t.Errorf("%s, %T: got %v, want it allowed: %t", name, o, err, allowed)
		}
	}
}

// testSecrets tries to get a token of a ServiceAccount by creating a Secret, under several names.
// The operator created its own Secret under the policy.
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
			t.Errorf("%s: got %v, want it allowed: %t", name, err, c.allowed)
		}
	}
}

// testConfigMaps writes ConfigMaps as the thief: records, which the operator may write, and others,
// for example the keys of a trust root.
func (b *bed) testConfigMaps(t *testing.T, thief client.Client) {
	for name, allowed := range map[string]bool{
		recordmap.Name("uid", trust.Subject{Repository: "registry.example.com/acme/app"}): true, "root-keys": false,
		"countersign-trusted-ca": false, "countersign-metadata": false,
	} {
		o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: operator.Namespace, Name: name}}
		judge := func(what string, err error) {
			if refused := err != nil && strings.Contains(err.Error(), refusal); refused == allowed ||
				allowed && err != nil {
				t.Errorf("%s %s: got %v, want it allowed: %t", what, name, err, allowed)
			}
		}
		judge("create", thief.Create(t.Context(), o.DeepCopy(), client.DryRunAll))
		must(t, b.Create(t.Context(), o))
		judge("update", thief.Update(t.Context(), o.DeepCopy(), client.DryRunAll))
		judge("delete", thief.Delete(t.Context(), o.DeepCopy(), client.DryRunAll))
	}
}
