package docs_test

import (
	"regexp"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// visit shows every schema of the CRDs, with its path.
func visit(t *testing.T, show func(path string, schema apiextensionsv1.JSONSchemaProps)) {
	t.Helper()
	var below func(path string, schema apiextensionsv1.JSONSchemaProps)
	below = func(path string, schema apiextensionsv1.JSONSchemaProps) {
		show(path, schema)
		for name, property := range schema.Properties {
			below(path+"."+name, property)
		}
		if schema.Items != nil {
			below(path+"[]", *schema.Items.Schema)
		}
		if schema.AdditionalProperties != nil {
			below(path+"{}", *schema.AdditionalProperties.Schema)
		}
	}
	for _, name := range []string{"imagepolicies", "trustroots"} {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict([]byte(read(t, "config/crd/countersign.dev_"+name+".yaml")), &crd); err != nil {
			t.Fatal(err)
		}
		below(name, *crd.Spec.Versions[0].Schema.OpenAPIV3Schema)
	}
}

// kubectl explain prints descriptions without defaults, so each description must state its default.
func TestDescriptionsSayTheDefaults(t *testing.T) {
	defaults := 0
	visit(t, func(path string, schema apiextensionsv1.JSONSchemaProps) {
		if schema.Default == nil {
			return
		}
		defaults++
		value := strings.Trim(string(schema.Default.Raw), `"`)
		if !regexp.MustCompile(`\bDefault ` + regexp.QuoteMeta(value) + `\b`).MatchString(schema.Description) {
			t.Errorf("%s: %q does not say %q", path, schema.Description, "Default "+value)
		}
	})
	if defaults < 4 {
		t.Fatalf("found only %d defaults", defaults)
	}
}

// docs/api.md has every message of the CRDs' validation rules.
func TestReferenceHasTheRefusals(t *testing.T) {
	page := strings.NewReplacer(`\*`, "*", "&lt;", "<").Replace(read(t, "docs/api.md"))
	texts := map[string]bool{}
	visit(t, func(path string, schema apiextensionsv1.JSONSchemaProps) {
		for _, rule := range schema.XValidations {
			if rule.Message != "" {
				texts[rule.Message] = true
				continue
			}
			found := regexp.MustCompile(`\? "([^"]+)"`).FindAllStringSubmatch(rule.MessageExpression, -1)
			if len(found) == 0 {
				t.Errorf("%s: no text in %s", path, rule.MessageExpression)
			}
			for _, text := range found {
				texts[text[1]] = true
			}
		}
	})
	if len(texts) < 40 {
		t.Fatalf("found only %d texts", len(texts))
	}
	for text := range texts {
		if !strings.Contains(page, text) {
			t.Errorf("docs/api.md does not say %q", text)
		}
	}
	if empty := regexp.MustCompile(`(?m)^- ?$|: *; |;  \|`).FindString(page); empty != "" {
		t.Errorf("docs/api.md has an empty entry: %q", empty)
	}
}
