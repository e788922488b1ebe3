package workload

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

const rollouts = "rollouts.v1alpha1.argoproj.io=spec.template"

func TestParseKind(t *testing.T) {
	type parsed struct{ Name, Group, Version, Resource, Template string }
	for value, want := range map[string]parsed{
		rollouts: {
			"rollouts.argoproj.io", "argoproj.io", "v1alpha1", "rollouts", "spec.template",
		},
		"services.v1.serving.knative.dev=spec.x": {
			"services.serving.knative.dev", "serving.knative.dev", "v1", "services", "spec.x",
		},
		"jobs.v2beta10.example.com=spec": {
			"jobs.example.com", "example.com", "v2beta10", "jobs", "spec",
		},
		"jobs.v1.example=spec.replica-specs.Main_1.template": {
			"jobs.example", "example", "v1", "jobs", "spec.replica-specs.Main_1.template",
		},
	} {
		t.Run(value, func(t *testing.T) {
			k, err := parseKind(value)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, parsed{k.Name, k.Group, k.Version, k.Resource, k.Template}); diff != "" {
				t.Error(diff)
			}
			if k.IsPod() || len(k.Subresources) > 0 {
				t.Errorf("got IsPod %t and the subresources %q, want false and none", k.IsPod(), k.Subresources)
			}
			if found, err := (Kinds{k}).Find(want.Group, want.Version, want.Resource, ""); err != nil ||
				found.Name != want.Name {
				t.Errorf("Find: got %q, %v, want %q", found.Name, err, want.Name)
			}
		})
	}
}

// A value that would leave a kind unchecked, or checked at the wrong path, is refused. The error
// says what is wrong and gives an example.
func TestThreatFurtherKindsAreRefused(t *testing.T) {
	cases := map[string]struct{ value, want string }{
		"empty":      {"", "must be RESOURCE.VERSION.GROUP=PATH"},
		"no path":    {"rollouts.v1alpha1.argoproj.io", "must be RESOURCE.VERSION.GROUP=PATH"},
		"no group":   {"rollouts.v1alpha1=spec.template", "must be RESOURCE.VERSION.GROUP=PATH"},
		"core group": {"things.v1.=spec.template", `"" is not the name of an API group`},
		"no version": {
			"rollouts.argoproj.io=spec.template", `"argoproj" between resource and group is not a version`,
		},
		"version zero": {"rollouts.v0.argoproj.io=spec.template", `"v0" between`},
		"any version":  {"rollouts.*.argoproj.io=spec.template", `"*" between`},
		"a kind, no resource": {
			"Rollout.v1alpha1.argoproj.io=spec.template", `"Rollout" is not the name of a resource`,
		},
		"a subresource": {
			"rollouts/scale.v1alpha1.argoproj.io=spec.template", `"rollouts/scale" is not the name of a resource`,
		},
		"any resource": {"*.v1alpha1.argoproj.io=spec.template", `"*" is not the name of a resource`},
		"group in capitals": {
			"rollouts.v1alpha1.Argoproj.io=spec.template", `"Argoproj.io" is not the name of an API group`,
		},
		"any group": {"rollouts.v1alpha1.*=spec.template", `"*" is not the name of an API group`},
		"group with a blank": {
			"rollouts.v1alpha1.argoproj.io =spec.template", "is not the name of an API group",
		},
		"path empty": {"rollouts.v1alpha1.argoproj.io=", "must begin with spec"},
		"path outside of the spec": {
			"rollouts.v1alpha1.argoproj.io=template", `the path "template" must begin with spec`,
		},
		"path in the metadata": {"rollouts.v1alpha1.argoproj.io=metadata.template", "must begin with spec"},
		"path in the status":   {"rollouts.v1alpha1.argoproj.io=status.spec", "must begin with spec"},
		"path begins alike":    {"rollouts.v1alpha1.argoproj.io=specs.template", "must begin with spec"},
		"path in other case":   {"rollouts.v1alpha1.argoproj.io=Spec.template", "must begin with spec"},
		"a JSON path":          {"rollouts.v1alpha1.argoproj.io=$.spec.template", "must begin with spec"},
		"a pointer":            {"rollouts.v1alpha1.argoproj.io=/spec/template", "must begin with spec"},
		"a list": {
			"rollouts.v1alpha1.argoproj.io=spec.templates[0]", `"templates[0]" in the path is not the name of a field`,
		},
		"every one of a list": {"rollouts.v1alpha1.argoproj.io=spec.templates.*", `"*" in the path`},
		"an index":            {"rollouts.v1alpha1.argoproj.io=spec.templates.0", `"0" in the path`},
		"an empty segment":    {"rollouts.v1alpha1.argoproj.io=spec..template", `"" in the path`},
		"a dot at the end":    {"rollouts.v1alpha1.argoproj.io=spec.template.", `"" in the path`},
		"an option of the decoder": {
			"rollouts.v1alpha1.argoproj.io=spec.template,omitempty", `"template,omitempty" in the path`,
		},
		"skipped by the decoder":    {"rollouts.v1alpha1.argoproj.io=spec.-", `"-" in the path`},
		"the end of a tag":          {`rollouts.v1alpha1.argoproj.io=spec.a"b`, "in the path"},
		"a second equals sign":      {"rollouts.v1alpha1.argoproj.io=spec.template=x", `"template=x" in the path`},
		"a letter that looks alike": {"rollouts.v1alpha1.argoproj.io=spec.tеmplate", "in the path"},
		"too deep": {
			"rollouts.v1alpha1.argoproj.io=spec" + strings.Repeat(".a", 16), "the path has 17 segments, at most 16",
		},
		"too long": {"rollouts.v1alpha1.argoproj.io=spec." + strings.Repeat("a", 64), "is not the name of a field"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			k, err := parseKind(c.value)
			if err == nil {
				t.Fatalf("got the kind %q, want an error", k.Name)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got the error %q, want %q in it", err, c.want)
			}
			if !strings.Contains(err.Error(), furtherExample) && !strings.Contains(err.Error(), "the path ") {
				t.Errorf("got the error %q, want an example in it", err)
			}
		})
	}
}

