package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"
)

// policySpec returns a valid spec of an ImagePolicy.
func policySpec() spec {
	return spec{
		"images":        []any{"registry.example.com/acme/**"},
		"trustRoots":    []any{"acme-notary"},
		"requiredRoles": []any{map[string]any{"role": "ci"}},
	}
}

// requirement returns an edit that sets a single requirement with these fields.
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
			requirement(map[string]any{"role": "ci"}),
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
		"spec.mode maxLength":                           {set("mode", text("", 33, "")), set("mode", "Enforce")},
		"spec.mode mode must be Enforce, Warn or Audit": {set("mode", "enforce"), set("mode", "Audit")},
		"spec.help minLength":                           {set("help", ""), set("help", "?")},
		"spec.help maxLength": {
			set("help", text("", 513, "")), set("help", strings.Repeat("\u4eba", 512)),
		},
		"spec.help help is one line of printable characters, without control characters": {
			set("help", "Ask #qa\nto sign"), set("help", "Ask #qa to sign: https://wiki.example.com/signing?a=b — 人"),
		},
		"spec.pinDigests maxLength": {
			set("pinDigests", text("", 33, "")), set("pinDigests", "Pods"),
		},
		"spec.pinDigests pinDigests must be Pods, All or None": {
			set("pinDigests", "Templates"), set("pinDigests", "All"),
		},
	}
	for _, field := range []string{"images", "exceptImages"} {
		for restriction, patterns := range patternRules {
			rules["spec."+field+"[] "+restriction] = rule{
				refused:  set(field, []any{patterns.refused}),
				accepted: set(field, []any{patterns.accepted}),
			}
		}
		rules["spec."+field+" "+privateKeyMessage] = rule{set(field, []any{privateKeyPEM}), set(field, []any{"nginx"})}
	}
	addRoleRules(rules, "spec.requiredRoles[].role",
		func(v any) func(spec) { return requirement(map[string]any{"role": v}) })
	addRoleRules(rules, "spec.requiredRoles[].anyOf[]", func(v any) func(spec) { return anyOf(v) })
	rules["spec.requiredRoles[].role "+privateKeyMessage] = rule{
		requirement(map[string]any{"role": privateKeyPEM}), unchanged,
	}
	rules["spec.requiredRoles[].anyOf "+privateKeyMessage] = rule{anyOf(privateKeyPEM), unchanged}
	addNameRules(rules, "spec.trustRoots[]", func(v any) func(spec) { return set("trustRoots", []any{v}) })
	rules["spec.trustRoots "+privateKeyMessage] = rule{set("trustRoots", []any{privateKeyPEM}), unchanged}
	rules["spec.help "+privateKeyMessage] = rule{set("help", privateKeyPEM), set("help", "Ask #qa")}
	addSelectorRules(rules)
	testRules(t, "ImagePolicy", policySpec, rules)
}

// privateKeyMessage is the message of rules that are on the parent of the field. For a rule on the
// string itself, the API server would print the value; for a list or object it prints none.
const privateKeyMessage = "there is a private key in this field: remove it, and keep it out of the cluster"

func addRoleRules(rules map[string]rule, field string, of func(any) func(spec)) {
	rules[field+" a role name cannot be empty: write the name of the role, or remove the entry"] = rule{
		of(""), of("ci"),
	}
	rules[field+" a role name has no white space: remove it"] = rule{of("ci "), of("ci")}
	rules[field+
		" targets is the repository's own key and no role: write a role such as ci, and give it delegations: "+
		"[targets] in the TrustRoot, "+
		"if targets is to speak for it"] = rule{of("targets"), of("targets-ci")}
}

func addNameRules(rules map[string]rule, field string, of func(any) func(spec)) {
	rules[field+" a name cannot be empty: write the name of the object, or remove the entry"] = rule{of(""), of("a")}
	rules[field+" a name has no white space: remove it"] = rule{of("a\n"), of("a")}
}

