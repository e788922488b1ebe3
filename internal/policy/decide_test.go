package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

const repository = "registry.example.com/acme/app"

func admitted(letter string) policy.Decision {
	return policy.Decision{Verdict: policy.Admitted, Digest: digest(letter), Pin: v1alpha1.PinPods}
}

// decisions are cases that compare a decision without its texts, which TestDenials compares, and
// without the consulted subjects.
type decisions map[string]struct {
	image    string // app by default
	roots    roots
	policies []*policy.Policy
	want     policy.Decision
}

func (tests decisions) run(t *testing.T) {
	t.Helper()
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if tc.image == "" {
				tc.image = app
			}
			got := decide(tc.image, tc.roots, tc.policies...)
			if got.Verdict != policy.Admitted {
				got.Pin = "" // as TestPinDigests has it
			}
			ignored := cmpopts.IgnoreFields(policy.Decision{}, "Image", "Message", "Warnings", "Audits", "Consulted",
				"Outcomes")
			if diff := cmp.Diff(tc.want, got, ignored); diff != "" {
				t.Errorf("(-want +got):\n%s\n%s", diff, got.Message)
			}
			if (got.Message == "") != (got.Verdict == policy.Admitted) {
				t.Errorf("verdict %d with the message %q", got.Verdict, got.Message)
			}
		})
	}
}

func TestThreatZeroValueDenies(t *testing.T) {
	if (policy.Decision{}).Verdict == policy.Admitted || policy.Verdict(0) != policy.Denied {
		t.Error("the zero Decision admits")
	}
	if policy.Uncovered(0) != policy.UncoveredDeny {
		t.Error("the zero Uncovered admits")
	}
	if got := new(policy.Set).Decide(policy.Request{Image: app}, roots{}); got.Verdict != policy.Denied {
		t.Errorf("the zero Set: verdict %d", got.Verdict)
	}
	if got := policy.NewSet(0, nil).Decide(policy.Request{}, roots{}); got.Verdict != policy.Denied {
		t.Errorf("the zero Request: verdict %d", got.Verdict)
	}
	if got := policy.NewSet(99, nil).Decide(policy.Request{Image: app}, roots{}); got.Verdict != policy.Denied {
		t.Errorf("an unknown Uncovered: verdict %d", got.Verdict)
	}
}