func TestWith(t *testing.T) {
	many := func(n int) []string {
		var values []string
		for i := range n {
			values = append(values, fmt.Sprintf("kind%d.v1.example.com=spec.template", i))
		}
		return values
	}
	cases := map[string]struct {
		values  []string
		further int
		err     []string
	}{
		"none":         {nil, 0, nil},
		"two":          {[]string{rollouts, "services.v1.serving.knative.dev=spec.template"}, 2, nil},
		"the most":     {many(64), 64, nil},
		"one too many": {many(65), 0, []string{"65 further kinds, at most 64"}},
		"builtin": {
			[]string{"deployments.v1.apps=spec.template"}, 0,
			[]string{`"deployments.v1.apps=spec.template": Deployment is checked in any case`},
		},
		"builtin in another version": {
			[]string{"deployments.v1beta1.apps=spec.other"}, 0, []string{"Deployment is checked in any case"},
		},
		"builtin of OpenShift": {
			[]string{"deploymentconfigs.v1.apps.openshift.io=spec.template"}, 0,
			[]string{"DeploymentConfig is checked in any case"},
		},
		"twice": {[]string{rollouts, rollouts}, 0, []string{"rollouts.argoproj.io is given twice"}},
		"twice, in two versions": {
			[]string{rollouts, "rollouts.v1.argoproj.io=spec.other"}, 0,
			[]string{`"rollouts.v1.argoproj.io=spec.other": rollouts.argoproj.io is given twice`},
		},
		"the same in another group": {[]string{rollouts, "deployments.v1.example.com=spec.template"}, 2, nil},
		"several problems": {
			[]string{"x=y", "rollouts.v1.argoproj.io=template"}, 0,
			[]string{`"x=y": must be`, `"rollouts.v1.argoproj.io=template": the path`},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Builtin().With(c.values)
			if len(c.err) == 0 && err != nil {
				t.Fatal(err)
			}
			for _, want := range c.err {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got the error %v, want %q in it", err, want)
				}
			}
			if len(c.err) > 0 && got != nil {
				t.Errorf("got %d kinds and an error, want no kinds", len(got))
			}
			if want := len(Builtin()) + c.further; len(c.err) == 0 && len(got) != want {
				t.Errorf("got %d kinds, want %d", len(got), want)
			}
		})
	}
}