// addSelectorRules adds the rules of namespaceSelector. They accept only valid labels, so that a
// typo does not make a selector that selects nothing.
func addSelectorRules(rules map[string]rule) {
	const field = "spec.namespaceSelector"
	matchLabels := func(labels map[string]any) func(spec) { return set("namespaceSelector.matchLabels", labels) }
	value := func(v any) func(spec) { return matchLabels(map[string]any{"env": v}) }
	expression := func(fields map[string]any) func(spec) {
		return set("namespaceSelector.matchExpressions", []any{fields})
	}
	in := func(key any, values ...any) func(spec) {
		return expression(map[string]any{"key": key, "operator": "In", "values": values})
	}
	exists := expression(map[string]any{"key": "env", "operator": "Exists"})
	many := func(n int) func(spec) {
		labels := map[string]any{}
		for i := range n {
			labels[fmt.Sprintf("l%d", i)] = "a"
		}
		return matchLabels(labels)
	}
	rules[field+".matchLabels maxProperties"] = rule{many(33), many(32)}
	long := text("", 254, "/") + text("", 63, "")
	for message, keys := range map[string]struct{ refused, accepted string }{
		privateKeyMessage:              {privateKeyPEM, "env"},
		"a label has a name: write it": {"", "env"},
		"the name of a label is too long: it has at most 63 characters, and may follow a domain of at most 253 and '/'": {
			"a" + long, long,
		},
		"a label has no white space: remove it": {"env ", "env"},
		"no label has the name '":               {"env=", "example.com/env"},
	} {
		rules[field+".matchLabels "+message] = rule{
			matchLabels(map[string]any{keys.refused: "a"}), matchLabels(map[string]any{keys.accepted: "a"}),
		}
	}
	expressions := func(n int) func(spec) {
		return set("namespaceSelector.matchExpressions",
			list(n, func(int) any { return map[string]any{"key": "a", "operator": "Exists"} }))
	}
	at := field + ".matchExpressions"
	rules[at+" maxItems"] = rule{expressions(33), expressions(32)}
	rules[at+"[].key required"] = rule{expression(map[string]any{"operator": "Exists"}), exists}
	rules[at+"[].operator required"] = rule{expression(map[string]any{"key": "env"}), exists}
	rules[at+"[].operator maxLength"] = rule{
		expression(map[string]any{"key": "env", "operator": privateKeyPEM}), exists,
	}
	rules[at+"[].operator operator must be In, NotIn, Exists or DoesNotExist"] = rule{
		expression(map[string]any{"key": "env", "operator": "in", "values": []any{"a"}}),
		expression(map[string]any{"key": "env", "operator": "DoesNotExist"}),
	}
	rules[at+"[].values In and NotIn need values: list them, or write Exists or DoesNotExist"] = rule{
		expression(map[string]any{"key": "env", "operator": "NotIn"}),
		expression(map[string]any{"key": "env", "operator": "NotIn", "values": []any{"a"}}),
	}
	rules[at+"[].values Exists and DoesNotExist take no values: remove them, or write In or NotIn"] = rule{
		expression(map[string]any{"key": "env", "operator": "Exists", "values": []any{"a"}}),
		expression(map[string]any{"key": "env", "operator": "Exists", "values": []any{}}),
	}
	rules[at+"[].values maxItems"] = rule{
		in("env", list(65, numbered("v%d"))...), in("env", list(64, numbered("v%d"))...),
	}
	rules[at+"[].key "+privateKeyMessage] = rule{in(privateKeyPEM, "a"), in("env", "a")}
	rules[at+"[].key maxLength"] = rule{in(text("a.b/", 318, ""), "a"), in(text("", 253, "/")+text("", 63, ""), "a")}
	for message, key := range map[string]string{
		"a label has a name: write it":          "",
		"a label has no white space: remove it": "env ",
		"no label has this name: a name consists of letters, digits, '-', '_' and '.', at most 63, and may follow a " +
			"domain and '/', as in example.com/team": "env=",
	} {
		rules[at+"[].key "+message] = rule{in(key, "a"), in("example.com/env", "a")}
	}
	for path, of := range map[string]func(any) func(spec){
		field + ".matchLabels.*": value, at + "[].values[]": func(v any) func(spec) { return in("env", v) },
	} {
		rules[path+" maxLength"] = rule{of(text("", 64, "")), of(text("", 63, ""))}
		rules[path+" a label has no white space: remove it"] = rule{of(" production"), of("production")}
		rules[path+
			" no label has this value: a value consists of letters, digits, '-', '_' and '.', and begins and ends "+
			"with a letter or digit"] = rule{
			of("a*"), of(""),
		}
	}
}

const roleNameMessage = "a role name consists of lower-case letters, digits, '-' and '_', " +
	"with '/' between the parts of a nested role"

const delegationMessage = "name the role and not its delegation: ci, not targets/ci"

// patternRules are the restrictions of a pattern, each with a refused and an accepted pattern.
var patternRules = map[string]struct{ refused, accepted string }{
	"maxLength": {text("example.com/", 513, ""), text("example.com/", 512, "")},
	"a pattern matches repositories and cannot name a digest; remove what follows the '@'": {
		"example.com/app@sha256:0000000000000000000000000000000000000000000000000000000000000000", "example.com/app",
	},
	"a pattern matches repositories and cannot name a tag; remove what follows the last ':' (after a registry with " +
		"its port write '/**')": {
		"example.com:5000/app:v1", "example.com:5000/app",
	},
	"'**' stands for whole path segments: write it between slashes, as in registry.example.com/acme/**": {
		"example.com/acme**", "example.com/acme/**",
	},
	"the host of a pattern is a registry's name or address with an optional port up to 65535, as in " +
		"registry.example.com:5000/acme/**": {
		"example.com:65536/app", "example.com:65535/app",
	},
	"what is in brackets is not an IPv6 address; an IPv4 address is written as such": {
		"[::ffff:a00:1]/app", "[fe80::1]/app",
	},
	"the path of a pattern consists of lower-case letters and digits, single '.', '_', '__' or '-' between them, and " +
		"the wildcards '*' and '**'": {
		"example.com/App", "example.com/app-*_1.0",
	},
	"an empty pattern covers nothing: remove it, or write '*/**' to cover every image": {"", "*/**"},
	"a pattern has no white space: remove it": {
		"example.com/app\n", "example.com/app",
	},
	"drop https:// or what else ends in '://': a pattern begins with the registry host, as in " +
		"registry.example.com/acme/**": {
		"https://example.com/app", "example.com/app",
	},
	"this looks like a registry host: write ": {
		"registry.example.com", "registry.example.com/**",
	},
	"a pattern has no empty segment: remove the leading, trailing or doubled '/', or end it with '/**'": {
		"example.com//app", "example.com/app",
	},
	"'*' alone is not every image: write '*/**', or 'docker.io/library/*' for the official ones": {
		"*", "docker.io/library/*",
	},
	"'**' cannot stand for the registry host; write the host, or '*/**' for every image": {
		"**/app", "*/**",
	},
}