// Any policy that holds in the namespace might cover a reference that cannot be parsed, so each of
// them denies it. If no policy holds, it is admitted with a warning, unless uncovered images are
// denied.
func TestThreatUnparsableImage(t *testing.T) {
	elsewhere := func(s *v1alpha1.ImagePolicySpec) {
		s.NamespaceSelector = &v1alpha1.NamespaceSelector{
			MatchLabels: map[string]v1alpha1.LabelValue{"env": "elsewhere"},
		}
	}
	other := func(s *v1alpha1.ImagePolicySpec) { s.Images = []v1alpha1.ImagePattern{"other.example.com/*"} }
	warns := func(s *v1alpha1.ImagePolicySpec) { s.Mode = v1alpha1.ModeWarn }
	audit := func(s *v1alpha1.ImagePolicySpec) { s.Mode = v1alpha1.ModeAudit }
	everything := func(s *v1alpha1.ImagePolicySpec) { s.ExceptImages = []v1alpha1.ImagePattern{"*/**"} }
	invalid, _ := policy.Compile("invalid", &v1alpha1.ImagePolicySpec{
		NamespaceSelector: &v1alpha1.NamespaceSelector{
			MatchExpressions: []v1alpha1.NamespaceRequirement{{Key: "a", Operator: "?"}},
		},
	})
	cases := map[string]struct {
		uncovered policy.Uncovered
		policies  []*policy.Policy
		want      string // in the warning; empty: denied
	}{
		"no policy":                   {policy.UncoveredAllow, nil, "let through"},
		"no policy, Warn":             {policy.UncoveredWarn, nil, "let through"},
		"no policy, Deny":             {policy.UncoveredDeny, nil, ""},
		"no policy, no such constant": {policy.Uncovered(7), nil, ""},
		"a policy elsewhere": {
			policy.UncoveredAllow, []*policy.Policy{compiled(t, "a", elsewhere)}, "let through",
		},
		"a policy elsewhere, Deny": {policy.UncoveredDeny, []*policy.Policy{compiled(t, "a", elsewhere)}, ""},
		"a policy":                 {policy.UncoveredAllow, []*policy.Policy{compiled(t, "a")}, ""},
		"a policy here and elsewhere": {
			policy.UncoveredAllow, []*policy.Policy{compiled(t, "a", elsewhere), compiled(t, "b")}, "",
		},
		"a policy of other images":     {policy.UncoveredAllow, []*policy.Policy{compiled(t, "a", other)}, ""},
		"a policy that excepts images": {policy.UncoveredAllow, []*policy.Policy{compiled(t, "a", everything)}, ""},
		"a policy that warns":          {policy.UncoveredAllow, []*policy.Policy{compiled(t, "a", warns)}, ""},
		"a policy that audits":         {policy.UncoveredAllow, []*policy.Policy{compiled(t, "a", audit)}, ""},
		"a policy that allows all": {
			policy.UncoveredAllow, []*policy.Policy{compiled(t, "a", unsignedAllowed)}, "",
		},
		"a policy that is invalid": {policy.UncoveredAllow, []*policy.Policy{invalid}, ""},
	}
	for name, c := range cases {
		set := policy.NewSet(c.uncovered, c.policies)
		for _, image := range []string{
			"", "A/b", "nginx@sha512:aa", digest("a"), "sha256:aaaa", "a b", "registry.example.com/../a",
		} {
			got := set.Decide(policy.Request{Image: image}, roots{})
			if c.want == "" {
				if got.Verdict != policy.Denied || !strings.Contains(got.Message, "cannot be read: ") ||
					len(got.Warnings) > 0 {
					t.Errorf("%s, %q: verdict %d, %q, warnings %q", name, image, got.Verdict, got.Message, got.Warnings)
				}
				continue
			}
			if got.Verdict != policy.Admitted || got.Message != "" || got.Digest != "" || len(got.Warnings) != 1 ||
				!strings.Contains(got.Warnings[0], "cannot be read: ") || !strings.Contains(got.Warnings[0], c.want) {
				t.Errorf("%s, %q: verdict %d, %q, warnings %q", name, image, got.Verdict, got.Message, got.Warnings)
			}
		}
	}
}

