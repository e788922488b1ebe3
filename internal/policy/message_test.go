package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

const askQA = "Ask #qa to sign: https://wiki.example.com/signing"

// The test compares denials word for word, because users see them.
func TestDenials(t *testing.T) {
	notary := []trust.Key{{Root: "acme-notary"}}
	both := []trust.Key{{Root: "acme-notary"}, {Root: "acme-tuf"}}
	production := compiled(t, "production")
	anyTwo := compiled(t, "production", requires("ci", "2 of security-emea security-apac security-amer"))
	twoRoots := compiled(t, "production", from("acme-notary", "acme-tuf"))
	_, err := policy.Compile("typo", spec(images("nginx:1")))
	brokenTag := err.Error()
	tests := map[string]struct {
		image    string
		roots    roots
		policies []*policy.Policy
		want     policy.Decision
	}{
		"one role missing": {
			app, roots{"acme-notary": signed("ci v1 5")}, []*policy.Policy{production},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "qa" has not signed sha256:55555555...; signed by ci (TrustRoot "acme-notary")`,
			},
		},
		"a trust root named twice": {
			app, roots{"acme-notary": signed("ci v1 5")},
			[]*policy.Policy{compiled(t, "production", from("acme-notary", "acme-notary"))},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "qa" has not signed sha256:55555555...; signed by ci (TrustRoot "acme-notary")`,
			},
		},
		"nothing signed": {
			app, roots{"acme-notary": signed("ci v2 a")}, []*policy.Policy{production},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "ci" has not signed it, role "qa" has not signed it; no signatures for this tag (TrustRoot "acme-notary")`,
			},
		},
		"a repository without trust data": {
			app, roots{"acme-notary": trust.Unsigned{}}, []*policy.Policy{production},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "ci" has not signed it, role "qa" has not signed it; no trust data for this repository (TrustRoot "acme-notary")`,
			},
		},
		"without trust data in one of two trust roots": {
			app, roots{"acme-notary": signed(), "acme-tuf": trust.Unsigned{}},
			[]*policy.Policy{compiled(t, "production", from("acme-notary", "acme-tuf"), requires("ci"))},
			policy.Decision{
				Consulted: both,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "ci" has not signed it; no signatures for this tag (TrustRoot "acme-notary"), no trust data for this repository (TrustRoot "acme-tuf")`,
			},
		},
		"a name that identityRemap changed": {
			app, roots{"acme-notary": mapped{"docker.io/acme/app", trust.Unsigned{}}},
			[]*policy.Policy{compiled(t, "production", requires("ci"))},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "ci" has not signed it; no trust data for this repository (TrustRoot "acme-notary"); looked up as "docker.io/acme/app" (TrustRoot "acme-notary")`,
			},
		},
		"a name that identityRemap changed, fault": {
			app, roots{"acme-notary": mapped{"docker.io/acme/app", unreachable}},
			[]*policy.Policy{compiled(t, "production", requires("ci"))},
			policy.Decision{
				Verdict: policy.CouldNotCheck, Consulted: notary,
				Message: `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "ci" is not known to have signed it; looked up as "docker.io/acme/app" (TrustRoot "acme-notary"); could not check TrustRoot "acme-notary": get https://notary.example.com: connection refused`,
			},
		},
		"a rejected signature": {
			app, roots{"acme-notary": explained{signed(), []trust.Rejection{
				{By: "targets", Digest: digest("a"), Why: "which proves no role"},
				{By: "delegation targets/ci", Why: "is not in this repository, which has none"},
			}, nil}}, []*policy.Policy{production},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "ci" has not signed it, role "qa" has not signed it; no signatures for this tag that count (TrustRoot "acme-notary"); targets signed sha256:aaaaaaaa..., which proves no role; delegation targets/ci is not in this repository, which has none (TrustRoot "acme-notary")`,
			},
		},
		"signed by what does not count at all": {
			app,
			roots{
				"acme-notary": explained{
					signed(),
					[]trust.Rejection{{By: "targets/ci.json", Void: true, Why: "is signed by a key which is revoked"}},
					nil,
				},
			}, []*policy.Policy{compiled(t, "production", requires("ci"))},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "ci" has not signed it; no signatures for this tag that count (TrustRoot "acme-notary"); targets/ci.json is signed by a key which is revoked (TrustRoot "acme-notary")`,
			},
		},
		"not signed, and the delegation is not there": {
			app,
			roots{
				"acme-notary": explained{
					signed(),
					[]trust.Rejection{{By: "delegation targets/ci", Why: "is not in this repository, which has none"}},
					nil,
				},
			}, []*policy.Policy{compiled(t, "production", requires("ci"))},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "ci" has not signed it; no signatures for this tag (TrustRoot "acme-notary"); delegation targets/ci is not in this repository, which has none (TrustRoot "acme-notary")`,
			},
		},
		"a short name": {
			"nginx:1.27", roots{"acme-notary": trust.Unsigned{}},
			[]*policy.Policy{compiled(t, "production", images("*/**"), requires("ci"))},
			policy.Decision{
				Consulted: notary,
				Message:   `image "nginx:1.27": ImagePolicy "production": role "ci" has not signed it; no trust data for this repository (TrustRoot "acme-notary"); looked up as "docker.io/library/nginx" (TrustRoot "acme-notary")`,
			},
		},
		"a placeholder without its mark": {
			"auto", roots{"acme-notary": trust.Unsigned{}},
			[]*policy.Policy{compiled(t, "production", images("*/**"), requires("ci"))},
			policy.Decision{
				Consulted: notary,
				Message:   `image "auto": ImagePolicy "production": role "ci" has not signed it; no trust data for this repository (TrustRoot "acme-notary"); looked up as "docker.io/library/auto" (TrustRoot "acme-notary")`,
			},
		},
		"a short name of docker.io": {
			"docker.io/nginx:1.27", roots{"acme-notary": signed("qa v1 a")},
			[]*policy.Policy{compiled(t, "production", images("*/**"), requires("ci"))},
			policy.Decision{
				Consulted: notary,
				Message:   `image "docker.io/nginx:1.27": ImagePolicy "production": role "ci" has not signed it; no signatures for this tag (TrustRoot "acme-notary"); looked up as "docker.io/library/nginx" (TrustRoot "acme-notary")`,
			},
		},
		"a delegation that is not there": {
			app,
			roots{
				"acme-notary": explained{
					signed("ci v1 a"),
					[]trust.Rejection{
						{By: "delegation targets/qa", Why: "is not in this repository, which has targets/ci"},
					}, nil,
				},
			}, []*policy.Policy{production},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "qa" has not signed sha256:aaaaaaaa...; signed by ci (TrustRoot "acme-notary"); delegation targets/qa is not in this repository, which has targets/ci (TrustRoot "acme-notary")`,
			},
		},
		"more rejected signatures than the denial names": {
			app,
			roots{
				"acme-notary": explained{
					signed("ci v1 a"),
					[]trust.Rejection{
						{By: "k1", Why: "is not it"}, {By: "k2", Why: "is not it"}, {By: "k3", Why: "is not it"},
						{By: "k4", Why: "is not it"}, {By: "k5", Why: "is not it"}, {By: "k6", Why: "is not it"},
					}, nil,
				},
			}, []*policy.Policy{production},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "qa" has not signed sha256:aaaaaaaa...; signed by ci (TrustRoot "acme-notary"); k1 is not it; k2 is not it; k3 is not it; k4 is not it; and 2 more (TrustRoot "acme-notary")`,
			},
		},
		"help": {
			app, roots{"acme-notary": signed("ci v1 5")}, []*policy.Policy{compiled(t, "production", help(askQA))},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "qa" has not signed sha256:55555555...; signed by ci (TrustRoot "acme-notary"); Ask #qa to sign: https://wiki.example.com/signing`,
			},
		},
		"help of several policies, each text once": {
			app, roots{"acme-notary": signed("ci v1 5")},
			[]*policy.Policy{
				compiled(t, "a", requires("qa"), help(askQA)), compiled(t, "b", requires("qa"), help("Ask b.")),
				compiled(t, "c", requires("qa"), help(askQA)),
			},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "a": role "qa" has not signed it; ci signed sha256:55555555... (TrustRoot "acme-notary"); Ask #qa to sign: https://wiki.example.com/signing; ImagePolicy "b": role "qa" has not signed it; ci signed sha256:55555555... (TrustRoot "acme-notary"); Ask b.; ImagePolicy "c": role "qa" has not signed it; ci signed sha256:55555555... (TrustRoot "acme-notary")`,
			},
		},
		"help where two digests hold": {
			app, roots{"acme-notary": signed("ci v1 a", "ci v1 b")},
			[]*policy.Policy{
				compiled(t, "a", requires("ci"), help(askQA)), compiled(t, "b", requires("ci"), help("Ask b.")),
			},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "a", ImagePolicy "b": two digests have every signature they need, sha256:aaaaaaaa... and sha256:bbbbbbbb... (TrustRoot "acme-notary"), and neither is chosen; deploy one by its digest, or remove the signatures of the other; Ask #qa to sign: https://wiki.example.com/signing; Ask b.`,
			},
		},
		"help where policies differ": {
			app, roots{"acme-notary": signed("ci v1 a", "qa v1 b")},
			[]*policy.Policy{compiled(t, "a", requires("ci"), help(askQA)), compiled(t, "b", requires("qa"))},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "a": holds for sha256:aaaaaaaa..., which another policy does not accept; Ask #qa to sign: https://wiki.example.com/signing; ImagePolicy "b": holds for sha256:bbbbbbbb..., which another policy does not accept`,
			},
		},
		"help of a policy that is broken": {
			"nginx", nil, []*policy.Policy{broken(t, "typo", images("nginx:1"), help("Ask the\nplatform team."))},
			policy.Decision{
				Verdict: policy.CouldNotCheck,
				Message: `image "nginx": ImagePolicy "typo": it cannot be used, and denies all that it may cover: ` +
					brokenTag + `; Ask the platform team.`,
			},
		},
		"help of a policy that holds": {
			app, roots{"acme-notary": signed("ci v1 5")},
			[]*policy.Policy{production, compiled(t, "other", requires("ci"), help(askQA))},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "qa" has not signed sha256:55555555...; signed by ci (TrustRoot "acme-notary")`,
			},
		},
		"another role signed": {
			app, roots{"acme-notary": signed("releases v1 a")}, []*policy.Policy{production},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "ci" has not signed it, role "qa" has not signed it; releases signed sha256:aaaaaaaa... (TrustRoot "acme-notary")`,
			},
		},
		"different digests": {
			app, roots{"acme-notary": signed("ci v1 b", "qa v1 a")}, []*policy.Policy{production},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": different digests were signed: role "ci" has not signed sha256:aaaaaaaa..., role "qa" has not signed sha256:bbbbbbbb...; qa signed sha256:aaaaaaaa..., ci signed sha256:bbbbbbbb... (TrustRoot "acme-notary")`,
			},
		},
		"any of several": {
			app, roots{"acme-notary": signed("ci v1 a", "security-emea v1 a")}, []*policy.Policy{anyTwo},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": only 1 of the 2 needed of security-emea, security-apac, security-amer signed sha256:aaaaaaaa...; signed by ci, security-emea (TrustRoot "acme-notary")`,
			},
		},
		"any of several, fault": {
			app, roots{"acme-notary": unreachable},
			[]*policy.Policy{compiled(t, "production", requires("2 of security-emea security-apac"))},
			policy.Decision{
				Verdict: policy.CouldNotCheck, Consulted: notary,
				Message: `image "registry.example.com/acme/app:v1": ImagePolicy "production": only 0 of the 2 needed of security-emea, security-apac are known to have signed it; could not check TrustRoot "acme-notary": get https://notary.example.com: connection refused`,
			},
		},
		"two trust roots": {
			app, roots{"acme-notary": signed("ci v1 a"), "acme-tuf": trust.Unsigned{}}, []*policy.Policy{twoRoots},
			policy.Decision{
				Consulted: both,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "qa" has not signed sha256:aaaaaaaa...; signed by ci (TrustRoot "acme-notary"), by nobody (TrustRoot "acme-tuf")`,
			},
		},
		"digest only": {
			"registry.example.com/acme/app@" + digest("a"),
			roots{"acme-notary": signed("ci v1 a", "ci v2 a", "qa v2 b")}, []*policy.Policy{production},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": ImagePolicy "production": role "qa" has not signed sha256:aaaaaaaa... under any tag; signed by ci under "v1", "v2" (TrustRoot "acme-notary")`,
			},
		},
		"digest only, unsigned": {
			"registry.example.com/acme/app@" + digest("a"), roots{"acme-notary": signed("ci v1 b")},
			[]*policy.Policy{compiled(t, "production", requires("ci"))},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": ImagePolicy "production": role "ci" has not signed sha256:aaaaaaaa... under any tag; no signatures for this digest (TrustRoot "acme-notary")`,
			},
		},
		"tag and digest disagree": {
			app + "@" + digest("b"), roots{"acme-notary": signed("ci v1 a", "qa v1 a", "ci v2 b", "qa v2 b")},
			[]*policy.Policy{production},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb": ImagePolicy "production": role "ci" has not signed sha256:bbbbbbbb..., role "qa" has not signed sha256:bbbbbbbb...; no signatures for this tag and digest (TrustRoot "acme-notary"); the tag is signed otherwise: ci signed sha256:aaaaaaaa..., qa signed sha256:aaaaaaaa... (TrustRoot "acme-notary")`,
			},
		},
		"two digests hold": {
			app, roots{"acme-notary": signed("ci v1 a", "qa v1 a", "ci v1 b", "qa v1 b")}, []*policy.Policy{production},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": two digests have every signature they need, sha256:aaaaaaaa... and sha256:bbbbbbbb... (TrustRoot "acme-notary"), and neither is chosen; deploy one by its digest, or remove the signatures of the other`,
			},
		},
		"two policies": {
			app, roots{"acme-notary": signed("ci v1 a")},
			[]*policy.Policy{compiled(t, "z", requires("ci", "audit")), production, compiled(t, "m", requires("ci"))},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "qa" has not signed sha256:aaaaaaaa...; signed by ci (TrustRoot "acme-notary"); ImagePolicy "z": role "audit" has not signed sha256:aaaaaaaa...; signed by ci (TrustRoot "acme-notary")`,
			},
		},
		"two policies, two digests": {
			app, roots{"acme-notary": signed("ci v1 a", "qa v1 b")},
			[]*policy.Policy{compiled(t, "a", requires("ci")), compiled(t, "b", requires("qa"))},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "a": holds for sha256:aaaaaaaa..., which another policy does not accept; ImagePolicy "b": holds for sha256:bbbbbbbb..., which another policy does not accept`,
			},
		},
		"fault": {
			app, roots{"acme-notary": signed("ci v1 a"), "acme-tuf": unreachable}, []*policy.Policy{twoRoots},
			policy.Decision{
				Verdict: policy.CouldNotCheck, Consulted: both,
				Message: `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "qa" is not known to have signed sha256:aaaaaaaa...; signed by ci (TrustRoot "acme-notary"); could not check TrustRoot "acme-tuf": get https://notary.example.com: connection refused`,
			},
		},
		"fault of the only root": {
			app, roots{"acme-notary": unreachable}, []*policy.Policy{production},
			policy.Decision{
				Verdict: policy.CouldNotCheck, Consulted: notary,
				Message: `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "ci" is not known to have signed it, role "qa" is not known to have signed it; could not check TrustRoot "acme-notary": get https://notary.example.com: connection refused`,
			},
		},
		"signature expired": {
			app, roots{"acme-notary": signed("ci v1 a", "qa v1 a").lasting("qa", now)}, []*policy.Policy{production},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "qa" has not signed sha256:aaaaaaaa...; signed by ci (TrustRoot "acme-notary"); expired: qa at 2026-03-01T12:00:00Z (TrustRoot "acme-notary")`,
			},
		},
		"the only signature expired": {
			app, roots{"acme-notary": signed("qa v1 a").lasting("qa", now), "acme-tuf": signed()},
			[]*policy.Policy{compiled(t, "production", from("acme-notary", "acme-tuf"), requires("qa"))},
			policy.Decision{
				Consulted: both,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "qa" has not signed it; no signatures for this tag that count (TrustRoot "acme-notary"), no signatures for this tag (TrustRoot "acme-tuf"); expired: qa at 2026-03-01T12:00:00Z (TrustRoot "acme-notary")`,
			},
		},
		"signature of another digest expired": {
			app, roots{"acme-notary": signed("ci v1 a", "qa v1 b").lasting("qa", now)}, []*policy.Policy{production},
			policy.Decision{
				Consulted: notary,
				Message:   `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "qa" has not signed sha256:aaaaaaaa...; signed by ci (TrustRoot "acme-notary"); expired: qa at 2026-03-01T12:00:00Z (TrustRoot "acme-notary")`,
			},
		},
		"expired": {
			app, roots{"acme-notary": signed("ci v1 a", "qa v1 a").until(now.Add(-time.Hour))},
			[]*policy.Policy{production},
			policy.Decision{
				Verdict: policy.CouldNotCheck, Consulted: notary,
				Message: `image "registry.example.com/acme/app:v1": ImagePolicy "production": role "ci" is not known to have signed it, role "qa" is not known to have signed it; could not check TrustRoot "acme-notary": timestamp.json of registry.example.com/acme/app expired at 2026-03-01T11:00:00Z; it must be signed anew`,
			},
		},
		"not loaded": {
			app, roots{"acme-notary": policy.ErrNotLoaded}, []*policy.Policy{production},
			policy.Decision{
				Verdict: policy.CouldNotCheck, NotLoaded: notary,
				Message: `image "registry.example.com/acme/app:v1": ImagePolicy "production": the signatures under TrustRoot "acme-notary" are not loaded yet; try again`,
			},
		},
		"trust root missing": {
			app, roots{"acme-notary": signed("ci v1 a", "qa v1 a")}, []*policy.Policy{twoRoots},
			policy.Decision{
				Verdict: policy.CouldNotCheck, Consulted: notary,
				Message: `image "registry.example.com/acme/app:v1": ImagePolicy "production": TrustRoot "acme-tuf" does not exist`,
			},
		},
		"policy broken": {
			"nginx", nil, []*policy.Policy{broken(t, "typo", images("Acme/**"))},
			policy.Decision{
				Verdict: policy.CouldNotCheck,
				Message: `image "nginx": ImagePolicy "typo": it cannot be used, and denies all that it may cover: spec.images[0]: "Acme" has capitals and neither '.' nor port: a registry host needs one of them, a repository is in lower case`,
			},
		},
		"unparsable": {
			"registry.example.com/acme/App:v1\n", nil, []*policy.Policy{production},
			policy.Decision{
				Message: `image "registry.example.com/acme/App:v1\n": cannot be read: invalid reference format: repository name (acme/App) must be lowercase; expected registry/repository:tag, in lower case; denied since ImagePolicy "production" holds in this namespace`,
			},
		},
		"unparsable, help of several policies": {
			"a b", nil,
			[]*policy.Policy{
				compiled(t, "z", mode(v1alpha1.ModeAudit), help(askQA)), compiled(t, "a", help(askQA)),
				compiled(t, "m", images("example.com/**"), help("Ask m.")),
			},
			policy.Decision{
				Message: `image "a b": cannot be read: invalid reference format; expected registry/repository:tag, in lower case; denied since ImagePolicy "a", ImagePolicy "m", ImagePolicy "z" hold in this namespace; ` +
					askQA +
					`; Ask m.`,
			},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := decide(tc.image, tc.roots, tc.policies...)
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(policy.Decision{}, "Image", "Outcomes", "Pin"),
				cmpopts.IgnoreFields(trust.Key{}, "Subject")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestMessagesAreOneBoundedLine(t *testing.T) {
	evil := strings.Repeat("\u2028x\"\n\x1b[31m", 200)
	statements := func(n int) *held {
		h := &held{}
		for i := range n {
			h.statements = append(h.statements,
				trust.Statement{Role: fmt.Sprint(i, evil), Tag: "v1", Digest: digest(string("0123456789abcdef"[i%16]))})
		}
		h.statements = append(h.statements, trust.Statement{Role: "ci", Tag: evil, Digest: digest("a")},
			trust.Statement{Role: "ci", Tag: "v1", Digest: evil})
		return h
	}
	var many []*policy.Policy
	for i := range 100 {
		var roles []string
		for j := range 32 {
			roles = append(roles, fmt.Sprintf("2 of %[1]s-%[2]d %[1]s-a %[1]s-b", strings.Repeat("r", 100), j))
		}
		many = append(many, compiled(t, fmt.Sprintf("%s-%d", strings.Repeat("p", 240), i), requires(roles...)))
	}
	tests := map[string]struct {
		image    string
		roots    roots
		policies []*policy.Policy
		want     string
	}{
		"roles from outside": {
			app, roots{"acme-notary": statements(300)}, []*policy.Policy{compiled(t, "production")},
			`role "qa" has not signed`,
		},
		"tags from outside": {
			"registry.example.com/acme/app@" + digest("a"), roots{"acme-notary": statements(3)},
			[]*policy.Policy{compiled(t, "production")}, `role "qa" has not signed`,
		},
		"errors from outside": {
			app, roots{"acme-notary": trust.NewFault(v1alpha1.ReasonServerError, "%s", evil)},
			[]*policy.Policy{compiled(t, "production")}, `could not check`,
		},
		"unusable, from outside": {
			app, roots{"acme-notary": unusable(evil)}, []*policy.Policy{compiled(t, "production")}, `is not ready`,
		},
		"a hundred policies": {app, roots{"acme-notary": trust.Unsigned{}}, many, " more policies"},
		"one policy of many roles": {
			app, roots{"acme-notary": trust.Unsigned{}}, many[:1], "only 0 of the 2 needed of ",
		},
		"rejected signatures": {
			app, roots{"acme-notary": explained{signed("ci v1 a"), rejections(evil), nil}},
			[]*policy.Policy{compiled(t, "production")}, `and 6 more`,
		},
		"a name from a remapping": {
			app, roots{"acme-notary": mapped{evil, trust.Unsigned{}}}, []*policy.Policy{compiled(t, "production")},
			`looked up as `,
		},
		"unparsable":       {evil, nil, []*policy.Policy{compiled(t, "production")}, "cannot be read"},
		"unparsable, many": {evil, nil, many, "; denied since ImagePolicy"},
		"unparsable, long": {
			strings.Repeat("a", 2000), nil, []*policy.Policy{compiled(t, "production")}, "longer than 1024 bytes",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := decide(tc.image, tc.roots, tc.policies...)
			if got.Verdict == policy.Admitted || !strings.Contains(got.Message, tc.want) {
				t.Errorf("verdict %d, message %q; want a denial with %q", got.Verdict, got.Message, tc.want)
			}
			if n := len(got.Message); n > 1500 {
				t.Errorf("got a message of %d bytes, want it within the bound", n)
			}
			if i := strings.IndexFunc(got.Message, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
				t.Errorf("the message holds %q", got.Message[i:i+1])
			}
		})
	}
}

