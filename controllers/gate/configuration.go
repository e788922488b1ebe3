package gate

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// enforcerOptOut, as a label or an annotation, keeps the admissions enforcer of AKS from adding
// expressions to the namespaceSelector of a webhook configuration. Both are set, because versions
// of the enforcer differ in which they read.
const enforcerOptOut = "admissions.enforcer/disabled"

// configuration is one of the two webhook configurations: as it was read, and as it must be.
type configuration struct {
	object client.Object
	// kind and short are for example ValidatingWebhookConfiguration and "validating".
	kind, short string
	// different returns the fields of webhooks that differ in meaning. set corrects them.
	different func() []string
	set       func()
	// want is what webhooks and owner must be. It is compared with the previous want.
	want wanted
}

// wanted is the required content of one configuration.
type wanted struct {
	Webhooks any
	// Owner is nil where the ClusterRole is missing: then the owners stay as they are.
	Owner *metav1.OwnerReference
}

func (c *configuration) missing() bool { return c.object.GetResourceVersion() == "" }

// mutating returns the mutating configuration. Every field is set and compared, because an added
// one, such as a further match condition, narrows the gate as well. owner is nil where the
// ClusterRole is missing.
func (r *Reconciler) mutating(
	o *admissionv1.MutatingWebhookConfiguration, owner *metav1.OwnerReference, bundle []byte,
) *configuration {
	want := []admissionv1.MutatingWebhook{{
		Name:                    MutatingWebhookName,
		ClientConfig:            r.clientConfig(r.MutatePath, bundle),
		Rules:                   r.Rules,
		FailurePolicy:           ptr.To(admissionv1.Fail),
		MatchPolicy:             ptr.To(admissionv1.Equivalent),
		NamespaceSelector:       r.namespaces(),
		ObjectSelector:          &metav1.LabelSelector{},
		SideEffects:             ptr.To(admissionv1.SideEffectClassNone),
		TimeoutSeconds:          ptr.To[int32](webhookTimeoutSeconds),
		AdmissionReviewVersions: []string{"v1"},
		MatchConditions:         r.conditions(),
		ReinvocationPolicy:      ptr.To(admissionv1.IfNeededReinvocationPolicy),
	}}
	return &configuration{
		object: o, kind: "MutatingWebhookConfiguration", short: "mutating", want: wanted{want, owner},
		different: func() []string { return different(o.Webhooks, want) }, set: func() { o.Webhooks = want },
	}
}

// validating returns the validating configuration in the same way.
func (r *Reconciler) validating(
	o *admissionv1.ValidatingWebhookConfiguration, owner *metav1.OwnerReference, bundle []byte,
) *configuration {
	want := []admissionv1.ValidatingWebhook{{
		Name:                    ValidatingWebhookName,
		ClientConfig:            r.clientConfig(r.ValidatePath, bundle),
		Rules:                   r.Rules,
		FailurePolicy:           ptr.To(admissionv1.Fail),
		MatchPolicy:             ptr.To(admissionv1.Equivalent),
		NamespaceSelector:       r.namespaces(),
		ObjectSelector:          &metav1.LabelSelector{},
		SideEffects:             ptr.To(admissionv1.SideEffectClassNoneOnDryRun), // events
		TimeoutSeconds:          ptr.To[int32](webhookTimeoutSeconds),
		AdmissionReviewVersions: []string{"v1"},
		MatchConditions:         r.conditions(),
	}}
	return &configuration{
		object: o, kind: "ValidatingWebhookConfiguration", short: "validating", want: wanted{want, owner},
		different: func() []string { return different(o.Webhooks, want) }, set: func() { o.Webhooks = want },
	}
}

func (r *Reconciler) clientConfig(path string, bundle []byte) admissionv1.WebhookClientConfig {
	c := admissionv1.WebhookClientConfig{CABundle: bundle}
	if r.URL != "" {
		c.URL = ptr.To(strings.TrimSuffix(r.URL, "/") + path)
		return c
	}
	c.Service = &admissionv1.ServiceReference{
		Namespace: r.Namespace, Name: ServiceName, Path: &path, Port: ptr.To[int32](443),
	}
	return c
}

// namespaces selects every namespace whose full name is not exempt, by the name label that the API
// server itself maintains.
func (r *Reconciler) namespaces() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: r.Exempt.Names,
	}}}
}

