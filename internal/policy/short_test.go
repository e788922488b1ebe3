package policy_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

// in returns an edit that restricts a policy to the namespaces of one environment.
func in(env v1alpha1.LabelValue) edit {
	return func(s *v1alpha1.ImagePolicySpec) {
		s.NamespaceSelector = &v1alpha1.NamespaceSelector{MatchLabels: map[string]v1alpha1.LabelValue{"env": env}}
	}
}

func except(patterns ...v1alpha1.ImagePattern) edit {
	return func(s *v1alpha1.ImagePolicySpec) { s.ExceptImages = patterns }
}

// decideIn decides in a namespace of the environment "production".
func decideIn(as policy.ShortNames, uncovered policy.Uncovered, image string, r roots,
	policies ...*policy.Policy) policy.Decision {
	return policy.NewSet(uncovered, policies).ReadShortNames(as).
		Decide(policy.Request{Image: image, NamespaceLabels: labels.Set{"env": "production"}, Now: now}, r)
}

const (
	allow = policy.UncoveredAllow
	warn  = policy.UncoveredWarn
	deny  = policy.UncoveredDeny
)

// The texts about a short name do not depend on the patterns of the policies.
func TestThreatShortName(t *testing.T) {
	const why = `it names no registry, and a node may pull it from any that it searches (--short-names=Deny)`
	const full = `write docker.io/acme/app:v1 or the registry that you mean`
	said := func(policies string) string { return `image "acme/app:v1": ` + policies + ": " + why + "; " + full }
	const covered = `image "acme/app:v1": it names no registry, so no ImagePolicy is known to cover it`
	quay := images("quay.example.com/acme/**")
	everywhere := images("*/**")
	warns, audits := mode(v1alpha1.ModeWarn), mode(v1alpha1.ModeAudit)
	enforcing := compiled(t, "production", quay)
	denied := policy.Decision{Message: said(`ImagePolicy "production"`)}
	admitted := policy.Decision{Verdict: policy.Admitted}
	warned := policy.Decision{Verdict: policy.Admitted, Warnings: []string{said(`ImagePolicy "w"`)}}
	tests := map[string]struct {
		uncovered policy.Uncovered
		policies  []*policy.Policy
		want      policy.Decision
	}{
		"a policy of another registry": {allow, []*policy.Policy{enforcing}, denied},
		"a policy of that docker.io": {
			allow, []*policy.Policy{compiled(t, "production", images("acme/app"))}, denied,
		},
		"a policy of everything": {allow, []*policy.Policy{compiled(t, "production", everywhere)}, denied},
		"an exception of that name": {
			allow, []*policy.Policy{compiled(t, "production", everywhere, except("acme/**"))}, denied,
		},
		"a policy that allows unsigned": {
			allow, []*policy.Policy{compiled(t, "production", everywhere, unsignedAllowed)}, denied,
		},
		"a policy that is broken":      {allow, []*policy.Policy{broken(t, "production", images("Acme/**"))}, denied},
		"with what none covers denied": {deny, []*policy.Policy{enforcing}, denied},
		"two of one mode": {
			allow, []*policy.Policy{enforcing, compiled(t, "b", quay)},
			policy.Decision{Message: said(`ImagePolicy "b", ImagePolicy "production"`)},
		},
		"Warn": {allow, []*policy.Policy{compiled(t, "w", quay, warns)}, warned},
		"Warn and Enforce": {allow, []*policy.Policy{compiled(t, "w", quay, warns), enforcing},
			policy.Decision{Message: denied.Message, Warnings: warned.Warnings}},
		"Audit": {allow, []*policy.Policy{compiled(t, "a", quay, audits)},
			policy.Decision{Verdict: policy.Admitted, Audits: []string{said(`ImagePolicy "a"`)}}},
		"Warn and Audit": {allow, []*policy.Policy{compiled(t, "a", quay, audits), compiled(t, "w", quay, warns)},
			policy.Decision{
				Verdict: policy.Admitted, Warnings: warned.Warnings, Audits: []string{said(`ImagePolicy "a"`)},
			}},
		"no policy":                  {allow, nil, admitted},
		"no policy in the namespace": {allow, []*policy.Policy{compiled(t, "other", in("lab"))}, admitted},
		"no policy, and a warning for that": {
			warn, nil,
			policy.Decision{
				Verdict: policy.Admitted, Warnings: []string{`image "acme/app:v1": no ImagePolicy covers it`},
			},
		},
		"no policy, which is denied": {
			deny, nil,
			policy.Decision{
				Message: `image "acme/app:v1": no ImagePolicy covers it, and what none covers is denied here (--uncovered-images)`,
			},
		},
		"Warn, where what none covers is denied": {deny, []*policy.Policy{compiled(t, "w", images("acme/**"), warns)},
			policy.Decision{
				Message:  covered + `, and what none covers is denied here (--uncovered-images); ` + full,
				Warnings: warned.Warnings,
			}},
		"Warn about everything, where what none covers is denied": {
			deny, []*policy.Policy{compiled(t, "w", everywhere, warns)}, warned,
		},
		"Warn about all but some, where what none covers is denied": {deny, []*policy.Policy{
			compiled(t, "w", everywhere, except("quay.example.com/**"), warns),
		},
			policy.Decision{
				Message:  covered + `, and what none covers is denied here (--uncovered-images); ` + full,
				Warnings: warned.Warnings,
			}},
		"Warn, where what none covers is warned of": {warn, []*policy.Policy{compiled(t, "w", quay, warns)}, warned},
		"Audit, where what none covers is warned of": {warn, []*policy.Policy{compiled(t, "a", quay, audits)},
			policy.Decision{
				Verdict: policy.Admitted, Warnings: []string{covered + "; " + full},
				Audits: []string{said(`ImagePolicy "a"`)},
			}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			// That both roles have signed it on docker.io makes no difference.
			r := roots{"acme-notary": signed("ci v1 a", "qa v1 a")}
			got := decideIn(policy.ShortNamesDeny, tc.uncovered, "acme/app:v1", r, tc.policies...)
			if diff := cmp.Diff(tc.want, got,
				cmpopts.IgnoreFields(policy.Decision{}, "Image", "Outcomes")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if want := fmt.Sprint(policy.Denied, v1alpha1.ReasonShortName); slices.ContainsFunc(got.Outcomes,
				func(o policy.Outcome) bool { return fmt.Sprint(o.Verdict, o.Reason) != want }) {
				t.Errorf("outcomes %+v, want each to be %s", got.Outcomes, want)
			}
			if n := len(tc.policies); strings.HasPrefix(name, "no policy") == (len(got.Outcomes) == n && n > 0) {
				t.Errorf("%d outcomes of %d policies", len(got.Outcomes), n)
			}
		})
	}
}