func rejections(text string) []trust.Rejection {
	var all []trust.Rejection
	for i := range 10 {
		all = append(all, trust.Rejection{By: fmt.Sprint(i, text), Digest: text, Why: text})
	}
	return all
}

// A denial names as many policies as fit, with their help. The help of the first always fits.
func TestHelpIsKeptWithinTheBound(t *testing.T) {
	long := "Ask " + strings.Repeat("\u4eba", 508)
	for name, text := range map[string]string{"ASCII": "Ask " + strings.Repeat("x", 508), "wide": long} {
		t.Run(name, func(t *testing.T) {
			var roles []string
			for i := range 32 {
				roles = append(roles, fmt.Sprintf("2 of %[1]s-%[2]d %[1]s-a %[1]s-b", strings.Repeat("r", 100), i))
			}
			var policies []*policy.Policy
			for i := range 20 {
				policies = append(policies,
					compiled(t, fmt.Sprintf("%s-%02d", strings.Repeat("p", 240), i), requires(roles...), help(text)))
			}
			got := decide(app, roots{"acme-notary": trust.Unsigned{}}, policies...).Message
			if n := strings.Count(got, text); n != 1 || !strings.HasSuffix(got, " more policies") {
				t.Errorf("the help is there %d times, want once, and then the number of the other policies: %q", n, got)
			}
			if n := len(got); n > 1500+len(text) || n < 1400+len(text) {
				t.Errorf("the message has %d bytes, want it full and within the bound", n)
			}
		})
	}
}

