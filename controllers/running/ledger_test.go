package running

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/policy"
)

// podFound returns the finding about a Pod. Each image is "name verdict". The verdict of the
// finding is the worst of them.
func podFound(pod string, images ...string) compliance.Finding {
	f := compliance.Finding{
		Policy:   "production",
		Workload: compliance.Workload{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: pod},
		Verdict:  policy.Admitted,
	}
	for _, i := range images {
		name, verdict, _ := strings.Cut(i, " ")
		image := compliance.ImageFinding{
			Image: name, Verdict: policy.Denied, Reason: v1alpha1.ReasonNotSigned, Missing: []string{"qa"},
		}
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

// findingOf returns the finding about a workload with this API version, namespace and name.
func findingOf(apiVersion, namespace, name string, images ...string) compliance.Finding {
	f := podFound(name, images...)
	f.Workload.APIVersion, f.Workload.Namespace = apiVersion, namespace
	return f
}

// texts describes each announcement as "pod: image, image" or "pod cured".
func texts(all []announcement) []string {
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
		texts []string
		since map[string]int // minute, by pod and image
	}
	one := podFound
	cases := map[string][]step{
		"a violation keeps its time and has one event": {
			{[]compliance.Finding{one("a", "x bad")}, []string{"a: x"}, map[string]int{"a x": 0}},
			{[]compliance.Finding{one("a", "x bad")}, nil, map[string]int{"a x": 0}},
			{
				[]compliance.Finding{one("a", "x bad", "y bad"), one("b", "x bad")}, []string{"a: y", "b: x"},
				map[string]int{"a x": 0, "a y": 2, "b x": 2},
			},
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
		"a violation could not be checked for a while": {
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
				selected, waiting := l.enter(&compliance.Result{Findings: s.found}, at(i))
				if diff := cmp.Diff(s.texts, texts(selected)); diff != "" || waiting > 0 {
					t.Errorf("step %d: got %d waiting, want 0; events (-want +got):\n%s", i, waiting, diff)
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

// A new leader continues from the status. If the status was full, the new leader records no event
// for a violation that the earlier leader may have recorded.
func TestLedgerAfterAnotherLeader(t *testing.T) {
	var found []compliance.Finding
	for i := range 30 {
		found = append(found, findingOf("v1", fmt.Sprintf("ns-%d", i/10), fmt.Sprintf("pod-%02d", i), "x bad"))
	}
	first := &ledger{}
	if n, _ := first.enter(&compliance.Result{Findings: found}, time.Unix(1_800_000_000, 0)); len(n) != 30 {
		t.Fatalf("got %d events of the first leader, want 30", len(n))
	}
	status := first.first(found)
	if len(status) != maxListed {
		t.Fatalf("got %d violations in the status, want %d", len(status), maxListed)
	}
	next := ledgerOf([]v1alpha1.ImagePolicy{
		{ObjectMeta: metav1.ObjectMeta{Name: "production"}, Status: v1alpha1.ImagePolicyStatus{Violations: status}},
	})
	found = append([]compliance.Finding{findingOf("v1", "ns-0", "pod-00-new", "x bad")}, found...)
	enter := func(at int64, want ...string) {
		t.Helper()
		n, _ := next.enter(&compliance.Result{Findings: found}, time.Unix(at, 0))
		if diff := cmp.Diff(want, texts(n)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	}
	enter(1_800_000_900, "pod-00-new: x")
	if got := next.first(found)[1].Since; !got.Time.Equal(time.Unix(1_800_000_000, 0)) {
		t.Errorf("got since %s, want it unchanged", got)
	}
	found = append(found, findingOf("v1", "ns-2", "pod-99", "x bad"))
	enter(1_800_000_900, "pod-99: x")
	// the first was in the status, the second may have an event
	found[1], found[30] = findingOf("v1", "ns-0", "pod-00"), findingOf("v1", "ns-2", "pod-29")
	enter(1_800_000_901, "pod-00 cured", "pod-29 cured")
}

// The next leader records an event for a violation that ended while no replica led.
func TestLedgerEndsAfterAnotherLeader(t *testing.T) {
	l := ledgerOf(
		[]v1alpha1.ImagePolicy{{ObjectMeta: metav1.ObjectMeta{Name: "production"}, Status: v1alpha1.ImagePolicyStatus{
			Violations: []v1alpha1.Violation{
				{Namespace: "shop", Kind: "Pod", Name: "a", Image: "x", Since: metav1.Unix(7, 0)},
			},
		}}})
	for i, want := range [][]string{{"a cured"}, nil} {
		n, _ := l.enter(&compliance.Result{Findings: []compliance.Finding{podFound("a")}}, time.Unix(9, 0))
		if diff := cmp.Diff(want, texts(n)); diff != "" {
			t.Errorf("evaluation %d: events (-want +got):\n%s", i, diff)
		}
	}
}

func TestCompliant(t *testing.T) {
	many := compliance.Summary{Covered: 900, Violating: 800}
	for i := range 800 {
		many.Findings = append(many.Findings, podFound(fmt.Sprintf("pod-%d", i), strings.Repeat("x", 1024)+" bad"))
	}
	forged := podFound(strings.Repeat("n", 253), strings.Repeat("i", 900)+"@sha256:0123456789abcdef bad")
	forged.Workload.Kind = strings.Repeat("K", 2000)
	forged.Images[0].Missing = strings.Split(strings.Repeat("role ", 2000), " ")
	cases := map[string]struct {
		summary compliance.Summary
		status  metav1.ConditionStatus
		reason  string
		says    []string
	}{
		"nothing": {
			compliance.Summary{}, metav1.ConditionTrue, v1alpha1.ReasonNothingRuns,
			[]string{"no image that runs in the namespaces where the policy holds matches spec.images"},
		},
		"nowhere": {
			compliance.Summary{Nowhere: true}, metav1.ConditionTrue, v1alpha1.ReasonNothingRuns,
			[]string{"no namespace matches spec.namespaceSelector"},
		},
		"all": {
			compliance.Summary{Covered: 2}, metav1.ConditionTrue, v1alpha1.ReasonAllSigned,
			[]string{"all 2 running workloads that it covers meet the policy"},
		},
		"one": {
			compliance.Summary{Covered: 1}, metav1.ConditionTrue, v1alpha1.ReasonAllSigned,
			[]string{"the one running workload"},
		},
		"unchecked": {
			compliance.Summary{
				Covered: 2, Unchecked: 1, Findings: []compliance.Finding{podFound("a"), podFound("b", "x unknown")},
			},
			metav1.ConditionUnknown, v1alpha1.ReasonNotAllChecked, []string{"1 of 2", "Pod shop/b (x: Unreachable)"},
		},
		"violated": {
			compliance.Summary{
				Covered: 3, Violating: 1, Unchecked: 1,
				Findings: []compliance.Finding{podFound("a", "x bad", "y unknown"), podFound("b", "z unknown")},
			},
			metav1.ConditionFalse, v1alpha1.ReasonViolations,
			[]string{"1 of 3", "1 could not be checked", "Pod shop/a (x: not signed by qa)"},
		},
		"digest": {
			compliance.Summary{
				Covered: 1, Violating: 1,
				Findings: []compliance.Finding{podFound("a", "example.com/app@sha256:0123456789abcdef bad")},
			},
			metav1.ConditionFalse, v1alpha1.ReasonViolations,
			[]string{"Pod shop/a (example.com/app@sha256:01234567...: not signed by qa)"},
		},
		"forged": {
			compliance.Summary{
				Covered: 2, Violating: 2, Findings: []compliance.Finding{forged, podFound("b", "z bad")},
			},
			metav1.ConditionFalse, v1alpha1.ReasonViolations,
			[]string{"2 of 2", "@sha256:01234567...", "Pod shop/b (z: not signed by qa)"},
		},
		"many": {many, metav1.ConditionFalse, v1alpha1.ReasonViolations, []string{"800 of 900", "pod-2", "..."}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			is, reason, message := compliant(&c.summary)
			if is != c.status || reason != c.reason {
				t.Errorf("got %s, %s; want %s, %s", is, reason, c.status, c.reason)
			}
			for _, text := range c.says {
				if !strings.Contains(message, text) {
					t.Errorf("got message %q, want it to contain %q", message, text)
				}
			}
			if len(message) > status.MessageBytes && name != "many" || len(message) > 2000 ||
				strings.Contains(message, "shop/pod-3") {
				t.Errorf("got a message of %d bytes, want it limited: %q", len(message), message)
			}
		})
	}
}