func TestRequirements(t *testing.T) {
	both := compiled(t, "production")
	two := compiled(t, "production", requires("2 of a b c"))
	decisions{
		"both signed": {
			"", roots{"acme-notary": signed("ci v1 a", "qa v1 a")}, []*policy.Policy{both}, admitted("a"),
		},
		"one signed": {
			"", roots{"acme-notary": signed("ci v1 a")}, []*policy.Policy{both}, policy.Decision{},
		},
		"none signed": {
			"", roots{"acme-notary": trust.Unsigned{}}, []*policy.Policy{both}, policy.Decision{},
		},
		"signed for another tag": {
			"", roots{"acme-notary": signed("ci v1 a", "qa v2 a")}, []*policy.Policy{both}, policy.Decision{},
		},
		"the default tag": {
			repository, roots{"acme-notary": signed("ci latest a", "qa latest a")}, []*policy.Policy{both},
			admitted("a"),
		},
		"threshold met": {
			"", roots{"acme-notary": signed("a v1 a", "c v1 a")}, []*policy.Policy{two}, admitted("a"),
		},
		"threshold met by all": {
			"", roots{"acme-notary": signed("a v1 a", "b v1 a", "c v1 a")}, []*policy.Policy{two}, admitted("a"),
		},
		"threshold not met": {
			"", roots{"acme-notary": signed("a v1 a")}, []*policy.Policy{two}, policy.Decision{},
		},
		"threshold, one role twice": {
			"", roots{"acme-notary": signed("a v1 a", "a v1 a")}, []*policy.Policy{two}, policy.Decision{},
		},
		"threshold over two digests": {
			"", roots{"acme-notary": signed("a v1 a", "b v1 b")}, []*policy.Policy{two}, policy.Decision{},
		},
		"threshold and a role": {
			"", roots{"acme-notary": signed("a v1 a", "b v1 a")},
			[]*policy.Policy{compiled(t, "p", requires("ci", "2 of a b c"))}, policy.Decision{},
		},
		"digest that is none": {
			"", roots{"acme-notary": &held{statements: []trust.Statement{{Role: "ci", Tag: "v1", Digest: "sha256:x"}}}},
			[]*policy.Policy{compiled(t, "p", requires("ci"))}, policy.Decision{},
		},
		"digest alone, tag moved on": {
			repository + "@" + digest("a"), roots{"acme-notary": signed("ci v1 a", "qa v1 a", "ci v1 b")},
			[]*policy.Policy{both}, admitted("a"),
		},
		"one root signs digests alone": {
			"", roots{"acme-notary": signed("ci v1 a"), "s": signed("qa - a")},
			[]*policy.Policy{compiled(t, "p", from("acme-notary", "s"))}, admitted("a"),
		},
		"that, for another digest": {
			"", roots{"acme-notary": signed("ci v1 a"), "s": signed("qa - b")},
			[]*policy.Policy{compiled(t, "p", from("acme-notary", "s"))}, policy.Decision{},
		},
	}.run(t)
}

func TestThreatOneRoleForAnother(t *testing.T) {
	qa := []*policy.Policy{compiled(t, "production", requires("qa"))}
	for _, role := range []string{
		"ci", "targets", "targets/releases", "releases", "targets/qa", "QA", "qa2", "q", "", "qa/", "qa ",
	} {
		h := &held{statements: []trust.Statement{{Role: role, Tag: "v1", Digest: digest("a")}}}
		for _, image := range []string{app, app + "@" + digest("a"), repository + "@" + digest("a")} {
			if got := decide(image, roots{"acme-notary": h}, qa...); got.Verdict != policy.Denied {
				t.Errorf("role %q spoke for qa on %s: verdict %d", role, image, got.Verdict)
			}
		}
	}
}

func TestThreatTagAndDigestDisagree(t *testing.T) {
	both := []*policy.Policy{compiled(t, "production")}
	r := roots{"acme-notary": signed("ci v1 a", "qa v1 a", "ci v2 b", "qa v2 b")}
	decisions{
		"agree":       {app + "@" + digest("a"), r, both, admitted("a")},
		"disagree":    {app + "@" + digest("b"), r, both, policy.Decision{}},
		"tag unknown": {repository + ":v3@" + digest("a"), r, both, policy.Decision{}},
		"one role for each of the two": {
			app + "@" + digest("b"), roots{"acme-notary": signed("ci v1 a", "ci v1 b", "qa v1 a")}, both,
			policy.Decision{},
		},
	}.run(t)
}

func TestThreatDigestOnlyReference(t *testing.T) {
	both := []*policy.Policy{compiled(t, "production")}
	image := repository + "@" + digest("a")
	decisions{
		"under one tag":      {image, roots{"acme-notary": signed("ci v1 a", "qa v1 a")}, both, admitted("a")},
		"under several tags": {image, roots{"acme-notary": signed("ci v1 a", "qa v2 a")}, both, admitted("a")},
		"one role":           {image, roots{"acme-notary": signed("ci v1 a", "ci v2 a")}, both, policy.Decision{}},
		"one of another":     {image, roots{"acme-notary": signed("ci v1 a", "qa v1 b")}, both, policy.Decision{}},
		"nobody":             {image, roots{"acme-notary": signed("ci v1 b", "qa v1 b")}, both, policy.Decision{}},
		"two roots": {
			image, roots{"a": signed("ci v1 a"), "b": signed("qa - a")},
			[]*policy.Policy{compiled(t, "p", from("a", "b"))}, admitted("a"),
		},
		"ambiguity elsewhere": {
			image, roots{"acme-notary": signed("ci v1 a", "qa v1 a", "ci v1 b", "qa v1 b")}, both, admitted("a"),
		},
	}.run(t)
}

