package policy_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

// bySubject has evidence of roots of two formats. Roots whose name begins with "n" have one subject
// for a repository, the others have one for each tag and digest. A subject without an entry is not
// loaded.
type bySubject map[string]map[string]any

func (r bySubject) Usable(string) error { return nil }

func (r bySubject) Subject(root string, image imageref.Ref) trust.Subject {
	switch {
	case root[0] == 'n':
		return trust.Subject{Repository: image.Name()}
	case image.Digest != "":
		return trust.Subject{Pulled: image.Name(), Digest: image.Digest}
	}
	return trust.Subject{Pulled: image.Name(), Tag: image.Tag}
}

func (bySubject) Tenant(trust.Key, string) (trust.Key, bool) { return trust.Key{}, false }

func (r bySubject) Evidence(about trust.Key) (trust.Evidence, time.Duration, error) {
	at := about.Tag
	for _, letter := range []string{"a", "b", "c"} {
		if about.Digest == digest(letter) {
			at = letter
		}
	}
	switch v := r[about.Root][at].(type) {
	case trust.Evidence:
		return v, 0, nil
	case error:
		return nil, 0, v
	}
	return nil, 0, policy.ErrNotLoaded
}

// means is the evidence of a tag: the digest that its registry reports.
type means struct {
	trust.Unsigned
	digests []string
}

func hint(letters ...string) means {
	var m means
	for _, letter := range letters {
		m.digests = append(m.digests, digest(letter))
	}
	return m
}

func (m means) Hints(string) []string { return m.digests }

// partly is evidence with a fault: a part of it could not be checked.
type partly struct {
	*held
	fault *trust.Fault
}

func (p partly) Faults() []*trust.Fault { return []*trust.Fault{p.fault} }

func TestSubjects(t *testing.T) {
	type root = map[string]any
	both := func(letter string) *held { return signed("ci - "+letter, "qa - "+letter) }
	lacks := func(root, tag, letter string) []trust.Key {
		about := trust.Subject{Pulled: repository, Tag: tag}
		if letter != "" {
			about.Digest = digest(letter)
		}
		return []trust.Key{{Root: root, Subject: about}}
	}
	down := trust.NewFault(v1alpha1.ReasonUnreachable, "connection refused")
	tests := map[string]struct {
		roots     bySubject
		from      []v1alpha1.ObjectName
		verdict   policy.Verdict
		digest    string
		notLoaded []trust.Key
	}{
		"what the tag means first": {
			bySubject{"s": {}}, []v1alpha1.ObjectName{"s"}, policy.CouldNotCheck, "", lacks("s", "v1", ""),
		},
		"then who has signed it": {
			bySubject{"s": root{"v1": hint("a")}}, []v1alpha1.ObjectName{"s"}, policy.CouldNotCheck, "",
			lacks("s", "", "a"),
		},
		"signed": {
			bySubject{"s": root{"v1": hint("a"), "a": both("a")}}, []v1alpha1.ObjectName{"s"}, policy.Admitted,
			"a", nil,
		},
		"the hint of one, the statements of another": {
			bySubject{
				"s": root{"v1": hint("a"), "a": trust.Unsigned{}}, "t": root{"v1": trust.Unsigned{}, "a": both("a")},
			},
			[]v1alpha1.ObjectName{"s", "t"}, policy.Admitted, "a", nil,
		},
		"a role by each": {
			bySubject{
				"n": root{"": signed("ci v1 a")},
				"s": root{"v1": hint("b"), "a": signed("qa - a"), "b": trust.Unsigned{}},
			},
			[]v1alpha1.ObjectName{"s", "n"}, policy.Admitted, "a", nil,
		},
		"who signed a digest does not say what the tag means": {
			bySubject{
				"s": root{"v1": hint("a"), "a": both("a"), "b": both("b")}, "n": root{"": signed("ci v1 b", "qa v1 b")},
			},
			[]v1alpha1.ObjectName{"s", "n"}, policy.Admitted, "a", nil,
		},
		"the first that names one decides": {
			bySubject{
				"s": root{"v1": hint("a"), "a": both("a"), "b": both("b")}, "n": root{"": signed("ci v1 b", "qa v1 b")},
			},
			[]v1alpha1.ObjectName{"n", "s"}, policy.Admitted, "b", nil,
		},
		"two that one names": {
			bySubject{"s": root{"v1": hint("a", "b"), "a": both("a"), "b": both("b")}},
			[]v1alpha1.ObjectName{"s"}, policy.Denied, "", nil,
		},
		"a later root might make it ambiguous": {
			bySubject{"n": root{"": signed("ci v1 a", "qa v1 a", "ci v1 b")}, "nn": root{}},
			[]v1alpha1.ObjectName{"n", "nn"}, policy.Admitted, "a",
			[]trust.Key{{Root: "nn", Subject: trust.Subject{Repository: repository}}},
		},
		"an earlier root might name another": {
			bySubject{"s": root{"v1": hint("a"), "a": both("a")}, "t": root{"a": trust.Unsigned{}}},
			[]v1alpha1.ObjectName{"t", "s"}, policy.Admitted, "a", lacks("t", "v1", ""),
		},
		"a fault beside what is proven": {
			bySubject{"s": root{"v1": hint("a"), "a": partly{both("a"), down}}},
			[]v1alpha1.ObjectName{"s"}, policy.Admitted, "a", nil,
		},
		"a fault beside what is not": {
			bySubject{"s": root{"v1": hint("a"), "a": partly{signed("ci - a"), down}}},
			[]v1alpha1.ObjectName{"s"}, policy.CouldNotCheck, "", nil,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			set := policy.NewSet(policy.UncoveredDeny, []*policy.Policy{compiled(t, "production", from(tc.from...))})
			got := set.Decide(policy.Request{Image: app, Now: now}, tc.roots)
			want := ""
			if tc.digest != "" {
				want = digest(tc.digest)
			}
			if got.Verdict != tc.verdict || got.Digest != want {
				t.Errorf("verdict %d, digest %q; want %d, %q: %s", got.Verdict, got.Digest, tc.verdict, want,
					got.Message)
			}
			if diff := cmp.Diff(tc.notLoaded, got.NotLoaded); diff != "" {
				t.Errorf("not loaded (-want +got):\n%s", diff)
			}
		})
	}
}

