package webhooks

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/decision"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/workload"
)

func admissionRequest(review *admissionv1.AdmissionReview) admission.Request {
	return admission.Request{AdmissionRequest: *review.Request}
}

func admissionResponse(answer *admissionv1.AdmissionResponse) admission.Response {
	return admission.Response{AdmissionResponse: *answer}
}

// observing is a reader of Namespaces that calls see with the context of each read.
type observing struct {
	namespaces
	see func(context.Context)
}

func (o observing) Get(ctx context.Context, key types.NamespacedName, obj client.Object,
	opts ...client.GetOption) error {
	o.see(ctx)
	return o.namespaces.Get(ctx, key, obj, opts...)
}

// Policies in mode Warn and Audit admit: Warn with warnings to the client, Audit with an audit
// annotation, both with a log line.
func TestWarnAndAudit(t *testing.T) {
	b := newBench(t,
		requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.Mode = v1alpha1.ModeWarn }),
		requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.Mode = v1alpha1.ModeAudit }),
	)
	var logged []string
	ctx := logf.IntoContext(t.Context(),
		funcr.New(func(_, args string) { logged = append(logged, args) }, funcr.Options{}))
	review := request{kind: "Deployment", object: object("Deployment", unsigned, signed, unsigned)}.review(t)
	got := b.Validate(ctx, admissionRequest(review)).AdmissionResponse
	wantAdmitted(t, &got)
	if len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], `ImagePolicy "policy-0"`) {
		t.Errorf("got the warnings %q, want one of policy-0", got.Warnings)
	}
	if annotation := got.AuditAnnotations[auditAnnotation]; !strings.Contains(annotation, `ImagePolicy "policy-1"`) ||
		strings.Contains(annotation, "\n") {
		t.Errorf("got the audit annotation %q, want one line of policy-1", annotation)
	}
	if len(logged) != 2 {
		t.Fatalf("got the log lines %q, want two", logged)
	}
	for i, mode := range []string{"Warn", "Audit"} {
		for _, want := range []string{
			`"msg"="Admitted what a policy in mode ` + mode + ` would deny"`, `"namespace"="shop"`,
			`"kind"="Deployment"`, `"name"="acme"`, fmt.Sprintf("policy-%d", i),
		} {
			if !strings.Contains(logged[i], want) {
				t.Errorf("the log lacks %s: %s", want, logged[i])
			}
		}
	}
}

// Only the warnings of policies in mode Warn are logged. Others, such as the warning that no policy
// covers the image, are not.
func TestOtherWarningsAreNotLogged(t *testing.T) {
	r := parsedRequest{kind: workload.Builtin()[0], images: []workload.Image{{Image: signed}}}
	outcome := func(mode v1alpha1.PolicyMode, verdict policy.Verdict) policy.Outcome {
		return policy.Outcome{Mode: mode, Verdict: verdict}
	}
	for name, c := range map[string]struct {
		outcomes []policy.Outcome
		logged   int
	}{
		"not covered": {nil, 0},
		"on grace":    {[]policy.Outcome{outcome(v1alpha1.ModeEnforce, policy.Admitted)}, 0},
		"meets Warn":  {[]policy.Outcome{outcome(v1alpha1.ModeWarn, policy.Admitted)}, 0},
		"fails Audit": {[]policy.Outcome{outcome(v1alpha1.ModeAudit, policy.Denied)}, 0},
		"fails Warn": {
			[]policy.Outcome{outcome(v1alpha1.ModeEnforce, policy.Admitted), outcome(v1alpha1.ModeWarn, policy.Denied)},
			1,
		},
		"Warn not checkable": {[]policy.Outcome{outcome(v1alpha1.ModeWarn, policy.CouldNotCheck)}, 1},
	} {
		d := policy.Decision{Verdict: policy.Admitted, Warnings: []string{"a warning"}, Outcomes: c.outcomes}
		if got := combine(r, decision.Set{signed: d}); len(got.warned) != c.logged || len(got.warnings) != 1 {
			t.Errorf("%s: got %q logged and %q as warnings, want %d logged and one warning", name, got.warned,
				got.warnings, c.logged)
		}
	}
}