func TestThreatRolesSignedDifferentDigests(t *testing.T) {
	both := []*policy.Policy{compiled(t, "production")}
	decisions{
		"different digests": {"", roots{"acme-notary": signed("ci v1 a", "qa v1 b")}, both, policy.Decision{}},
		"in two roots": {
			"", roots{"a": signed("ci v1 a"), "b": signed("qa v1 b")},
			[]*policy.Policy{compiled(t, "p", from("a", "b"))}, policy.Decision{},
		},
		"one has both": {"", roots{"acme-notary": signed("ci v1 a", "ci v1 b", "qa v1 b")}, both, admitted("b")},
	}.run(t)
}

func TestCandidatesInTheOrderOfTheRoots(t *testing.T) {
	ci := requires("ci")
	ab, ba := compiled(t, "p", ci, from("a", "b")), compiled(t, "p", ci, from("b", "a"))
	twice := signed("ci v1 a", "ci v1 b")
	decisions{
		"first root": {
			"", roots{"a": signed("ci v1 a"), "b": signed("ci v1 b")}, []*policy.Policy{ab}, admitted("a"),
		},
		"first root, reversed": {
			"", roots{"a": signed("ci v1 a"), "b": signed("ci v1 b")}, []*policy.Policy{ba}, admitted("b"),
		},
		"first root has none": {
			"", roots{"a": trust.Unsigned{}, "b": signed("ci v1 b")}, []*policy.Policy{ab}, admitted("b"),
		},
		"first root has none that counts": {
			"", roots{"a": signed("dev v1 a"), "b": signed("ci v1 b")}, []*policy.Policy{ab}, admitted("b"),
		},
		"two of one root": {
			"", roots{"a": twice, "b": trust.Unsigned{}}, []*policy.Policy{ab}, policy.Decision{},
		},
		"two of the first root, one of the next": {
			"", roots{"a": twice, "b": signed("ci v1 a")}, []*policy.Policy{ab}, policy.Decision{},
		},
		"one of the first root, two of the next": {
			"", roots{"a": signed("ci v1 b"), "b": twice}, []*policy.Policy{ab}, admitted("b"),
		},
		"same digest by two roles": {
			"", roots{"a": signed("ci v1 a", "qa v1 a")},
			[]*policy.Policy{compiled(t, "p", requires("1 of ci qa"), from("a"))}, admitted("a"),
		},
		"policies by name, not as given": {"",
			roots{"a": signed("ci v1 a", "qa v1 a"), "b": signed("ci v1 b", "qa v1 b")}, []*policy.Policy{
				compiled(t, "y", ci, from("b", "a")), compiled(t, "x", requires("qa"), from("a", "b")),
			}, admitted("a")},
		"a root that only a Warn policy names does not choose": {"",
			roots{"a": signed("ci v1 a"), "b": signed("ci v1 b")}, []*policy.Policy{
				compiled(t, "y", ci, from("b")), compiled(t, "x", ci, from("a"), mode(v1alpha1.ModeWarn)),
			}, admitted("b")},
		"a root whose role no policy requires does not choose": {"",
			roots{"a": signed("qa v1 b"), "c": signed("ci v1 a", "qa v1 a", "ci v1 b", "qa v1 b")}, []*policy.Policy{
				compiled(t, "x", ci, from("a", "c")), compiled(t, "y", requires("qa"), from("c")),
			}, policy.Decision{}},
		"an expired statement does not choose": {
			"", roots{"a": signed("ci v1 b").lasting("ci", now), "b": twice}, []*policy.Policy{ab}, policy.Decision{},
		},
		"a role that no policy names does not choose": {
			"", roots{"a": signed("dev v1 b"), "b": twice}, []*policy.Policy{ab}, policy.Decision{},
		},
	}.run(t)
}