// conditions returns the match conditions of the webhooks. A label selector has no prefixes, so
// prefixes of exempt namespaces are match conditions.
func (r *Reconciler) conditions() []admissionv1.MatchCondition {
	all := slices.Clone(r.MatchConditions)
	for _, prefix := range r.Exempt.Prefixes {
		all = append(all, admissionv1.MatchCondition{
			Name:       "not-exempt-" + strings.Trim(prefix, "-"),
			Expression: fmt.Sprintf("!request.namespace.startsWith(%q)", prefix),
		})
	}
	return all
}

// defect says in which way the configuration does not send to the webhook what it must; "": it
// does.
func (c *configuration) defect() string {
	if c.missing() {
		return c.kind + " " + ConfigurationName + " is missing"
	}
	if fields := c.different(); len(fields) > 0 {
		return fmt.Sprintf("%s of %s %s is not what it must be", strings.Join(fields, ", "), c.kind, ConfigurationName)
	}
	return ""
}

// unowned reports whether the owners or the opt-out are wrong. Neither changes which requests the
// webhook gets. Labels, annotations and finalizers of others stay. A second owner is removed: it
// would keep the configuration when the installation is deleted.
func (c *configuration) unowned() bool {
	if o := c.want.Owner; o != nil {
		if owners := c.object.GetOwnerReferences(); len(owners) != 1 || owners[0] != *o {
			return true
		}
	}
	return c.object.GetLabels()[enforcerOptOut] != "true" || c.object.GetAnnotations()[enforcerOptOut] != "true"
}

// prepare sets the required content of the object, for a write.
func (c *configuration) prepare() {
	c.set()
	c.object.SetName(ConfigurationName)
	if c.want.Owner != nil {
		c.object.SetOwnerReferences([]metav1.OwnerReference{*c.want.Owner})
	}
	c.object.SetLabels(with(c.object.GetLabels(), map[string]string{
		"app.kubernetes.io/managed-by": "countersign", enforcerOptOut: "true",
	}))
	c.object.SetAnnotations(with(c.object.GetAnnotations(), map[string]string{enforcerOptOut: "true"}))
}

// with returns a copy of all that ours is merged into.
func with(all, ours map[string]string) map[string]string {
	merged := maps.Clone(all)
	if merged == nil {
		merged = map[string]string{}
	}
	maps.Copy(merged, ours)
	return merged
}

// different returns the fields in which webhooks, of the mutating or the validating type, differ in
// meaning from what they must be.
func different[W any](have, want []W) []string {
	if len(have) != len(want) {
		return []string{"webhooks"}
	}
	var fields []string
	for i := range want {
		is, must := reflect.ValueOf(have[i]), reflect.ValueOf(want[i])
		for f := range must.NumField() {
			x, y := is.Field(f).Interface(), must.Field(f).Interface()
			if equality.Semantic.DeepEqual(x, y) || sameNamespaces(x, y) {
				continue
			}
			name, _, _ := strings.Cut(must.Type().Field(f).Tag.Get("json"), ",")
			fields = append(fields, fmt.Sprintf("webhooks[%d].%s", i, name))
		}
	}
	return fields
}

// sameNamespaces reports whether both are selectors that only exclude namespaces by name, and
// exclude the same ones: a platform may repeat an excluded name.
func sameNamespaces(x, y any) bool {
	a, aok := x.(*metav1.LabelSelector)
	b, bok := y.(*metav1.LabelSelector)
	if !aok || !bok {
		return false
	}
	left, lok := excluded(a)
	right, rok := excluded(b)
	return lok && rok && slices.Equal(left, right)
}

// excluded returns the names of the namespaces that a selector excludes, sorted. ok is false where
// it selects by anything else.
func excluded(s *metav1.LabelSelector) ([]string, bool) {
	if s == nil || len(s.MatchLabels) > 0 {
		return nil, false
	}
	var names []string
	for _, e := range s.MatchExpressions {
		if e.Key != corev1.LabelMetadataName || e.Operator != metav1.LabelSelectorOpNotIn {
			return nil, false
		}
		names = append(names, e.Values...)
	}
	slices.Sort(names)
	return slices.Compact(names), true
}

// configuredBundles returns the CA bundles of the mutating and the validating configuration, nil
// for a missing one.
func configuredBundles(mutating *admissionv1.MutatingWebhookConfiguration,
	validating *admissionv1.ValidatingWebhookConfiguration) [][]byte {
	bundles := make([][]byte, 2)
	if len(mutating.Webhooks) > 0 {
		bundles[0] = mutating.Webhooks[0].ClientConfig.CABundle
	}
	if len(validating.Webhooks) > 0 {
		bundles[1] = validating.Webhooks[0].ClientConfig.CABundle
	}
	return bundles
}
