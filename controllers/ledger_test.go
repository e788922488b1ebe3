package controllers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/policy"
)

// podFound is what was found of a Pod: images as "name verdict", of which the worst is the verdict.
func podFound(pod string, images ...string) compliance.Finding {
	f := compliance.Finding{Policy: "production", Workload: compliance.Workload{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: pod}, Verdict: policy.Admitted}
	for _, i := range images {
		name, verdict, _ := strings.Cut(i, " ")
		image := compliance.ImageFinding{Image: name, Verdict: policy.Denied, Reason: v1alpha1.ReasonNotSigned, Missing: []string{"qa"}}
		if verdict == "unknown" {
			image.Verdict, image.Reason = policy.CouldNotCheck, v1alpha1.ReasonUnreachable
		}
		if image.Verdict == policy.Denied || f.Verdict == policy.Admitted {
			f.Verdict = image.Verdict
		}
		f.Images = append(f.Images, image)
	}
	return f
}

// told is news as "pod: image, image" and "pod cured".
func told(all []news) []string {
	var texts []string
	for _, n := range all {
		text := n.finding.Workload.Name + " cured"
		for i, image := range n.images {
			text = strings.TrimSuffix(text, " cured") + []string{": ", ", "}[min(i, 1)] + image.Image
		}
		texts = append(texts, text)
	}
	return texts
}