func TestAllPoliciesMustHold(t *testing.T) {
	ci, qa := compiled(t, "a", requires("ci")), compiled(t, "b", requires("qa"))
	allow := compiled(t, "c", unsignedAllowed)
	decisions{
		"both hold": {
			"", roots{"acme-notary": signed("ci v1 a", "qa v1 a")}, []*policy.Policy{ci, qa}, admitted("a"),
		},
		"one does not": {
			"", roots{"acme-notary": signed("ci v1 a")}, []*policy.Policy{ci, qa}, policy.Decision{},
		},
		"no digest for both": {
			"", roots{"acme-notary": signed("ci v1 a", "qa v1 b")}, []*policy.Policy{ci, qa}, policy.Decision{},
		},
		"one chooses for the other": {
			"", roots{"acme-notary": signed("ci v1 a", "ci v1 b", "qa v1 b")}, []*policy.Policy{ci, qa}, admitted("b"),
		},
		"unsigned allowed": {
			"", roots{"acme-notary": unreachable}, []*policy.Policy{allow}, policy.Decision{Verdict: policy.Admitted},
		},
		"unsigned allowed, with digest": {
			app + "@" + digest("a"), nil, []*policy.Policy{allow}, policy.Decision{Verdict: policy.Admitted},
		},
		"unsigned allowed does not loosen": {
			"", roots{"acme-notary": trust.Unsigned{}}, []*policy.Policy{allow, ci}, policy.Decision{},
		},
		"unsigned allowed does not hinder": {
			"", roots{"acme-notary": signed("ci v1 a")}, []*policy.Policy{allow, ci}, admitted("a"),
		},
		"another policy's root does not help": {
			"", roots{"acme-notary": signed("ci v1 a"), "other": signed("qa v1 a", "ci v1 a")},
			[]*policy.Policy{compiled(t, "a"), compiled(t, "b", requires("ci"), from("other"))}, policy.Decision{},
		},
		"each from its own root": {
			"", roots{"acme-notary": signed("ci v1 a"), "other": signed("qa v1 a")},
			[]*policy.Policy{ci, compiled(t, "b", requires("qa"), from("other"))}, admitted("a"),
		},
		"unsigned allowed, but its root is gone": {
			"", roots{}, []*policy.Policy{compiled(t, "c", unsignedAllowed, from("gone"))},
			policy.Decision{Verdict: policy.CouldNotCheck},
		},
		"unsigned allowed, its root not loaded for a Warn policy": {"", roots{"r": policy.ErrNotLoaded},
			[]*policy.Policy{
				compiled(t, "c", unsignedAllowed, from("r")), compiled(t, "d", from("r"), mode(v1alpha1.ModeWarn)),
			}, with(policy.Decision{Verdict: policy.Admitted}, "r")},
		"unsigned allowed, the fault of its root excuses no other": {"",
			roots{"r": unreachable, "acme-notary": signed("ci v1 a")}, []*policy.Policy{
				compiled(t, "a"), compiled(t, "c", unsignedAllowed, from("r")),
				compiled(t, "d", from("r"), mode(v1alpha1.ModeWarn)),
			}, policy.Decision{}},
		"unsigned allowed, its root not loaded": {
			"", roots{"r": policy.ErrNotLoaded}, []*policy.Policy{compiled(t, "c", unsignedAllowed, from("r"))},
			policy.Decision{Verdict: policy.Admitted},
		},
	}.run(t)
}

