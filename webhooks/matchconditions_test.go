package webhooks

import (
	"fmt"
	"strings"
	"testing"

	ar "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/utils/ptr"
)

// The match conditions skip no request that adds an image, and their cost for the largest objects
// is within the limit of the API server. The API server's own code evaluates them here.
func TestThreatMatchConditionsSkipNoImage(t *testing.T) {
	with := func(o runtime.Object, change func(*metav1.ObjectMeta)) runtime.Object {
		change(o.(metav1.ObjectMetaAccessor).GetObjectMeta().(*metav1.ObjectMeta))
		return o
	}
	label := func(m *metav1.ObjectMeta) { m.Labels = map[string]string{"tier": "web"} }
	finalizer := func(m *metav1.ObjectMeta) { m.Finalizers = []string{"example.com/hold"} }
	scaled := object("Deployment", unsigned).(*appsv1.Deployment)
	scaled.Spec.Replicas = ptr.To[int32](2)
	debugged := object("Pod", pinned).(*corev1.Pod)
	debugged.Spec.EphemeralContainers = []corev1.EphemeralContainer{
		{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "d", Image: unsigned}},
	}
	large := func(last string) runtime.Object {
		var images []string
		for i := range 1000 {
			images = append(images, fmt.Sprintf("%s:%d%s", repository, i, strings.Repeat("x", 1200)))
		}
		return object("Pod", append(images, last)...).(*corev1.Pod)
	}
	rollout := func(image string) runtime.Object {
		return object("rollouts.argoproj.io", image).(*unstructured.Unstructured)
	}
	cases := map[string]struct {
		object, old runtime.Object
		calls       bool
	}{
		"create":                {object("Pod", unsigned), nil, true},
		"create without a spec": {object("PodTemplate", unsigned), nil, true},
		"label":                 {with(object("Pod", unsigned), label), object("Pod", unsigned), false},
		"finalizer removed": {
			object("Deployment", unsigned), with(object("Deployment", unsigned), finalizer), false,
		},
		"label and image":          {with(object("Pod", unsigned), label), object("Pod", pinned), true},
		"image":                    {object("CronJob", unsigned), object("CronJob", pinned), true},
		"scale":                    {scaled, object("Deployment", unsigned), true},
		"ephemeral container":      {debugged, object("Pod", pinned), true},
		"image of a pod template":  {object("PodTemplate", unsigned), object("PodTemplate", pinned), true},
		"create of a further kind": {rollout(unsigned), nil, true},
		"image of a further kind":  {rollout(unsigned), rollout(pinned), true},
		"further kind, the same":   {rollout(unsigned), rollout(unsigned), false},
		"a spec is added": {
			rollout(unsigned), &unstructured.Unstructured{Object: map[string]any{"kind": "Rollout"}}, true,
		},
		"a spec of another type":  {rollout(unsigned), custom("spec"), true},
		"a spec that was null":    {rollout(unsigned), custom(nil), true},
		"a spec that was a list":  {rollout(unsigned), custom([]any{"spec"}), true},
		"no spec, as before":      {custom(nil), custom(nil), false},
		"a list as before":        {custom([]any{"spec"}), custom([]any{"spec"}), false},
		"the spec is gone":        {object("PodTemplate", unsigned), object("Pod", unsigned), true},
		"large, the same":         {large(pinned), large(pinned), false},
		"large, the last differs": {large(unsigned), large(pinned), true},
	}
	matcher := apiServerMatcher(t)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			operation, old := admission.Update, c.old
			if old == nil {
				operation = admission.Create
			}
			attributes := admission.NewAttributesRecord(c.object, old,
				schema.GroupVersionKind{Version: "v1", Kind: "Pod"},
				"shop", "acme", schema.GroupVersionResource{Version: "v1", Resource: "pods"}, "", operation, nil,
				false, nil)
			versioned := &admission.VersionedAttributes{Attributes: attributes, VersionedKind: attributes.GetKind()}
			versioned.VersionedObject.Set(c.object)
			if old != nil {
				versioned.VersionedOldObject.Set(old)
			}
			got := matcher.Match(t.Context(), versioned, nil, nil)
			if got.Error != nil {
				t.Fatal(got.Error)
			}
			if got.Matches != c.calls {
				t.Errorf("got the webhook called: %t, want %t", got.Matches, c.calls)
			}
		})
	}
}

// apiServerMatcher returns the API server's evaluator of the match conditions.
func apiServerMatcher(t *testing.T) matchconditions.Matcher {
	t.Helper()
	compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		t.Fatal(err)
	}
	var expressions []cel.ExpressionAccessor
	for _, c := range MatchConditions() {
		expressions = append(expressions, (*matchconditions.MatchCondition)(&c))
	}
	evaluator := compiler.CompileCondition(expressions, cel.OptionalVariableDeclarations{HasAuthorizer: true},
		environment.NewExpressions)
	for _, err := range evaluator.CompilationErrors() {
		t.Fatal(err)
	}
	return matchconditions.NewMatcher(evaluator, ptr.To(ar.Fail), "webhook", "validate", "validate.countersign.dev")
}
