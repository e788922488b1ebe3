package v1alpha1_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// A rule tests one restriction of a CRD with two objects on either side of its limit. The API
// server refuses one for this restriction only, and accepts the other.
type rule struct {
	refused, accepted func(spec)
}

// A spec is the spec of an object, as decoded YAML.
type spec map[string]any

// set sets the value at a path of map keys, and creates the maps on the path. A nil value removes
// it.
func (s spec) set(path string, value any) {
	keys := strings.Split(path, ".")
	m := map[string]any(s)
	for _, key := range keys[:len(keys)-1] {
		next, ok := m[key].(map[string]any)
		if !ok {
			next = map[string]any{}
			m[key] = next
		}
		m = next
	}
	if value == nil {
		delete(m, keys[len(keys)-1])
		return
	}
	m[keys[len(keys)-1]] = value
}

// set returns an edit that sets path.
func set(path string, value any) func(spec) { return func(s spec) { s.set(path, value) } }

// all returns an edit that applies several.
func all(edits ...func(spec)) func(spec) {
	return func(s spec) {
		for _, edit := range edits {
			edit(s)
		}
	}
}

// unchanged is an edit that changes nothing: the base object is the accepted one.
func unchanged(spec) {}

// list returns n values, each computed from its index.
func list(n int, value func(i int) any) []any {
	values := []any{}
	for i := range n {
		values = append(values, value(i))
	}
	return values
}

func numbered(format string) func(int) any {
	return func(i int) any { return fmt.Sprintf(format, i) }
}

// text returns a string of length n: prefix, as many "a" as fit, and suffix.
func text(prefix string, n int, suffix string) string {
	return prefix + strings.Repeat("a", n-len(prefix)-len(suffix)) + suffix
}

// message has the API server's text for each restriction other than CEL rules, which have messages
// of their own.
var message = map[string]string{
	"required":      "Required value",
	"minItems":      "should have at least",
	"maxItems":      "must have at most",
	"minLength":     "should be at least",
	"maxLength":     "Too long: may not be",
	"minimum":       "greater than or equal to",
	"maximum":       "less than or equal to",
	"enum":          "Unsupported value",
	"pattern":       "should match",
	"maxProperties": "must have at most",
	"set":           "Duplicate value",
	"map":           "Duplicate value",
}

// testRules submits both objects of every rule of a kind. It also checks that there is a rule for
// every restriction in the CRD.
func testRules(t *testing.T, kind string, base func() spec, rules map[string]rule) {
	t.Helper()
	c := server(t)
	for name, r := range rules {
		t.Run(name, func(t *testing.T) {
			accepted := base()
			r.accepted(accepted)
			if err := submit(t, c, kind, accepted); err != nil {
				t.Errorf("the object that meets the rule: got %v, want it accepted", err)
			}
			refused := base()
			r.refused(refused)
			field, restriction, _ := strings.Cut(name, " ")
			want, ok := message[restriction]
			if !ok {
				want = restriction
			}
			checkRefusal(t, submit(t, c, kind, refused), field, want)
		})
	}
	t.Run("every rule of the CRD has its test", func(t *testing.T) {
		inCRD := map[string]bool{}
		collectRules("spec", specSchema(t, kind), inCRD)
		want := slices.Sorted(maps.Keys(inCRD))
		if len(want) < 20 {
			t.Fatalf("got %d rules from the CRD, want at least 20: the walk over its schema misses some", len(want))
		}
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(rules))); diff != "" {
			t.Errorf("rules (-in the CRD +tested):\n%s", diff)
		}
	})
}

// checkRefusal checks that err has exactly one cause, which names field and contains want.
func checkRefusal(t *testing.T, err error, field, want string) {
	t.Helper()
	var status apierrors.APIStatus
	if !errors.As(err, &status) || !apierrors.IsInvalid(err) {
		t.Fatalf("the object that breaks the rule: got %v, want it refused as invalid", err)
	}
	path := regexp.MustCompile(
		"^" + strings.NewReplacer(`\[\]`, `\[[0-9]+\]`, `\.\*`,
			`(\.[^.]+|\[[^\]]+\])`).Replace(regexp.QuoteMeta(field)) + "$")
	var causes []metav1.StatusCause
	for _, cause := range status.Status().Details.Causes {
		// If the schema refuses an object, the API server skips the CEL rules, and says so.
		if !strings.Contains(cause.Message, "some validation rules were not checked") {
			causes = append(causes, cause)
		}
	}
	if len(causes) != 1 || !path.MatchString(causes[0].Field) || !strings.Contains(causes[0].Message, want) {
		t.Errorf("got the causes %+v, want exactly one about %s with %q", causes, field, want)
	}
}