func TestLedger(t *testing.T) {
	at := func(minute int) time.Time {
		return time.Unix(1_800_000_000, 5).Add(time.Duration(minute) * time.Minute)
	}
	type step struct {
		found []compliance.Finding
		told  []string
		since map[string]int // by pod and image, the minute
	}
	one := podFound
	cases := map[string][]step{
		"a violation keeps its time and is told once": {
			{[]compliance.Finding{one("a", "x bad")}, []string{"a: x"}, map[string]int{"a x": 0}},
			{[]compliance.Finding{one("a", "x bad")}, nil, map[string]int{"a x": 0}},
			{[]compliance.Finding{one("a", "x bad", "y bad"), one("b", "x bad")}, []string{"a: y", "b: x"}, map[string]int{"a x": 0, "a y": 2, "b x": 2}},
		},
		"cured, and back": {
			{[]compliance.Finding{one("a", "x bad")}, []string{"a: x"}, map[string]int{"a x": 0}},
			{[]compliance.Finding{one("a")}, []string{"a cured"}, nil},
			{[]compliance.Finding{one("a")}, nil, nil},
			{[]compliance.Finding{one("a", "x bad")}, []string{"a: x"}, map[string]int{"a x": 3}},
		},
		"cured of one image of two": {
			{[]compliance.Finding{one("a", "x bad", "y bad")}, []string{"a: x, y"}, map[string]int{"a x": 0, "a y": 0}},
			{[]compliance.Finding{one("a", "y bad")}, nil, map[string]int{"a y": 0}},
			{[]compliance.Finding{one("a")}, []string{"a cured"}, nil},
		},
		"deleted": {
			{[]compliance.Finding{one("a", "x bad")}, []string{"a: x"}, map[string]int{"a x": 0}},
			{nil, nil, nil},
		},
		"not to be checked for a while": {
			{[]compliance.Finding{one("a", "x bad")}, []string{"a: x"}, map[string]int{"a x": 0}},
			{[]compliance.Finding{one("a", "x unknown")}, nil, nil},
			{[]compliance.Finding{one("a", "x bad")}, nil, map[string]int{"a x": 0}},
		},
		"never checked": {
			{[]compliance.Finding{one("a", "x unknown")}, nil, nil},
			{[]compliance.Finding{one("a")}, nil, nil},
		},
		"a good workload": {{[]compliance.Finding{one("a")}, nil, nil}},
	}
	for name, steps := range cases {
		t.Run(name, func(t *testing.T) {
			l := &ledger{}
			for i, s := range steps {
				news := l.enter(&compliance.Result{Findings: s.found}, at(i))
				if diff := cmp.Diff(s.told, told(news)); diff != "" {
					t.Errorf("step %d: news (-want +got):\n%s", i, diff)
				}
				var since map[string]int
				for _, v := range l.first(s.found) {
					if since == nil {
						since = map[string]int{}
					}
					since[v.Name+" "+v.Image] = int(v.Since.Sub(at(0).Truncate(time.Second)).Minutes())
				}
				if diff := cmp.Diff(s.since, since); diff != "" {
					t.Errorf("step %d: since (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}

// A new leader goes on from the status, and where that had no room for everything, does not tell what may have been told.
func TestLedgerAfterAnotherLeader(t *testing.T) {
	var found []compliance.Finding
	for i := range 30 {
		found = append(found, podFound(fmt.Sprintf("pod-%02d", i), "x bad"))
	}
	first := &ledger{}
	if n := len(first.enter(&compliance.Result{Findings: found}, time.Unix(1_800_000_000, 0))); n != 30 {
		t.Fatalf("the first leader told of %d, want 30", n)
	}
	status := first.first(found)
	if len(status) != mostListed {
		t.Fatalf("the status lists %d, want %d", len(status), mostListed)
	}
	next := ledgerOf([]v1alpha1.ImagePolicy{{ObjectMeta: metav1.ObjectMeta{Name: "production"}, Status: v1alpha1.ImagePolicyStatus{Violations: status}}})
	found = append([]compliance.Finding{podFound("pod-00-new", "x bad")}, found...)
	later := time.Unix(1_800_000_900, 0)
	if diff := cmp.Diff([]string{"pod-00-new: x"}, told(next.enter(&compliance.Result{Findings: found}, later))); diff != "" {
		t.Errorf("news (-want +got):\n%s", diff)
	}
	if got := next.first(found)[1].Since; !got.Time.Equal(time.Unix(1_800_000_000, 0)) {
		t.Errorf("since is %s, want it kept", got)
	}
	found = append(found, podFound("pod-99", "x bad"))
	if diff := cmp.Diff([]string{"pod-99: x"}, told(next.enter(&compliance.Result{Findings: found}, later))); diff != "" {
		t.Errorf("news of the second evaluation (-want +got):\n%s", diff)
	}
}

func TestCompliant(t *testing.T) {
	many := compliance.Summary{Covered: 900, Violating: 800}
	for i := range 800 {
		many.Findings = append(many.Findings, podFound(fmt.Sprintf("pod-%d", i), strings.Repeat("x", 1024)+" bad"))
	}
	cases := map[string]struct {
		summary compliance.Summary
		status  metav1.ConditionStatus
		reason  string
		says    []string
	}{
		"nothing": {compliance.Summary{}, metav1.ConditionTrue, v1alpha1.ReasonNothingRuns, nil},
		"all":     {compliance.Summary{Covered: 2}, metav1.ConditionTrue, v1alpha1.ReasonAllSigned, []string{"2"}},
		"unchecked": {
			compliance.Summary{Covered: 2, Unchecked: 1, Findings: []compliance.Finding{podFound("a"), podFound("b", "x unknown")}},
			metav1.ConditionUnknown, v1alpha1.ReasonNotAllChecked, []string{"1 of 2", "Pod shop/b (x: Unreachable)"},
		},
		"violated": {
			compliance.Summary{Covered: 3, Violating: 1, Unchecked: 1, Findings: []compliance.Finding{podFound("a", "x bad", "y unknown"), podFound("b", "z unknown")}},
			metav1.ConditionFalse, v1alpha1.ReasonViolations, []string{"1 of 3", "1 could not be checked", "Pod shop/a (x: not signed by qa)"},
		},
		"many": {many, metav1.ConditionFalse, v1alpha1.ReasonViolations, []string{"800 of 900", "pod-2", "..."}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			status, reason, message := compliant(&c.summary)
			if status != c.status || reason != c.reason {
				t.Errorf("%s, %s; want %s, %s", status, reason, c.status, c.reason)
			}
			for _, text := range c.says {
				if !strings.Contains(message, text) {
					t.Errorf("%q does not say %q", message, text)
				}
			}
			if len(message) > 2000 || strings.Contains(message, "shop/pod-3") {
				t.Errorf("message is not bounded: %q", message)
			}
		})
	}
}
