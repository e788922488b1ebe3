package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// labelKeys are keys that may be those of a label, each at some border of the rules.
func labelKeys() []string {
	keys := []string{
		"env", "env ", " env", "e nv", "env\n", "\tenv", "", "env=", "=", "Env", "e", "-env", "env-", "e_n.v", ".env",
		"env.", "ümlaut", "prod/", "/env",
		"example.com/env", "Example.com/env", "example..com/env", "-a.b/env", "a.-b/env", "a-.b/env", "a.b-/env",
		".a/env", "a./env", "a/b/c", "a_b/c", "a:b/c",
		"*", "app.kubernetes.io/part-of", "kubernetes.io/metadata.name",
		text("", 63, ""), text("", 64, ""), text("", 253, "") + "/a", text("", 254, "") + "/a", text("", 317, ""),
		text("", 253, "") + "/" + text("", 63, ""), text("", 253, "") + "/" + text("", 64, ""),
		text("a.", 253, ".b") + "/a",
	}
	return append(keys, randomTexts(150, 6, "", "", []string{"a", "B", "0", "-", ".", "_", "/", "a.b/", " ", "ab"})...)
}

// A key that the API server takes is one that a label can have, and the other way round: one that
// only the API server takes would be a policy that denies its scope.
func TestSelectorKeyRulesAgreeWithKubernetes(t *testing.T) {
	c := server(t)
	for _, key := range labelKeys() {
		want := len(validation.IsQualifiedName(key)) == 0
		for place, selector := range map[string]map[string]any{
			"matchLabels":      {"matchLabels": map[string]any{key: "a"}},
			"matchExpressions": {"matchExpressions": []any{map[string]any{"key": key, "operator": "Exists"}}},
		} {
			if err := submitSelector(t, c, selector); (err == nil) != want {
				t.Errorf("%s, %q: %v, want accepted: %t", place, key, err, want)
			}
		}
	}
}

func submitSelector(t *testing.T, c client.Client, selector map[string]any) error {
	t.Helper()
	s := policySpec()
	s.set("namespaceSelector", selector)
	return submit(t, c, "ImagePolicy", s)
}

// Of several keys that no label can have, the first in the order of the alphabet is named, each
// time.
func TestSelectorNamesTheSameKeyEachTime(t *testing.T) {
	c := server(t)
	labels := map[string]any{"env": "production"}
	for i := range 31 {
		labels[fmt.Sprintf("team-%02d=", i)] = "a"
	}
	for range 5 {
		err := submitSelector(t, c, map[string]any{"matchLabels": labels})
		if err == nil || !strings.Contains(err.Error(), "no label has the name 'team-00=': ") {
			t.Fatalf("%v, want a refusal that names team-00=", err)
		}
	}
}

// The costliest selector that is sound stays within what the API server spends on an object.
func TestCostliestSelectorIsAccepted(t *testing.T) {
	c := server(t)
	labels := map[string]any{}
	for i := range 32 {
		labels[fmt.Sprintf("%02d", i)+text("", 251, "")+"/"+text("", 63, "")] = text("", 63, "")
	}
	key := text("", 253, "") + "/" + text("", 63, "")
	expressions := list(32, func(int) any {
		return map[string]any{
			"key": key, "operator": "In",
			"values": list(64, func(i int) any { return fmt.Sprintf("%02d", i) + text("", 61, "") }),
		}
	})
	if err := submitSelector(t, c, map[string]any{"matchLabels": labels, "matchExpressions": expressions}); err != nil {
		t.Error(err)
	}
}
