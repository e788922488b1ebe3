package v1alpha1_test

import (
	"strings"
	"testing"
)

// policySpec returns the spec of an ImagePolicy that breaks no rule.
func policySpec() spec {
	return spec{
		"images":        []any{"registry.example.com/acme/**"},
		"trustRoots":    []any{"acme-notary"},
		"requiredRoles": []any{map[string]any{"role": "ci"}},
	}
}

// requirement returns an edit that leaves one requirement, of these fields.
func requirement(fields map[string]any) func(spec) {
	return set("requiredRoles", []any{fields})
}

func anyOf(roles ...any) func(spec) {
	return requirement(map[string]any{"anyOf": roles})
}

func TestImagePolicyRules(t *testing.T) {
	rules := map[string]rule{
		"spec.images required": {set("images", nil), unchanged},
		"spec.images minItems": {set("images", []any{}), set("images", []any{"nginx"})},
		"spec.images maxItems": {
			set("images", list(257, numbered("example.com/%d"))),
			set("images", list(256, numbered("example.com/%d"))),
		},
		"spec.images[] set": {
			set("images", []any{"example.com/a", "example.com/a"}),
			set("images", []any{"example.com/a", "example.com/b"}),
		},
		"spec.exceptImages maxItems": {
			set("exceptImages", list(257, numbered("example.com/%d"))),
			set("exceptImages", list(256, numbered("example.com/%d"))),
		},
		"spec.exceptImages[] set": {
			set("exceptImages", []any{"example.com/a", "example.com/a"}),
			set("exceptImages", []any{"example.com/a", "example.com/b"}),
		},
		"spec.trustRoots minItems": {
			all(set("trustRoots", []any{}), set("requiredRoles", nil), set("allowUnsigned", true)),
			unchanged,
		},
		"spec.trustRoots maxItems": {
			set("trustRoots", list(17, numbered("root-%d"))),
			set("trustRoots", list(16, numbered("root-%d"))),
		},
		"spec.trustRoots[] set": {
			set("trustRoots", []any{"a", "a"}),
			set("trustRoots", []any{"a", "b"}),
		},
		"spec.trustRoots[] maxLength": {
			set("trustRoots", []any{text("", 254, "")}),
			set("trustRoots", []any{text("", 253, "")}),
		},
		"spec.trustRoots[] an object name consists of lower-case letters, digits, '-' and '.'": {
			set("trustRoots", []any{"ACME_Notary"}),
			set("trustRoots", []any{"acme-notary.2"}),
		},
		"spec.requiredRoles minItems": {set("requiredRoles", []any{}), unchanged},
		"spec.requiredRoles maxItems": {
			set("requiredRoles", list(33, func(i int) any { return map[string]any{"role": numbered("r%d")(i)} })),
			set("requiredRoles", list(32, func(i int) any { return map[string]any{"role": numbered("r%d")(i)} })),
		},
		"spec.requiredRoles[] exactly one of role and anyOf must be set": {
			requirement(map[string]any{"role": "ci", "anyOf": []any{"qa"}}),
			requirement(map[string]any{"anyOf": []any{"qa"}}),
		},
		"spec.requiredRoles[] threshold goes with anyOf; a single role is always required": {
			requirement(map[string]any{"role": "ci", "threshold": 1}),
			requirement(map[string]any{"anyOf": []any{"ci"}, "threshold": 1}),
		},
		"spec.requiredRoles[] threshold cannot exceed the number of roles in anyOf": {
			requirement(map[string]any{"anyOf": []any{"ci", "qa"}, "threshold": 3}),
			requirement(map[string]any{"anyOf": []any{"ci", "qa"}, "threshold": 2}),
		},
		"spec.requiredRoles[].threshold minimum": {
			requirement(map[string]any{"anyOf": []any{"ci", "qa"}, "threshold": 0}),
			requirement(map[string]any{"anyOf": []any{"ci", "qa"}, "threshold": 1}),
		},
		"spec.requiredRoles[].role maxLength": {
			requirement(map[string]any{"role": text("", 129, "")}),
			requirement(map[string]any{"role": text("", 128, "")}),
		},
		"spec.requiredRoles[].role " + roleNameMessage: {
			requirement(map[string]any{"role": "security//emea"}),
			requirement(map[string]any{"role": "security/emea"}),
		},
		"spec.requiredRoles[].role " + delegationMessage: {
			requirement(map[string]any{"role": "targets/ci"}),
			requirement(map[string]any{"role": "targets"}),
		},
		"spec.requiredRoles[].anyOf minItems": {anyOf([]any{}...), anyOf("a")},
		"spec.requiredRoles[].anyOf maxItems": {
			anyOf(list(33, numbered("r%d"))...),
			anyOf(list(32, numbered("r%d"))...),
		},
		"spec.requiredRoles[].anyOf[] set": {anyOf("ci", "ci"), anyOf("ci", "qa")},
		"spec.requiredRoles[].anyOf[] maxLength": {
			anyOf(text("", 129, "")),
			anyOf(text("", 128, "")),
		},
		"spec.requiredRoles[].anyOf[] " + roleNameMessage:   {anyOf("CI"), anyOf("ci")},
		"spec.requiredRoles[].anyOf[] " + delegationMessage: {anyOf("targets/ci"), anyOf("ci")},
		"spec exactly one of requiredRoles and allowUnsigned must be set": {
			set("allowUnsigned", true),
			all(set("allowUnsigned", true), set("requiredRoles", nil)),
		},
		"spec trustRoots must name at least one TrustRoot where requiredRoles is set": {
			set("trustRoots", nil),
			all(set("trustRoots", nil), set("requiredRoles", nil), set("allowUnsigned", true)),
		},
		"spec.allowUnsigned allowUnsigned can only be true; leave it out and set requiredRoles to require signatures": {
			all(set("allowUnsigned", false), set("requiredRoles", nil)),
			all(set("allowUnsigned", true), set("requiredRoles", nil)),
		},
		"spec.mode enum":      {set("mode", "enforce"), set("mode", "Audit")},
		"spec.help minLength": {set("help", ""), set("help", "?")},
		"spec.help maxLength": {set("help", text("", 513, "")), set("help", strings.Repeat("\u4eba", 512))},
		"spec.help help is one line of printable characters, without control characters": {
			set("help", "Ask #qa\nto sign"), set("help", "Ask #qa to sign: https://wiki.example.com/signing?a=b — 人"),
		},
		"spec.pinDigests enum": {set("pinDigests", "Templates"), set("pinDigests", "All")},
	}
	for _, field := range []string{"images", "exceptImages"} {
		for restriction, patterns := range patternRules {
			rules["spec."+field+"[] "+restriction] = rule{
				refused:  set(field, []any{patterns.refused}),
				accepted: set(field, []any{patterns.accepted}),
			}
		}
	}
	testRules(t, "ImagePolicy", policySpec, rules)
}

