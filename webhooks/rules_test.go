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
	rule := func(group string, operations []ar.OperationType, resources ...string) ar.RuleWithOperations {
		return ar.RuleWithOperations{Operations: operations, Rule: ar.Rule{
			APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: resources, Scope: ptr.To(ar.NamespacedScope),
		}}
	}
	both := []ar.OperationType{ar.Create, ar.Update}
	want := []ar.RuleWithOperations{
		rule("", both, "pods", "replicationcontrollers", "podtemplates"),
		rule("", []ar.OperationType{ar.Update}, "pods/ephemeralcontainers"),
		rule("apps", both, "deployments", "replicasets", "statefulsets", "daemonsets"),
		rule("batch", both, "jobs", "cronjobs"),
	}
	if diff := cmp.Diff(want, Rules(workload.Builtin())); diff != "" {
		t.Error(diff)
	}
}

// Whatever the rules let in, the handlers understand.
func TestRulesAndHandlersAgree(t *testing.T) {
	b := newBench(t)
	for _, k := range workload.Builtin() {
		_, got := b.admit(t, request{kind: k.Name, object: object(k.Name, signed), old: object(k.Name, elsewhere)})
		wantAdmitted(t, got)
		for _, s := range k.Subresources {
			review := request{kind: k.Name, object: object(k.Name, pinned), old: object(k.Name, elsewhere), subresource: s}.review(t)
			review.Request.Operation = admissionv1.Update
			wantAdmitted(t, b.send(t, ValidatePath, review))
		}
	}
}
