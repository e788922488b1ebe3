package webhooks

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	ar "k8s.io/api/admissionregistration/v1"
	"k8s.io/utils/ptr"

	"github.com/countersign-dev/countersign/internal/workload"
)

func TestThreatRulesCoverEveryKind(t *testing.T) {
	rule := func(group, version string, operations []ar.OperationType, resources ...string) ar.RuleWithOperations {
		return ar.RuleWithOperations{Operations: operations, Rule: ar.Rule{
			APIGroups: []string{group}, APIVersions: []string{version}, Resources: resources,
			Scope: ptr.To(ar.NamespacedScope),
		}}
	}
	both := []ar.OperationType{ar.Create, ar.Update}
	builtin := []ar.RuleWithOperations{
		rule("", "v1", both, "pods", "replicationcontrollers", "podtemplates"),
		rule("", "v1", []ar.OperationType{ar.Update}, "pods/ephemeralcontainers"),
		rule("apps", "v1", both, "deployments", "replicasets", "statefulsets", "daemonsets"),
		rule("batch", "v1", both, "jobs", "cronjobs"),
		rule("apps.openshift.io", "v1", both, "deploymentconfigs"),
	}
	if diff := cmp.Diff(builtin, Rules(workload.Builtin())); diff != "" {
		t.Error(diff)
	}
	// Two versions of one group need two rules: one rule would match each resource in both
	// versions.
	further, err := workload.Builtin().With([]string{
		"rollouts.v1alpha1.argoproj.io=spec.template", "canaries.v1.argoproj.io=spec.template",
		"widgets.v1alpha1.argoproj.io=spec.pod",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := append(builtin, rule("argoproj.io", "v1alpha1", both, "rollouts", "widgets"),
		rule("argoproj.io", "v1", both, "canaries"))
	if diff := cmp.Diff(want, Rules(further)); diff != "" {
		t.Error(diff)
	}
}

// The handlers can parse every request that the rules match.
func TestRulesAndHandlersAgree(t *testing.T) {
	b := newBench(t)
	for _, k := range kinds(t) {
		_, got := b.admit(t, request{kind: k.Name, object: object(k.Name, signed), old: object(k.Name, elsewhere)})
		wantAdmitted(t, got)
		for _, s := range k.Subresources {
			review := request{
				kind: k.Name, object: object(k.Name, pinned), old: object(k.Name, elsewhere), subresource: s,
			}.review(t)
			review.Request.Operation = admissionv1.Update
			wantAdmitted(t, b.send(t, ValidatePath, review))
		}
	}
}