// The denial of a short name has the help of every policy that denies it, each text once.
func TestHelpForShortNames(t *testing.T) {
	policies := []*policy.Policy{
		compiled(t, "a", help(askQA)), compiled(t, "b", help(askQA)), compiled(t, "c", help("Ask c.")),
		compiled(t, "w", mode(v1alpha1.ModeWarn), help("Ask w.")),
	}
	got := policy.NewSet(policy.UncoveredAllow,
		policies).ReadShortNames(policy.ShortNamesDeny).Decide(policy.Request{Image: "nginx", Now: now}, roots{})
	if want := "; " + askQA + "; Ask c."; !strings.HasSuffix(got.Message, want) ||
		strings.Count(got.Message, askQA) != 1 {
		t.Errorf("the denial does not end with %q: %q", want, got.Message)
	}
	if len(got.Warnings) != 1 || !strings.HasSuffix(got.Warnings[0], "; Ask w.") {
		t.Errorf("warnings %q", got.Warnings)
	}
}

// Rejected is called with the missing roles, and only for images that are not admitted.
func TestRejectionsAreAskedForMissingRoles(t *testing.T) {
	tests := map[string]struct {
		image    string
		requires []string
		signed   []string
		want     []string
	}{
		"admitted":            {app, []string{"ci", "qa"}, []string{"ci v1 a", "qa v1 a"}, nil},
		"one missing":         {app, []string{"ci", "qa"}, []string{"ci v1 a"}, []string{`qa "v1" ""`}},
		"any of several":      {app, []string{"2 of a b c"}, []string{"a v1 a"}, []string{`b,c "v1" ""`}},
		"any of several, met": {app, []string{"1 of a b c", "qa"}, []string{"a v1 a"}, []string{`qa "v1" ""`}},
		"different digests": {
			app, []string{"ci", "qa"}, []string{"ci v1 a", "qa v1 b"}, []string{`ci,qa "v1" ""`},
		},
		"a digest": {
			"registry.example.com/acme/app@" + digest("a"), []string{"ci", "qa"}, []string{"ci v2 a"},
			[]string{`qa "" "` + digest("a") + `"`},
		},
		"a tag with another digest": {
			app + "@" + digest("b"), []string{"ci"}, []string{"ci v1 a"}, []string{`ci "v1" "` + digest("b") + `"`},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var asked []string
			decide(tc.image, roots{"acme-notary": explained{signed(tc.signed...), nil, &asked}},
				compiled(t, "production", requires(tc.requires...)))
			slices.Sort(asked)
			if diff := cmp.Diff(tc.want, slices.Compact(asked)); diff != "" {
				t.Errorf("calls of Rejected (-want +got):\n%s", diff)
			}
		})
	}
}

