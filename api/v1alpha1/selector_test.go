package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// labelKeys returns valid and invalid keys of labels, each close to a limit of the rules.
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

// The API server accepts exactly the keys that a label can have. Any other key would make a policy
// that denies its scope.
func TestSelectorKeyRulesAgreeWithKubernetes(t *testing.T) {
	c := server(t)
	for _, key := range labelKeys() {
		want := len(validation.IsQualifiedName(key)) == 0
		for field, selector := range map[string]map[string]any{
			"matchLabels":      {"matchLabels": map[string]any{key: "a"}},
			"matchExpressions": {"matchExpressions": []any{map[string]any{"key": key, "operator": "Exists"}}},
		} {
			if err := submitSelector(t, c, selector); (err == nil) != want {
				t.Errorf("%s, %q: got %v, want accepted: %t", field, key, err, want)
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

// For several invalid keys, the message always names the alphabetically first one.
func TestSelectorNamesTheSameKeyEachTime(t *testing.T) {
	c := server(t)
	labels := map[string]any{"env": "production"}
	for i := range 31 {
		labels[fmt.Sprintf("team-%02d=", i)] = "a"
	}
	for range 5 {
		err := submitSelector(t, c, map[string]any{"matchLabels": labels})
		if err == nil || !strings.Contains(err.Error(), "no label has the name 'team-00=': ") {
			t.Fatalf("got %v, want a refusal that names team-00=", err)
		}
	}
}

// The CEL cost of the largest valid selector stays within the budget of the API server.
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
		t.Errorf("got %v, want the selector accepted", err)
	}
}