func TestThreatShortNameOutcomes(t *testing.T) {
	got := decideIn(policy.ShortNamesDeny, allow, "nginx", nil, compiled(t, "w", mode(v1alpha1.ModeWarn)),
		compiled(t, "e"), compiled(t, "other", in("lab"))).Outcomes
	want := []policy.Outcome{
		{Policy: "e", Mode: v1alpha1.ModeEnforce, Roots: []string{"acme-notary"}, Reason: v1alpha1.ReasonShortName},
		{Policy: "w", Mode: v1alpha1.ModeWarn, Roots: []string{"acme-notary"}, Reason: v1alpha1.ReasonShortName},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The advice is a full reference, with the tag and digest of the short one.
func TestShortNameInFull(t *testing.T) {
	for in, want := range map[string]string{
		"nginx":                       "docker.io/library/nginx",
		"nginx:latest":                "docker.io/library/nginx",
		"nginx:1.27":                  "docker.io/library/nginx:1.27",
		"nginx:latest@" + digest("a"): "docker.io/library/nginx:latest@" + digest("a"),
		"acme/app@" + digest("a"):     "docker.io/acme/app@" + digest("a"),
		"localhost":                   "docker.io/library/localhost",
		"registry.example.com:5000":   "docker.io/library/registry.example.com:5000",
	} {
		got := decideIn(policy.ShortNamesDeny, allow, in, nil, compiled(t, "production"))
		if got.Verdict != policy.Denied ||
			!strings.Contains(got.Message, "; write "+want+" or the registry that you mean") {
			t.Errorf("%q: verdict %d, message %q; want it to say %q", in, got.Verdict, got.Message, want)
		}
	}
	long := strings.Repeat("a", 255) + ":" + strings.Repeat("t", 128) + "@" + digest("a")
	var many []*policy.Policy
	for i := range 100 {
		many = append(many, compiled(t, fmt.Sprintf("%s-%d", strings.Repeat("p", 240), i)))
	}
	if got := decideIn(policy.ShortNamesDeny, allow, long, nil, many...); got.Verdict != policy.Denied ||
		len(got.Message) > 1500 {
		t.Errorf("verdict %d with %d bytes", got.Verdict, len(got.Message))
	}
}

// Any unknown value of ShortNames denies short names.
func TestThreatUnknownShortNames(t *testing.T) {
	if policy.ShortNames(0) != policy.ShortNamesDeny {
		t.Errorf("got the zero ShortNames %d, want %d, ShortNamesDeny", policy.ShortNames(0), policy.ShortNamesDeny)
	}
	if got := decideIn(99, allow, "nginx", nil, compiled(t, "production")); got.Verdict != policy.Denied {
		t.Errorf("verdict %d", got.Verdict)
	}
	if got := policy.NewSet(allow, nil).ReadShortNames(0).With([]*policy.Policy{compiled(t, "production")}).Decide(
		policy.Request{Image: "nginx", Now: now}, nil); got.Verdict != policy.Denied {
		t.Errorf("with other policies: verdict %d", got.Verdict)
	}
}

// readsShort reports whether a node searches registries for a reference. It is independent of the
// code under test.
func readsShort(image string) bool {
	ref, err := reference.Parse(image)
	named, ok := ref.(reference.Named)
	if err != nil || !ok {
		return false
	}
	host := reference.Domain(named)
	return !strings.ContainsAny(host, ".:") && host != "localhost"
}

// randomName returns a random reference, often a short one.
func randomName(rnd *rand.Rand) string {
	return pick(rnd, "", "", "", "docker.io/", "quay.example.com/", "registry.example.com:443/", "localhost/",
		"registry:5000/") +
		pick(rnd, "nginx", "acme/app", "acme/team/app", "localhost", "deadbeef", "registry.example.com") +
		pick(rnd, "", ":v1", ":v2", "@"+digest("a"), ":v1@"+digest("b"))
}

// Under ShortNamesDeny, no short name is admitted in a namespace where a policy in mode Enforce
// holds, and no image that ShortNamesDockerIO denies. All other decisions are the same.
func TestThreatNoShortNameIsAdmitted(t *testing.T) {
	inWorlds(t, 500, func(rnd *rand.Rand, w world) bool {
		var policies []*policy.Policy
		enforced := false
		for name, s := range w.specs {
			env := pick[v1alpha1.LabelValue](rnd, "production", "production", "lab")
			s.Mode = pick(rnd, v1alpha1.ModeEnforce, v1alpha1.ModeWarn, v1alpha1.ModeAudit, "")
			in(env)(s)
			images(
				pick[v1alpha1.ImagePattern](rnd, "*/**", "acme/*", "quay.example.com/**", "nginx",
					"registry.example.com/**"))(s)
			if rnd.IntN(3) == 0 {
				except("acme/**", "nginx")(s)
			}
			p, err := policy.Compile(name, s)
			if err != nil {
				t.Fatal(err)
			}
			policies = append(policies, p)
			enforced = enforced || env == "production" && (s.Mode == v1alpha1.ModeEnforce || s.Mode == "")
		}
		image, uncovered := randomName(rnd), pick(rnd, allow, warn, deny)
		strict := decideIn(policy.ShortNamesDeny, uncovered, image, w.roots, policies...)
		lax := decideIn(policy.ShortNamesDockerIO, uncovered, image, w.roots, policies...)
		if !readsShort(image) {
			if diff := cmp.Diff(lax, strict); diff != "" {
				t.Errorf("%q, which is not short (-DockerIO +Deny):\n%s", image, diff)
			}
			return false
		}
		if enforced && (strict.Verdict != policy.Denied || strict.Digest != "") {
			t.Errorf("%q: verdict %d where a policy enforces: %+v", image, strict.Verdict, strict)
		}
		if lax.Verdict != policy.Admitted && strict.Verdict == policy.Admitted {
			t.Errorf("%q: admitted under Deny, and not under DockerIO: %s", image, lax.Message)
		}
		return enforced
	})
}

func FuzzShortNames(f *testing.F) {
	for _, image := range []string{
		"nginx", "acme/app:v1", "localhost", "LOCALHOST/a", "a.b/c", "docker.io", "nginx@" + digest("a"), "sha256:aaaa",
		"registry.example.com:5000", "A/b",
	} {
		f.Add(image, "*/**")
		f.Add(image, "quay.example.com/**")
	}
	f.Fuzz(func(t *testing.T, image, pattern string) {
		// A policy that admits whatever it covers, and what none covers is admitted too: only the
		// name can be in the way.
		p, err := policy.Compile("fuzzed", spec(images(v1alpha1.ImagePattern(pattern)), unsignedAllowed))
		got := decideIn(policy.ShortNamesDeny, allow, image, roots{"acme-notary": trust.Unsigned{}}, p)
		if got.Verdict == policy.Admitted && readsShort(image) {
			t.Fatalf("%q: admitted as %s", image, got.Image)
		}
		if err == nil && got.Verdict != policy.Admitted && got.Image.Path != "" && !readsShort(image) {
			t.Fatalf("%q: denied, and it is not short: %s", image, got.Message)
		}
		if len(got.Message) > 1500 || strings.Contains(got.Message, "\n") {
			t.Fatalf("message %q", got.Message)
		}
	})
}