// The walker reads the template of a further kind at its path and nowhere else. A missing field or
// a wrong type is an error that names the field.
func TestThreatFurtherKindsAreRead(t *testing.T) {
	k, err := parseKind(rollouts)
	if err != nil {
		t.Fatal(err)
	}
	template := corev1.PodTemplateSpec{Spec: everything()}
	got, err := k.Read(marshal(t, map[string]any{
		"metadata": map[string]any{"name": "acme"},
		"spec": map[string]any{
			"template": template,
			"other":    map[string]any{"spec": corev1.PodSpec{Containers: []corev1.Container{{Image: "decoy"}}}},
		},
	}))
	if err != nil || got.Name != "acme" {
		t.Fatalf("got the name %q, %v, want acme", got.Name, err)
	}
	var images []string
	for _, i := range got.Images {
		images = append(images, i.Image)
		if !strings.HasPrefix(i.Path, "/spec/template/spec/") {
			t.Errorf("%q: got the path %s, want one in /spec/template/spec", i.Image, i.Path)
		}
	}
	if want := []string{
		"example.com/init:v1", "example.com/sidecar:v1", "example.com/app:v1", "example.com/proxy:v1",
		"example.com/debug:v1", "example.com/model:v1",
	}; !cmp.Equal(want, images) {
		t.Error(cmp.Diff(want, images))
	}
	for name, c := range map[string]struct{ raw, want string }{
		"no spec":       {`{}`, "spec: missing, a rollouts.argoproj.io needs it"},
		"no template":   {`{"spec":{}}`, "spec.template: missing, a rollouts.argoproj.io needs it"},
		"template null": {`{"spec":{"template":null}}`, "spec.template: missing"},
		"template a string": {
			`{"spec":{"template":"x"}}`, "json: cannot unmarshal string into Go struct field .spec.template",
		},
		"template a list": {
			`{"spec":{"template":[]}}`, "json: cannot unmarshal array into Go struct field .spec.template",
		},
		"template a number":    {`{"spec":{"template":7}}`, "spec.template"},
		"template a boolean":   {`{"spec":{"template":true}}`, "spec.template"},
		"spec a list":          {`{"spec":[{"template":{}}]}`, "spec"},
		"no template spec":     {`{"spec":{"template":{}}}`, "spec.template.spec: missing"},
		"template spec a list": {`{"spec":{"template":{"spec":[]}}}`, "spec.template.spec"},
		"containers null": {
			`{"spec":{"template":{"spec":{"containers":null}}}}`, "spec.template.spec.containers: empty",
		},
		"template twice": {
			`{"spec":{"template":{"spec":{"containers":[{"image":"a"}]}},"template":{"spec":{"containers":[{"image":"b"}]}}}}`,
			`duplicate field "spec.template"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := k.Read([]byte(c.raw))
			if err == nil {
				t.Fatalf("got %+v, want an error", got)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got the error %q, want %q in it", err, c.want)
			}
		})
	}
}

// FuzzParseKind checks that every accepted value makes a kind that reads objects at its path.
func FuzzParseKind(f *testing.F) {
	for _, value := range []string{
		rollouts, "", "a.v1.b=spec", "a.v1.b=spec.-", "a.v1.b=spec.a,omitempty", "a.v1.b=spec.metadata.spec",
	} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		k, err := parseKind(value)
		if err != nil {
			return
		}
		raw := `{"containers":[{"image":"here"}]}`
		path := strings.Split(k.Template+".spec", ".")
		for i := len(path) - 1; i >= 0; i-- {
			raw = fmt.Sprintf(`{%q:%s}`, path[i], raw)
		}
		got, err := k.Read([]byte(raw))
		if err != nil || len(got.Images) != 1 || got.Images[0].Image != "here" {
			t.Errorf("%q: got %+v, %v, want the one image", value, got, err)
		}
	})
}