func TestPinDigests(t *testing.T) {
	none, pods, all := pin(v1alpha1.PinNone), pin(v1alpha1.PinPods), pin(v1alpha1.PinAll)
	warn := mode(v1alpha1.ModeWarn)
	tests := map[string]struct {
		policies []*policy.Policy
		want     v1alpha1.PinDigests
	}{
		"none": {[]*policy.Policy{compiled(t, "a", none)}, v1alpha1.PinNone},
		"pods over none": {
			[]*policy.Policy{compiled(t, "a", none), compiled(t, "b", pods)}, v1alpha1.PinPods,
		},
		"all over pods": {[]*policy.Policy{compiled(t, "a", all), compiled(t, "b", pods)}, v1alpha1.PinAll},
		"Warn does not mutate": {
			[]*policy.Policy{compiled(t, "a", pods), compiled(t, "b", all, warn)}, v1alpha1.PinPods,
		},
		"nor what requires nothing": {
			[]*policy.Policy{compiled(t, "a", none), compiled(t, "b", all, unsignedAllowed)}, v1alpha1.PinNone,
		},
		"only Warn": {[]*policy.Policy{compiled(t, "b", all, warn)}, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := decide(app, roots{"acme-notary": signed("ci v1 a", "qa v1 a")}, tc.policies...)
			if got.Verdict != policy.Admitted || got.Pin != tc.want || (got.Digest == "") != (got.Pin == "") {
				t.Errorf("verdict %d, digest %q, pin %q; want %q", got.Verdict, got.Digest, got.Pin, tc.want)
			}
			// An update with a denied image keeps the pinned one, so Pin is set without a digest.
			for name, evidence := range map[string]any{
				"not signed": signed("ci v1 a"), "not loaded": policy.ErrNotLoaded,
			} {
				got := decide(app, roots{"acme-notary": evidence}, tc.policies...)
				if denied := got.Verdict != policy.Admitted; denied != (tc.want != "") || got.Digest != "" ||
					got.Pin != tc.want {
					t.Errorf("%s: verdict %d, digest %q, pin %q; want %q without a digest", name, got.Verdict,
						got.Digest, got.Pin, tc.want)
				}
			}
		})
	}
}

func TestThreatExpired(t *testing.T) {
	soon, late := now.Add(time.Nanosecond), now.Add(-time.Nanosecond)
	all := func() *held { return signed("ci v1 a", "qa v1 a") }
	both := []*policy.Policy{compiled(t, "production")}
	either := []*policy.Policy{compiled(t, "production", requires("1 of ci qa"))}
	fault := policy.Decision{Verdict: policy.CouldNotCheck}
	decisions{
		"evidence in time":      {"", roots{"acme-notary": all().until(soon)}, both, admitted("a")},
		"evidence expires now":  {"", roots{"acme-notary": all().until(now)}, both, fault},
		"evidence expired":      {"", roots{"acme-notary": all().until(late)}, both, fault},
		"signature in time":     {"", roots{"acme-notary": all().lasting("qa", soon)}, both, admitted("a")},
		"signature expires now": {"", roots{"acme-notary": all().lasting("qa", now)}, both, policy.Decision{}},
		"signature expired":     {"", roots{"acme-notary": all().lasting("qa", late)}, both, policy.Decision{}},
		"by digest": {
			repository + "@" + digest("a"), roots{"acme-notary": all().lasting("qa", late)}, both, policy.Decision{},
		},
		"no tag in the format": {
			"", roots{"acme-notary": signed("ci v1 a", "qa - a").lasting("qa", late)}, both, policy.Decision{},
		},
		"another role's is not missed": {"", roots{"acme-notary": all().lasting("qa", late)}, either, admitted("a")},
		"a rival that expired is none": {
			"", roots{"acme-notary": signed("ci v1 a", "qa v1 b").lasting("qa", now)}, either, admitted("a"),
		},
		"a rival that is live is a one": {
			"", roots{"acme-notary": signed("ci v1 a", "qa v1 b").lasting("qa", soon)}, either, policy.Decision{},
		},
	}.run(t)
}