// A rejected signature never admits an image.
func TestThreatRejectionsProveNothing(t *testing.T) {
	rejected := []trust.Rejection{
		{By: "ci", Digest: digest("a"), Why: "qa"}, {By: "qa", Digest: digest("a")}, {By: "qa", Void: true},
	}
	for _, image := range []string{app, app + "@" + digest("a"), "registry.example.com/acme/app@" + digest("a")} {
		if got := decide(image, roots{"acme-notary": explained{signed("ci v1 a"), rejected, nil}},
			compiled(t, "production")); got.Verdict != policy.Denied || got.Digest != "" {
			t.Errorf("%s: verdict %d on %q", image, got.Verdict, got.Digest)
		}
	}
}

// The advice is at the end of a fault, so a denial keeps the end of a long one.
func TestAdviceIsKept(t *testing.T) {
	advice := "; then do as is said here"
	long := strings.Repeat("x", 500) + advice
	for name, root := range map[string]any{
		"fault": trust.NewFault(v1alpha1.ReasonServerError, "%s", long), "unusable": unusable(long),
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(app, roots{"acme-notary": root},
				compiled(t, "production")); !strings.HasSuffix(got.Message, advice) {
				t.Errorf("message %q", got.Message)
			}
		})
	}
}

func TestWarningsReadLikeDenials(t *testing.T) {
	r := roots{"acme-notary": signed("ci v1 a")}
	denied := decide(app, r, compiled(t, "production", help(askQA)))
	warned := decide(app, r, compiled(t, "production", mode(v1alpha1.ModeWarn), help(askQA)))
	audited := decide(app, r, compiled(t, "production", mode(v1alpha1.ModeAudit), help(askQA)))
	if !strings.HasSuffix(denied.Message, "; "+askQA) {
		t.Errorf("the denial does not end with the help: %q", denied.Message)
	}
	ref, err := imageref.Parse(app)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(policy.Decision{Verdict: policy.Admitted, Image: ref, Warnings: []string{denied.Message}},
		warned, cmpopts.IgnoreFields(policy.Decision{}, "Outcomes")); diff != "" {
		t.Errorf("Warn (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(policy.Decision{Verdict: policy.Admitted, Image: ref, Audits: []string{denied.Message}},
		audited, cmpopts.IgnoreFields(policy.Decision{}, "Outcomes")); diff != "" {
		t.Errorf("Audit (-want +got):\n%s", diff)
	}
}
