package webhooks

import (
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/countersign-dev/countersign/internal/workload"
)

// Rules returns the rules of the webhook configurations: every operation that can add an image to
// one of the kinds. A deletion adds none, and no other subresource can change an image.
func Rules(kinds workload.Kinds) []admissionregistrationv1.RuleWithOperations {
	var rules []admissionregistrationv1.RuleWithOperations
	add := func(k workload.Kind, resource string, operations ...admissionregistrationv1.OperationType) {
		for i := range rules {
			r := &rules[i]
			if r.APIGroups[0] == k.Group && r.APIVersions[0] == k.Version && slices.Equal(r.Operations, operations) {
				r.Resources = append(r.Resources, resource)
				return
			}
		}
		scope := admissionregistrationv1.NamespacedScope
		rules = append(rules, admissionregistrationv1.RuleWithOperations{
			Operations: operations,
			Rule: admissionregistrationv1.Rule{
				APIGroups: []string{k.Group}, APIVersions: []string{k.Version}, Resources: []string{resource},
				Scope: &scope,
			},
		})
	}
	for _, k := range kinds {
		add(k, k.Resource, admissionregistrationv1.Create, admissionregistrationv1.Update)
		for _, s := range k.Subresources {
			add(k, k.Resource+"/"+s, admissionregistrationv1.Update)
		}
	}
	return rules
}

// MatchConditions returns the match conditions of the webhook configurations. They skip updates
// that do not change the spec, so that labels and finalizers can change even while no replica of
// the operator answers. An update of an object without a spec is not skipped.
func MatchConditions() []admissionregistrationv1.MatchCondition {
	return []admissionregistrationv1.MatchCondition{{
		Name:       "spec-changes",
		Expression: `request.operation != "UPDATE" || !has(object.spec) || !has(oldObject.spec) || object.spec != oldObject.spec`,
	}}
}
