package install

import (
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
)

// token requests a token of a ServiceAccount.
func (b *bed) token(t *testing.T, namespace, name string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(3600))},
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	must(t, b.SubResource("token").Create(t.Context(), account, request))
	return request.Status.Token
}

// listOf returns an empty list for the kind of an object.
func listOf(o *unstructured.Unstructured) *unstructured.UnstructuredList {
	l := &unstructured.UnstructuredList{}
	l.SetAPIVersion(o.GetAPIVersion())
	l.SetKind(o.GetKind() + "List")
	return l
}

// testRights sends requests as the installed ServiceAccount: those that the operator needs, and
// those that a thief of its token would try. All are dry runs or reads. Every test that runs the
// operator with these rights shows that it needs no others.
func (b *bed) testRights(t *testing.T) {
	b.install(t)
	defer b.uninstall(t)
	defer kubeserver.RunReportCRDs(t, b.kube)()
	config := rest.AnonymousClientConfig(b.kube.Config)
	config.BearerToken = b.token(t, operator.Namespace, "countersign-manager")
	manager, err := client.New(config, client.Options{Scheme: b.Scheme()})
	must(t, err)
	must(t, b.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: covered, Name: "theirs"}}))
	defer func() {
		must(t,
			b.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: covered, Name: "theirs"}}))
	}()
	own := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: operator.Namespace, Name: name}
	}
	theirs := metav1.ObjectMeta{Namespace: covered, Name: "theirs"}
	get := func(o client.Object) error { return manager.Get(t.Context(), client.ObjectKeyFromObject(o), o) }
	create := func(o client.Object) error { return manager.Create(t.Context(), o, client.DryRunAll) }
	remove := func(o client.Object) error { return manager.Delete(t.Context(), o, client.DryRunAll) }
	update := func(o client.Object) error {
		o.SetResourceVersion("1")
		return manager.Update(t.Context(), o, client.DryRunAll)
	}
	list := func(l client.ObjectList, options ...client.ListOption) error {
		return manager.List(t.Context(), l, options...)
	}
	reportOf := func(group, kind, name string) *unstructured.Unstructured {
		o := &unstructured.Unstructured{}
		o.SetAPIVersion(group)
		o.SetKind(kind)
		o.SetNamespace(covered)
		o.SetName(name)
		return o
	}
	policyReport := func(name string) *unstructured.Unstructured {
		return reportOf("wgpolicyk8s.io/v1alpha2", "PolicyReport", name)
	}
	openReport := func(name string) *unstructured.Unstructured {
		return reportOf("openreports.io/v1alpha1", "Report", name)
	}
	for _, o := range []*unstructured.Unstructured{policyReport("theirs"), openReport("theirs")} {
		must(t, b.Create(t.Context(), o))
	}
	apply := func(o *unstructured.Unstructured) error {
		return manager.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o),
			client.FieldOwner("countersign"), client.ForceOwnership, client.DryRunAll)
	}
	policy := &v1alpha1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: v1alpha1.ImagePolicySpec{
		Images: []v1alpha1.ImagePattern{"registry.example.com/**"}, AllowUnsigned: new(true),
	}}
	for name, c := range map[string]struct {
		err     error
		allowed bool
	}{
		"list policies":    {list(&v1alpha1.ImagePolicyList{}), true},
		"list Pods":        {list(&corev1.PodList{}), true},
		"list namespaces":  {list(&corev1.NamespaceList{}), true},
		"list its Secrets": {list(&corev1.SecretList{}, client.InNamespace(operator.Namespace)), true},
		"create a record":  {create(&corev1.ConfigMap{ObjectMeta: own("record")}), true},
		"create its lease": {
			create(&coordinationv1.Lease{ObjectMeta: own("countersign.countersign.dev")}), true,
		},
		"create its webhook": {
			create(&admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "countersign"}}),
			true,
		},
		"read the owner": {
			get(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "countersign-webhook-owner"}}), true,
		},
		"update its Secret": {
			update(&corev1.Secret{ObjectMeta: own("countersign-webhook-certificate")}), true,
		},
		"list PolicyReports":          {list(listOf(policyReport(""))), true},
		"list Reports":                {list(listOf(openReport(""))), true},
		"apply its PolicyReport":      {apply(policyReport("countersign")), true},
		"apply its Report":            {apply(openReport("countersign")), true},
		"delete its PolicyReport":     {remove(policyReport("countersign")), true},
		"delete its Report":           {remove(openReport("countersign")), true},
		"apply another PolicyReport":  {apply(policyReport("another")), false},
		"apply another Report":        {apply(openReport("another")), false},
		"change their PolicyReport":   {apply(policyReport("theirs")), false},
		"change their Report":         {apply(openReport("theirs")), false},
		"delete their PolicyReport":   {remove(policyReport("theirs")), false},
		"delete their Report":         {remove(openReport("theirs")), false},
		"create another PolicyReport": {create(policyReport("another")), false},
		"create another Report":       {create(openReport("another")), false},
		"read their Report":           {get(openReport("theirs")), false},
		"list its endpoints": {
			list(&discoveryv1.EndpointSliceList{}, client.InNamespace(operator.Namespace)), true,
		},
		"list endpoints of a team": {list(&discoveryv1.EndpointSliceList{}, client.InNamespace(covered)), false},
		"change its endpoints": {
			update(&discoveryv1.EndpointSlice{ObjectMeta: own("e"), AddressType: discoveryv1.AddressTypeIPv4}), false,
		},
		"list all Secrets":        {list(&corev1.SecretList{}), false},
		"list Secrets of a team":  {list(&corev1.SecretList{}, client.InNamespace(covered)), false},
		"read a Secret of a team": {get(&corev1.Secret{ObjectMeta: theirs}), false},
		"update a Secret beside":  {update(&corev1.Secret{ObjectMeta: own("notary-reader")}), false},
		"delete its Secret": {
			remove(&corev1.Secret{ObjectMeta: own("countersign-webhook-certificate")}), false,
		},
		"list all ConfigMaps":          {list(&corev1.ConfigMapList{}), false},
		"create a ConfigMap elsewhere": {create(&corev1.ConfigMap{ObjectMeta: theirs}), false},
		"update another lease":         {update(&coordinationv1.Lease{ObjectMeta: own("another")}), false},
		"create a Pod": {
			create(
				&corev1.Pod{
					ObjectMeta: own("p"), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}},
				}), false,
		},
		"delete a Pod":    {remove(&corev1.Pod{ObjectMeta: theirs}), false},
		"create a policy": {create(policy.DeepCopy()), false},
		"delete a policy": {remove(policy.DeepCopy()), false},
		"update another webhook": {
			update(&admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "another"}}), false,
		},
		"delete its webhook": {
			remove(&admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "countersign"}}),
			false,
		},
		"label a namespace": {
			manager.Patch(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: covered}},
				client.RawPatch("application/merge-patch+json",
					[]byte(`{"metadata":{"labels":{"countersign.dev/break-glass":"x"}}}`)), client.DryRunAll), false,
		},
		"change the owner": {
			update(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "countersign-webhook-owner"}}), false,
		},
		"read another role": {get(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "cluster-admin"}}), false},
		"create a role":     {create(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "x"}}), false},
	} {
		if denied := c.err != nil && strings.Contains(c.err.Error(), forbidden) &&
			apierrors.IsForbidden(c.err); denied == c.allowed {
			t.Errorf("%s: got %v, want it allowed: %t", name, c.err, c.allowed)
		}
	}
}