// A denial is logged once, with the namespace, kind and name of the workload.
func TestDenialIsLogged(t *testing.T) {
	b := newBench(t)
	var logged []string
	ctx := logf.IntoContext(t.Context(),
		funcr.New(func(_, args string) { logged = append(logged, args) }, funcr.Options{}))
	pod := object("Pod", unsigned)
	pod.SetName("")
	pod.SetGenerateName("acme-7f9-")
	review := request{kind: "Pod", object: pod}.review(t)
	review.Request.Name = ""
	b.Validate(ctx, admissionRequest(review))
	if len(logged) != 1 {
		t.Fatalf("got the log lines %q, want one", logged)
	}
	for _, want := range []string{
		`"level"=0 "msg"="Denied the workload"`, `"namespace"="shop"`, `"kind"="Pod"`, `"name"="acme-7f9-"`,
		"app:unsigned",
	} {
		if !strings.Contains(logged[0], want) {
			t.Errorf("the log lacks %s: %s", want, logged[0])
		}
	}
}

// Warnings stay below the length at which the API server cuts them.
func TestWarningsAreBounded(t *testing.T) {
	b := newBench(t, requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.Mode = v1alpha1.ModeWarn }))
	var images []string
	for i := range 500 {
		images = append(images, fmt.Sprintf("%s:v%d", repository, i))
	}
	got := b.validate(t, request{kind: "Pod", object: object("Pod", images...)})
	wantAdmitted(t, got)
	total := 0
	for _, w := range got.Warnings {
		total += utf8.RuneCountInString(w)
	}
	if len(got.Warnings) < 5 || total > 4096 {
		t.Errorf("got %d warnings of %d characters, want at least 5 of at most 4096", len(got.Warnings), total)
	}
	if last := got.Warnings[len(got.Warnings)-1]; !strings.HasPrefix(last, "and ") {
		t.Errorf("got the last warning %q, want the number of the others", last)
	}
}

// A missing decision and one with an unknown verdict are denials.
func TestThreatZeroDecisionDenies(t *testing.T) {
	r := parsedRequest{kind: workload.Builtin()[0], images: []workload.Image{{Image: signed}}}
	for name, decided := range map[string]decision.Set{
		"none": nil, "zero": {signed: {}}, "unknown": {signed: {Verdict: 99}},
	} {
		got := combine(r, decided)
		if got.admitted {
			t.Errorf("%s: got an admission, want a denial", name)
		} else if !strings.Contains(got.denial(maxMessage), signed) {
			t.Errorf("%s: got the message %q, want the image in it", name, got.denials)
		}
	}
	if (verdict{}).admitted {
		t.Error("the zero verdict: got an admission, want a denial")
	}
	r.oldPins = map[string]string{"": pinned}
	for name, decided := range map[string]decision.Set{
		"none": nil, "of the new one alone": {signed: {Pin: v1alpha1.PinAll}},
	} {
		if ops, _ := pinPatch(r, decided); len(ops) > 0 {
			t.Errorf("%s: got the patch %v, want none", name, ops)
		}
	}
}

func TestLimitLines(t *testing.T) {
	cases := map[string]struct {
		lines []string
		limit int
		want  []string
	}{
		"none":         {nil, 10, nil},
		"sorted, once": {[]string{"b", "a", "b"}, 10, []string{"a", "b"}},
		"just fits":    {[]string{"aaaa", "bbbb"}, 10, []string{"aaaa", "bbbb"}},
		"one too many": {[]string{"aaaa", "bbbb", "cccc"}, 14, []string{"and 3 more"}},
		"some fit":     {[]string{"aaaa", "bbbb", "cccc", "dddd", "eeee"}, 24, []string{"aaaa", "and 4 more"}},
		"long line":    {[]string{strings.Repeat("é", 2000)}, 9000, []string{strings.Repeat("é", 1534) + "..."}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			given := strings.Join(c.lines, "\n")
			if diff := cmp.Diff(c.want, limitLines(c.lines, c.limit)); diff != "" {
				t.Error(diff)
			}
			if strings.Join(c.lines, "\n") != given {
				t.Error("the argument was changed")
			}
		})
	}
}