func TestThreatFaultIsNoVerdict(t *testing.T) {
	both := []*policy.Policy{compiled(t, "p", from("a", "b"))}
	all, some := signed("ci v1 a", "qa v1 a"), signed("ci v1 a")
	fault := policy.Decision{Verdict: policy.CouldNotCheck}
	decisions{
		"untyped error":                 {"", roots{"a": errUntyped, "b": some}, both, fault},
		"typed fault":                   {"", roots{"a": unreachable, "b": some}, both, fault},
		"neither evidence nor error":    {"", roots{"a": nothing{}, "b": some}, both, fault},
		"fault not needed":              {"", roots{"a": unreachable, "b": all}, both, admitted("a")},
		"fault not needed, other order": {"", roots{"a": all, "b": errUntyped}, both, admitted("a")},
		"expired and not needed": {
			"", roots{"a": signed("ci v1 b", "qa v1 b").until(now), "b": all}, both, admitted("a"),
		},
		"ambiguous beside a fault": {
			"", roots{"a": unreachable, "b": signed("ci v1 a", "qa v1 a", "ci v1 b", "qa v1 b")}, both, fault,
		},
		"unusable though not needed": {"", roots{"a": all, "b": unusable("no keys")}, both, fault},
		"missing though not needed":  {"", roots{"a": all}, both, fault},
		"unusable, of another policy": {
			"", roots{"a": all, "b": all, "c": unusable("no keys")},
			append(both[:1:1], compiled(t, "q", from("c"))), fault,
		},
		"not loaded, not needed": {
			"", roots{"a": all, "b": policy.ErrNotLoaded}, both, with(admitted("a"), "b"),
		},
		"several not loaded": {
			"", roots{"a": policy.ErrNotLoaded, "b": policy.ErrNotLoaded}, both,
			with(policy.Decision{Verdict: policy.CouldNotCheck}, "a", "b"),
		},
		"not loaded, of a Warn policy": {
			"", roots{"a": all, "b": all, "c": policy.ErrNotLoaded},
			append(both[:1:1], compiled(t, "q", from("c"), mode(v1alpha1.ModeWarn))), with(admitted("a"), "c"),
		},
		"not loaded, all Audit": {
			"", roots{"c": policy.ErrNotLoaded},
			[]*policy.Policy{compiled(t, "q", from("c"), mode(v1alpha1.ModeAudit))},
			with(policy.Decision{Verdict: policy.Admitted}, "c"),
		},
		"fault of a Warn policy": {
			"", roots{"a": all, "b": all, "c": unreachable},
			append(both[:1:1], compiled(t, "q", from("c"), mode(v1alpha1.ModeWarn))), admitted("a"),
		},
		"denied, and a Warn policy's": {
			"", roots{"a": some, "b": some, "c": unreachable},
			append(both[:1:1], compiled(t, "q", from("c"), mode(v1alpha1.ModeWarn))), policy.Decision{},
		},
		"fault by digest": {
			repository + "@" + digest("a"), roots{"a": unreachable, "b": some}, both, fault,
		},
		"nothing signed and another out": {"", roots{"a": trust.Unsigned{}, "b": unreachable}, both, fault},
	}.run(t)
}

func with(d policy.Decision, notLoaded ...string) policy.Decision {
	for _, root := range notLoaded {
		d.NotLoaded = append(d.NotLoaded, trust.Key{Root: root, Subject: trust.Subject{Repository: repository}})
	}
	return d
}

