package v1alpha1_test

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// An edge covers a part of a rule that the two objects of the rule do not cover: one anchor of an
// expression, or one of several ways to meet it.
type edge struct {
	kind              string
	of                func(any) func(spec)
	refused, accepted []any
}

// Each part of each expression is needed: without it, the result for one of these values would
// change.
func TestRuleEdges(t *testing.T) {
	nested := func(path string) func(any) func(spec) {
		return func(v any) func(spec) { return set(path, v) }
	}
	listed := func(path string) func(any) func(spec) {
		return func(v any) func(spec) { return set(path, []any{v}) }
	}
	field := func(name string) func(any) func(spec) {
		return func(v any) func(spec) { return notaryRole(map[string]any{name: v}) }
	}
	from := func(of func(any) func(spec)) func(any) func(spec) {
		return func(v any) func(spec) { return of(source(map[string]any{"name": v})) }
	}
	remap := func(prefix, signed any) func(spec) {
		return set("identityRemap", []any{map[string]any{"prefix": prefix, "signedPrefix": signed}})
	}
	root, policy := "TrustRoot", "ImagePolicy"
	name := func(kind string, of func(any) func(spec)) edge {
		return edge{kind, of, []any{"-a", "a-", "a_"}, []any{"a", "a.b-c"}}
	}
	role := func(kind string, of func(any) func(spec)) edge {
		return edge{kind, of, []any{"/ci", "ci/", "Ci", "cI", "ci/QA"}, []any{"ci", "ci/qa/emea_2"}}
	}
	id := keyID(1).(string)
	short, longer, odd := id[1:], id+"0", "x"+id
	ids := func(of func(any) func(spec)) edge {
		return edge{root, of, []any{short, longer, odd, "A" + short[1:]}, []any{id}}
	}
	for at, e := range map[string]edge{
		"trustRoots":                 name(policy, listed("trustRoots")),
		"credentialsSecretRef":       name(root, nested("notary.credentialsSecretRef.name")),
		"clientCertificateSecretRef": name(root, nested("notary.clientCertificateSecretRef.name")),
		"caBundleFrom":               name(root, from(nested("notary.caBundleFrom"))),
		"root.caBundleFrom":          name(root, from(nested("notary.root.caBundleFrom"))),
		"root.keysFrom":              name(root, from(listed("notary.root.keysFrom"))),
		"roles.keysFrom": name(root, from(func(v any) func(spec) {
			return notaryRole(map[string]any{"keysFrom": []any{v}})
		})),
		"role":        role(policy, func(v any) func(spec) { return requirement(map[string]any{"role": v}) }),
		"anyOf":       role(policy, func(v any) func(spec) { return anyOf(v) }),
		"roles.name":  role(root, field("name")),
		"keyIDs":      ids(listed("notary.root.keyIDs")),
		"revokedKeys": ids(listed("revokedKeys")),
		"delegations": {
			root, func(v any) func(spec) { return delegations(v) }, []any{"x/targets/qa", "targets/QA", "targets/qa/"},
			[]any{"targets/qa/emea"},
		},
		"prefix": {
			root, func(v any) func(spec) { return remap(v, "docker.io/") }, []any{"-a.example.com/", "/a/"},
			[]any{"a/"},
		},
		"signedPrefix": {
			root, func(v any) func(spec) { return remap("a/", v) }, []any{"-a.example.com/", "/a/"}, []any{"a/"},
		},
		"server": {
			root, nested("notary.server"),
			[]any{
				"x https://notary.example.com", "ftp://https://notary.example.com", "https://[::1",
				"https://notary.example.com/v2", "https://notary.example.com/v2//",
			},
			[]any{"https://notary.example.com/v2/x", "https://notary.example.com"},
		},
		"tokenServices": {
			root, listed("notary.tokenServices"), []any{"a:123456", "a-", "-a", "[::1"}, []any{"a", "a:1", "[::1]"},
		},
		"refreshInterval": {root, nested("refreshInterval"), []any{"60s ", "60sx", "x60s"}, []any{"30.25s", "60000ms"}},
		"expiredGrace": {
			root, nested("expiredGrace"), []any{"-5m", "5m ", "5x", "+5m"}, []any{"500ms", "1.25h", "0s"},
		},
		"matchExpressions": {
			policy, listed("namespaceSelector.matchExpressions"),
			[]any{
				map[string]any{"key": "env", "operator": "In"},
				map[string]any{"key": "env", "operator": "In", "values": []any{}},
				map[string]any{"key": "env", "operator": "NotIn", "values": []any{}},
				map[string]any{"key": "env", "operator": "DoesNotExist", "values": []any{"a"}},
				map[string]any{"key": "-env", "operator": "Exists"},
				map[string]any{"key": text("", 64, ""), "operator": "Exists"},
			},
			[]any{
				map[string]any{"key": "a/env", "operator": "In", "values": []any{"a"}},
				map[string]any{"key": text("", 63, ""), "operator": "DoesNotExist"},
			},
		},
		"root": {
			root, nested("notary.root"), []any{map[string]any{}},
			[]any{
				map[string]any{"keys": []any{publicKeyPEM}},
				map[string]any{"keysFrom": []any{source(nil)}},
				map[string]any{"caBundle": certificatePEM},
				map[string]any{"caBundleFrom": source(nil)},
			},
		},
	} {
		t.Run(at, func(t *testing.T) { e.check(t) })
	}
}

// check submits every value of an edge.
func (e edge) check(t *testing.T) {
	t.Helper()
	c := server(t)
	base := map[string]func() spec{"ImagePolicy": policySpec, "TrustRoot": rootSpec}[e.kind]
	submitted := func(value any) error {
		s := base()
		e.of(value)(s)
		return submit(t, c, e.kind, s)
	}
	for _, value := range e.accepted {
		if err := submitted(value); err != nil {
			t.Errorf("%v: got %v, want it accepted", value, err)
		}
	}
	for _, value := range e.refused {
		// An expression with an evaluation error refuses too, but its message does not help the
		// user.
		if err := submitted(value); !apierrors.IsInvalid(err) || strings.Contains(err.Error(), "no such key") {
			t.Errorf("%v: got %v, want it refused with the message of a rule", value, err)
		}
	}
}
