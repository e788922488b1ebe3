package webhooks

import (
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/countersign-dev/countersign/internal/workload"
)

// Rules returns what the webhooks must be called for: everything that can bring an image of one of
// the kinds into a namespace. Nothing is decided on deletion, and no other subresource can change
// an image.
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

// MatchConditions skip updates that leave the spec as it is: labels, finalizers and the like pass
// even while no replica of the operator answers. An object without a spec is not skipped.
func MatchConditions() []admissionregistrationv1.MatchCondition {
	return []admissionregistrationv1.MatchCondition{{
		Name:       "spec-changes",
		Expression: `request.operation != "UPDATE" || !has(object.spec) || !has(oldObject.spec) || object.spec != oldObject.spec`,
	}}
}