// submit creates an object as a dry run, under strict validation.
func submit(t *testing.T, c client.Client, kind string, s spec) error {
	t.Helper()
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "countersign.dev/v1alpha1",
		"kind":       kind,
		"metadata":   map[string]any{"name": "rule"},
		"spec":       map[string]any(s),
	}}
	content, err := object.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	offline := &unstructured.Unstructured{}
	if err := offline.UnmarshalJSON(content); err != nil {
		t.Fatal(err)
	}
	err = c.Create(t.Context(), object, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict))
	checkOffline(t, offline, object, err)
	return err
}

// checkOffline checks that the validation of files agrees with the API server about an object: the
// same faults with the same messages, and the same defaults.
func checkOffline(t *testing.T, offline, online *unstructured.Unstructured, refusal error) {
	t.Helper()
	var want, got []string
	var status apierrors.APIStatus
	switch {
	case apierrors.IsInvalid(refusal) && errors.As(refusal, &status):
		for _, cause := range status.Status().Details.Causes {
			want = append(want, cause.Field+": "+cause.Message)
		}
	case apierrors.IsBadRequest(refusal):
		_, unknown, ok := strings.Cut(refusal.Error(), "strict decoding error: ")
		if !ok {
			t.Fatalf("got %v, want a strict decoding error", refusal)
		}
		want = strings.Split(unknown, ", ")
	case refusal != nil:
		t.Fatal(refusal)
	}
	for _, fault := range validator.Admit(t.Context(), offline) {
		got = append(got, fault.Error())
	}
	want = slices.DeleteFunc(want, func(s string) bool {
		return strings.Contains(s, "some validation rules were not checked")
	})
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-of the API server +of files):\n%s", diff)
	}
	if refusal == nil {
		if diff := cmp.Diff(online.Object["spec"], offline.Object["spec"]); diff != "" {
			t.Errorf("spec with its defaults (-of the API server +of files):\n%s", diff)
		}
	}
}

// messages matches the messages in an expression that returns the message of the first fault.
var messages = regexp.MustCompile(`[?:] "([^"]* [^"]*)"`)

// collectRules adds every restriction in a schema to rules, as "field restriction".
func collectRules(field string, schema *apiextensionsv1.JSONSchemaProps, rules map[string]bool) {
	add := func(restriction string, present bool) {
		if present {
			rules[field+" "+restriction] = true
		}
	}
	add("minItems", schema.MinItems != nil)
	add("maxItems", schema.MaxItems != nil)
	add("minLength", schema.MinLength != nil)
	add("maxLength", schema.MaxLength != nil)
	add("minimum", schema.Minimum != nil)
	add("maximum", schema.Maximum != nil)
	add("pattern", schema.Pattern != "")
	add("enum", schema.Enum != nil)
	for _, validation := range schema.XValidations {
		at := field + validation.FieldPath
		if validation.Message != "" {
			rules[at+" "+validation.Message] = true
		}
		if validation.MessageExpression != "" && validation.Rule != "("+validation.MessageExpression+`) == ""` {
			rules[at+" has a rule that is not its messageExpression: "+validation.Rule] = true
		}
		for _, branch := range messages.FindAllStringSubmatch(validation.MessageExpression, -1) {
			rules[at+" "+branch[1]] = true
		}
	}
	add("maxProperties", schema.MaxProperties != nil)
	if schema.XListType != nil && *schema.XListType != "atomic" {
		// The API server reports the second of two equal entries.
		rules[field+"[] "+*schema.XListType] = true
	}
	for _, name := range schema.Required {
		rules[field+"."+name+" required"] = true
	}
	if schema.Items != nil {
		collectRules(field+"[]", schema.Items.Schema, rules)
	}
	for name, property := range schema.Properties {
		collectRules(field+"."+name, &property, rules)
	}
	if schema.AdditionalProperties != nil {
		collectRules(field+".*", schema.AdditionalProperties.Schema, rules)
	}
}

// readCRD reads the CRD of a kind from config/crd.
func readCRD(t *testing.T, kind string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	path := filepath.Join("..", "..", "config", "crd", "countersign.dev_"+plural(kind)+".yaml")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(content, crd); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return crd
}

func specSchema(t *testing.T, kind string) *apiextensionsv1.JSONSchemaProps {
	t.Helper()
	schema := readCRD(t, kind).Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
	return &schema
}

func plural(kind string) string {
	return map[string]string{"ImagePolicy": "imagepolicies", "TrustRoot": "trustroots"}[kind]
}
