package report

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/policy"
)

func TestResult(t *testing.T) {
	denied := []compliance.ImageFinding{
		{
			Image: "registry.example.com/acme/app@sha256:aa", Verdict: policy.Denied, Reason: v1alpha1.ReasonNotSigned,
			Missing: []string{"qa", "2 of 3"},
		},
	}
	unchecked := []compliance.ImageFinding{
		{
			Image: "registry.example.com/acme/app:v1", Verdict: policy.CouldNotCheck,
			Reason: v1alpha1.ReasonUnreachable, Missing: []string{"qa"},
		},
	}
	ambiguous := []compliance.ImageFinding{{Image: "a", Verdict: policy.Denied, Reason: v1alpha1.ReasonAmbiguous}}
	for name, test := range map[string]struct {
		mode    v1alpha1.PolicyMode
		verdict policy.Verdict
		images  []compliance.ImageFinding
		result  string
		scored  bool
		message string
		summary Summary
	}{
		"admitted": {
			mode: v1alpha1.ModeEnforce, verdict: policy.Admitted,
			result: "pass", scored: true, message: "every image that the policy covers meets it",
			summary: Summary{Pass: 1},
		},
		"denied by Enforce": {
			mode: v1alpha1.ModeEnforce, verdict: policy.Denied, images: denied,
			result: "fail", scored: true,
			message: `image "registry.example.com/acme/app@sha256:aa": no signature by qa, 2 of 3`,
			summary: Summary{Fail: 1},
		},
		"denied by Warn": {
			mode: v1alpha1.ModeWarn, verdict: policy.Denied, images: denied,
			result: "warn", message: `image "registry.example.com/acme/app@sha256:aa": no signature by qa, 2 of 3`,
			summary: Summary{Warn: 1},
		},
		"denied by Audit": {
			mode: v1alpha1.ModeAudit, verdict: policy.Denied, images: ambiguous,
			result: "warn", message: `image "a": Ambiguous`, summary: Summary{Warn: 1},
		},
		"could not be checked": {
			mode: v1alpha1.ModeEnforce, verdict: policy.CouldNotCheck, images: unchecked,
			result: "error", scored: true,
			message: `image "registry.example.com/acme/app:v1": could not be checked: Unreachable`,
			summary: Summary{Error: 1},
		},
		"could not be checked, in Audit": {
			mode: v1alpha1.ModeAudit, verdict: policy.CouldNotCheck, images: unchecked,
			result: "error", message: `image "registry.example.com/acme/app:v1": could not be checked: Unreachable`,
			summary: Summary{Error: 1},
		},
		"an empty mode counts as Enforce": {
			verdict: policy.Denied, result: "fail", scored: true, message: "the policy is not met",
			summary: Summary{Fail: 1},
		},
		"an unknown mode": {
			mode: "Later", result: "fail", scored: true, message: "the policy is not met", summary: Summary{Fail: 1},
		},
		"a zero verdict": {
			mode: v1alpha1.ModeEnforce, result: "fail", scored: true, message: "the policy is not met",
			summary: Summary{Fail: 1},
		},
		"an unknown verdict": {
			mode: v1alpha1.ModeEnforce, verdict: 99, result: "fail", scored: true, message: "the policy is not met",
			summary: Summary{Fail: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := compliance.Finding{
				Policy: "production", Mode: test.mode, Workload: workload("shop", "app"), Verdict: test.verdict,
				Images: test.images,
			}
			got := Build("shop", []compliance.Finding{f})
			if diff := cmp.Diff(test.summary, got.Summary); diff != "" {
				t.Error(diff)
			}
			want := Result{
				Source: "countersign", Policy: "production", Rule: "required-roles",
				Category: "Software Supply Chain Security",
				Result:   test.result, Scored: test.scored, Message: test.message,
				Resources:  []Resource{{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "shop", Name: "app"}},
				Properties: got.Results[0].Properties,
			}
			if diff := cmp.Diff([]Result{want}, got.Results); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("properties", func(t *testing.T) {
		f := compliance.Finding{
			Policy: "production", Workload: workload("shop", "app"),
			Images: append(append(ambiguous, denied...), denied...),
		}
		got := Build("shop", []compliance.Finding{f}).Results[0].Properties
		want := map[string]string{"mode": "Enforce", "reasons": "Ambiguous,NotSigned", "missingRoles": "2 of 3,qa"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestJSON(t *testing.T) {
	findings := []compliance.Finding{
		{Policy: "production", Workload: workload("shop", "app"), Verdict: policy.Admitted},
	}
	for format, want := range map[Format]string{
		PolicyReport(): "wgpolicyk8s.io/v1alpha2 PolicyReport", OpenReport(): "openreports.io/v1alpha1 Report",
	} {
		text, err := Build("shop", findings).JSON(format)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			APIVersion, Kind string
			Metadata         Metadata
			Summary          map[string]int
		}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if got.APIVersion+" "+got.Kind != want {
			t.Errorf("got %s %s, want %s", got.APIVersion, got.Kind, want)
		}
		if diff := cmp.Diff(
			Metadata{
				Namespace: "shop", Name: "countersign",
				Labels: map[string]string{"app.kubernetes.io/managed-by": "countersign"},
			}, got.Metadata); diff != "" {
			t.Error(diff)
		}
		// Zeros are written too: a field that is not applied keeps the value that another field
		// manager wrote.
		if diff := cmp.Diff(map[string]int{"pass": 1, "fail": 0, "warn": 0, "error": 0, "skip": 0},
			got.Summary); diff != "" {
			t.Error(diff)
		}
	}
}

// Build returns the same bytes for any order of the findings, with the worst results first.
func TestOrder(t *testing.T) {
	var findings []compliance.Finding
	for i := range 40 {
		findings = append(findings, compliance.Finding{
			Policy:   fmt.Sprintf("p-%d", i%3),
			Mode:     []v1alpha1.PolicyMode{v1alpha1.ModeEnforce, v1alpha1.ModeAudit}[i%2],
			Workload: workload("shop", fmt.Sprintf("app-%d", i)), Verdict: policy.Verdict(i % 3),
		})
	}
	want, err := Build("shop", findings).JSON(PolicyReport())
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		rand.Shuffle(len(findings), func(i, j int) { findings[i], findings[j] = findings[j], findings[i] })
		got, err := Build("shop", findings).JSON(PolicyReport())
		if err != nil || string(got) != string(want) {
			t.Fatalf("another order of findings: error %v, got\n%s\nwant\n%s", err, got, want)
		}
	}
	rank := map[string]int{"fail": 1, "error": 2, "warn": 3, "pass": 4}
	last := 0
	for _, r := range Build("shop", findings).Results {
		if rank[r.Result] < last {
			t.Fatalf("got result %s after one of rank %d, want them sorted", r.Result, last)
		}
		last = rank[r.Result]
	}
	if last != 4 {
		t.Errorf("got last rank %d, want 4", last)
	}
}

func TestByNamespace(t *testing.T) {
	a, b, c := compliance.Finding{
		Workload: workload("shop", "a"),
	}, compliance.Finding{Workload: workload("cart", "b")}, compliance.Finding{Workload: workload("shop", "c")}
	want := map[string][]compliance.Finding{"shop": {a, c}, "cart": {b}}
	if diff := cmp.Diff(want, ByNamespace([]compliance.Finding{a, b, c})); diff != "" {
		t.Error(diff)
	}
}

// Build keeps a report within its bounds, even with the largest names and counts that Pods and
// clusters can have.
func TestBounds(t *testing.T) {
	long := strings.Repeat("<é\x00\xff", 4000)
	for name, test := range map[string]struct {
		findings int
		text     string
		images   int
		results  int // 0: as many as fit
	}{
		"as many as fit":         {findings: 1000, text: "x", images: 1, results: 1000},
		"one too many":           {findings: 1001, text: "x", images: 1, results: 1000},
		"many":                   {findings: 20000, text: "x", images: 3, results: 1000},
		"long texts":             {findings: 1000, text: long, images: 1},
		"long texts, and images": {findings: 3000, text: long, images: 50},
	} {
		t.Run(name, func(t *testing.T) {
			findings := make([]compliance.Finding, 0, test.findings)
			for i := range test.findings {
				f := compliance.Finding{
					Policy: "production", Mode: v1alpha1.ModeEnforce, Verdict: policy.Admitted,
					Workload: compliance.Workload{
						APIVersion: test.text, Kind: test.text, Namespace: "shop", Name: fmt.Sprint(i, test.text),
					},
				}
				for range test.images {
					f.Images = append(f.Images,
						compliance.ImageFinding{
							Image: test.text, Reason: test.text, Missing: []string{test.text, test.text},
						})
				}
				if i == test.findings-1 { // the most important finding is the last of the input
					f.Verdict = policy.Denied
				}
				findings = append(findings, f)
			}
			r := Build("shop", findings)
			if want := (Summary{Fail: 1, Pass: test.findings - 1}); r.Summary != want {
				t.Errorf("got summary %+v, want %+v", r.Summary, want)
			}
			text, err := r.JSON(OpenReport())
			if err != nil {
				t.Fatal(err)
			}
			if len(text) >= 1<<20 || len(r.Results) > 1000 {
				t.Errorf("got %d results in %d bytes, want at most 1000 in less than 1 MiB", len(r.Results), len(text))
			}
			if test.results > 0 && len(r.Results) != test.results {
				t.Errorf("got %d results, want %d", len(r.Results), test.results)
			}
			if got := r.Results[0].Result; got != "fail" {
				t.Errorf("got first result %q, want fail", got)
			}
			last := r.Results[len(r.Results)-1]
			if left := test.findings - len(r.Results) + 1; left > 1 {
				if want := fmt.Sprintf("%d further results are left out", left); last.Result != "skip" ||
					!strings.HasPrefix(last.Message, want) {
					t.Errorf("got last result %+v of %d, want %q", last, len(r.Results), want)
				}
			} else if last.Result != "pass" {
				t.Errorf("got last result %+v, want pass", last)
			}
			for _, one := range r.Results {
				if len(one.Message) > maxMessage {
					t.Fatalf("got a message of %d bytes, want at most %d", len(one.Message), maxMessage)
				}
			}
		})
	}
}

func workload(namespace, name string) compliance.Workload {
	return compliance.Workload{APIVersion: "apps/v1", Kind: "Deployment", Namespace: namespace, Name: name}
}