func TestAdviceNeverDecides(t *testing.T) {
	warn, audit := mode(v1alpha1.ModeWarn), mode(v1alpha1.ModeAudit)
	ci := compiled(t, "enforced", requires("ci"))
	tests := map[string]struct {
		roots            roots
		policies         []*policy.Policy
		digest           string
		warnings, audits int
	}{
		"holds": {
			roots{"acme-notary": signed("ci v1 a", "qa v1 a")}, []*policy.Policy{compiled(t, "w", warn)}, "", 0, 0,
		},
		"does not hold": {
			roots{"acme-notary": signed("ci v1 a")},
			[]*policy.Policy{compiled(t, "w", warn), compiled(t, "v", warn), compiled(t, "z", audit)}, "", 2, 1,
		},
		"on the digest decided": {
			roots{"acme-notary": signed("ci v1 a", "qa v1 b")},
			[]*policy.Policy{ci, compiled(t, "w", warn, requires("qa"))}, digest("a"), 1, 0,
		},
		"holds for the digest decided": {
			roots{"acme-notary": signed("ci v1 a", "qa v1 a")},
			[]*policy.Policy{ci, compiled(t, "w", warn, requires("qa"))}, digest("a"), 0, 0,
		},
		"each alone": {
			roots{"acme-notary": signed("ci v1 a", "qa v1 b")},
			[]*policy.Policy{compiled(t, "w", warn, requires("qa")), compiled(t, "z", audit, requires("ci"))}, "", 0, 0,
		},
		"ambiguous": {
			roots{"acme-notary": signed("ci v1 a", "ci v1 b")},
			[]*policy.Policy{compiled(t, "w", warn, requires("ci"))}, "", 1, 0,
		},
		"root missing": {roots{}, []*policy.Policy{compiled(t, "w", warn)}, "", 1, 0},
		"fault": {
			roots{"acme-notary": unreachable}, []*policy.Policy{compiled(t, "z", audit)}, "", 0, 1,
		},
		"fault, not needed": {
			roots{"acme-notary": unreachable, "b": signed("ci v1 a", "qa v1 a")},
			[]*policy.Policy{compiled(t, "z", audit, from("acme-notary", "b"))}, "", 0, 0,
		},
		"requires nothing": {roots{}, []*policy.Policy{compiled(t, "w", warn, unsignedAllowed)}, "", 0, 0},
		"broken": {
			roots{}, []*policy.Policy{broken(t, "w", warn, requires("0 of a b"))}, "", 1, 0,
		},
		"beside what requires nothing": {
			roots{"acme-notary": signed("ci v1 a")},
			[]*policy.Policy{compiled(t, "e", unsignedAllowed), compiled(t, "w", warn)}, "", 1, 0,
		},
		"not loaded: says so meanwhile": {
			roots{"acme-notary": policy.ErrNotLoaded}, []*policy.Policy{compiled(t, "w", warn)}, "", 1, 0,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := decide(app, tc.roots, tc.policies...)
			if got.Verdict != policy.Admitted || got.Message != "" || got.Digest != tc.digest ||
				len(got.Consulted) > 0 {
				t.Errorf("verdict %d, digest %q, message %q, consulted %q", got.Verdict, got.Digest, got.Message,
					got.Consulted)
			}
			if len(got.Warnings) != tc.warnings || len(got.Audits) != tc.audits {
				t.Errorf("warnings %q, audits %q; want %d and %d", got.Warnings, got.Audits, tc.warnings, tc.audits)
			}
		})
	}
}

func TestDecisionHoldsTheParsedImage(t *testing.T) {
	want := imageref.Ref{
		Host: "registry.example.com", Path: "acme/app", Tag: "v1", Written: "Registry.example.com:443/acme/app",
	}
	for _, uncovered := range []policy.Uncovered{policy.UncoveredAllow, policy.UncoveredDeny} {
		for _, policies := range [][]*policy.Policy{nil, {compiled(t, "production")}} {
			got := policy.NewSet(uncovered,
				policies).Decide(policy.Request{Image: "Registry.example.com:443/acme/app:v1", Now: now},
				roots{"acme-notary": signed()})
			if got.Image != want {
				t.Errorf("uncovered %d, %d policies: image %+v", uncovered, len(policies), got.Image)
			}
		}
	}
}