const roleNameMessage = "a role name consists of lower-case letters, digits, '-' and '_', " +
	"with '/' between the parts of a nested role"

const delegationMessage = "name the role and not its delegation: ci, not targets/ci"

// patternRules are the restrictions of a pattern, and patterns on either side of each.
var patternRules = map[string]struct{ refused, accepted string }{
	"maxLength": {text("example.com/", 513, ""), text("example.com/", 512, "")},
	"a pattern matches repositories and cannot name a digest; remove what follows the '@'": {
		"example.com/app@sha256:0000000000000000000000000000000000000000000000000000000000000000", "example.com/app",
	},
	"a pattern matches repositories and cannot name a tag; remove what follows the last ':'": {
		"example.com:5000/app:v1", "example.com:5000/app",
	},
	"'**' stands for whole path segments: write it between slashes, as in registry.example.com/acme/**": {
		"example.com/acme**", "example.com/acme/**",
	},
	"the host of a pattern is a registry's name or address with an optional port up to 65535, as in registry.example.com:5000/acme/**": {
		"example.com:65536/app", "example.com:65535/app",
	},
	"what is in brackets is not an IPv6 address; an IPv4 address is written as such": {
		"[::ffff:a00:1]/app", "[fe80::1]/app",
	},
	"the path of a pattern consists of lower-case letters and digits, single '.', '_', '__' or '-' between them, and the wildcards '*' and '**'": {
		"example.com/App", "example.com/app-*_1.0",
	},
	"a pattern without a '/' is a repository of docker.io, and this looks like a registry host; write registry.example.com/** for everything there": {
		"registry.example.com", "registry.example.com/**",
	},
	"a pattern has no empty segment: remove the leading, trailing or doubled '/'": {
		"example.com//app", "example.com/app",
	},
	"'**' cannot stand for the registry host; write the host, or '*/**' for every image": {
		"**/app", "*/**",
	},
}