// A fault counts only if its root could have proven an unmet role. A fault that concerns only a
// policy that is met does not change another policy's denial to CouldNotCheck.
func TestThreatFaultOfAPolicyThatHolds(t *testing.T) {
	a := compiled(t, "a", requires("ci"), from("x", "y"))
	b := compiled(t, "b", requires("qa"), from("y"))
	r := roots{"x": unreachable, "y": signed("ci v1 a")}
	got := decide(app, r, a, b)
	if got.Verdict != policy.Denied {
		t.Errorf("verdict %d, want a denial: %s", got.Verdict, got.Message)
	}
	for _, k := range got.Consulted {
		if k.Root == "x" {
			t.Error("got a subject to fetch of a trust root that could prove no unmet role, want none")
		}
	}
	if got = decide(app, r,
		compiled(t, "a", requires("ci", "qa"), from("x", "y"))); got.Verdict != policy.CouldNotCheck {
		t.Errorf("verdict %d, want one that could not be checked: %s", got.Verdict, got.Message)
	}
}

// A policy in mode Audit never decides. A digest that only its own trust root names does not delay
// a denial by others, nor turn it into one that could not be checked.
func TestThreatAuditDoesNotDelayADenial(t *testing.T) {
	audit := func(s *v1alpha1.ImagePolicySpec) { s.Mode = v1alpha1.ModeAudit }
	tests := map[string]struct {
		named any // the evidence of the enforced root about the digest that only the other names
	}{
		"not loaded":    {named: nil},
		"loaded":        {named: trust.Unsigned{}},
		"not fetchable": {named: trust.NewFault(v1alpha1.ReasonUnreachable, "connection refused")},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := bySubject{
				"s": {"v1": hint("a"), "a": signed("ci - a")},
				"t": {"v1": hint("b"), "a": trust.Unsigned{}, "b": trust.Unsigned{}},
			}
			if tc.named != nil {
				r["s"]["b"] = tc.named
			}
			set := policy.NewSet(policy.UncoveredDeny, []*policy.Policy{
				compiled(t, "audited", from("t"), audit), compiled(t, "enforced", from("s")),
			})
			got := set.Decide(policy.Request{Image: app, Now: now}, r)
			if got.Verdict != policy.Denied {
				t.Errorf("verdict %d, want a denial: %s", got.Verdict, got.Message)
			}
			if len(got.NotLoaded) > 0 {
				t.Errorf("a denial waits for %v, want nothing", got.NotLoaded)
			}
			want := []trust.Key{
				{Root: "s", Subject: trust.Subject{Pulled: repository, Tag: "v1"}},
				{Root: "s", Subject: trust.Subject{Pulled: repository, Digest: digest("a")}},
			}
			slices.SortFunc(want, trust.Key.Compare)
			if diff := cmp.Diff(want, got.Consulted); diff != "" {
				t.Errorf("consulted (-want +got):\n%s", diff)
			}
		})
	}
}

// A signature that is for a tag alone proves nothing about an image that is named by its digest
// alone. What runs is judged by its digest, and there it counts.
func TestThreatSignatureOfATagAlone(t *testing.T) {
	evidence := signed("ci v1 a", "qa v1 a")
	for i := range evidence.statements {
		evidence.statements[i].TagOnly = true
	}
	set := policy.NewSet(policy.UncoveredAllow, []*policy.Policy{compiled(t, "production")})
	r := roots{"acme-notary": evidence}
	byDigest := strings.TrimSuffix(app, ":v1") + "@" + digest("a")
	for name, tt := range map[string]struct {
		request policy.Request
		want    policy.Verdict
	}{
		"by tag":             {policy.Request{Image: app}, policy.Admitted},
		"pinned":             {policy.Request{Image: app + "@" + digest("a")}, policy.Admitted},
		"by digest":          {policy.Request{Image: byDigest}, policy.Denied},
		"by digest, it runs": {policy.Request{Image: byDigest, Report: true}, policy.Admitted},
	} {
		tt.request.Now = now
		if got := set.Decide(tt.request, r); got.Verdict != tt.want {
			t.Errorf("%s: got verdict %d, want %d: %s", name, got.Verdict, tt.want, got.Message)
		}
	}
	if got := len(evidence.statements); got != 2 {
		t.Errorf("got %d statements in the evidence after the decisions, want the 2 of before", got)
	}
}
