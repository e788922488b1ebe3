package check

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/internal/olm"
)

// kinds checks that the CRDs of the bundle are valid, and that the ClusterServiceVersion describes
// exactly these.
func (b *bundle) kinds() {
	owned := map[string]bool{}
	for _, o := range b.csv.Spec.CRDs.Owned {
		owned[o.Name] = true
		crd, ok := b.crds[o.Name]
		if !ok {
			b.add("kinds", "%s is described, but has no CRD in the bundle", o.Name)
			continue
		}
		if o.Kind != crd.object.Spec.Names.Kind || crd.schema(o.Version) == nil {
			b.add("kinds", "%s is described as %s of version %q, which the CRD does not serve with a schema", o.Name,
				o.Kind, o.Version)
		}
		if o.DisplayName == "" || o.Description == "" {
			b.add("kinds", "%s has no display name or no description", o.Name)
		}
		if len(o.Resources) == 0 {
			b.add("kinds", "%s names no resources", o.Name)
		}
		for _, r := range o.Resources {
			if r.Kind == "" || r.Version == "" {
				b.add("kinds", "%s names a resource without kind or version", o.Name)
			}
		}
	}
	for name, crd := range b.crds {
		if !owned[name] {
			b.add("kinds", "%s has a CRD, but is not described", name)
		}
		for _, err := range crd.errs {
			b.add("kinds", "%s: %v", name, err)
		}
	}
}

// descriptors checks that each descriptor has an existing field, and that every field of spec and
// status has a descriptor.
func (b *bundle) descriptors() {
	for _, o := range b.csv.Spec.CRDs.Owned {
		crd, ok := b.crds[o.Name]
		if !ok || crd.schema(o.Version) == nil {
			continue
		}
		for part, described := range map[string][]olm.Descriptor{
			"spec": o.SpecDescriptors, "status": o.StatusDescriptors,
		} {
			b.described(o.Name, part, crd.schema(o.Version).Properties[part], described)
		}
	}
}

func (b *bundle) described(kind, part string, fields apiextensionsv1.JSONSchemaProps, described []olm.Descriptor) {
	seen := map[string]bool{}
	for _, d := range described {
		if seen[d.Path] {
			b.add("descriptors", "%s: %s.%s is described twice", kind, part, d.Path)
		}
		seen[d.Path] = true
		field, ok := at(fields, strings.Split(d.Path, "."))
		if !ok {
			b.add("descriptors", "%s has no field %s.%s", kind, part, d.Path)
			continue
		}
		if d.DisplayName == "" || d.Description == "" {
			b.add("descriptors", "%s: %s.%s has no display name or no description", kind, part, d.Path)
		}
		for _, x := range d.XDescriptors {
			if !slices.Contains(shows(part, x), field.Type) {
				b.add("descriptors", "%s: %s.%s has the hint %q, which does not fit the type %s", kind, part,
					d.Path, x, field.Type)
			}
		}
		b.choices(kind, part, d, field)
	}
	for field := range fields.Properties {
		if !seen[field] {
			b.add("descriptors", "%s: %s.%s is not described", kind, part, field)
		}
	}
}

// Prefixes of the hints by which a console chooses how to show a field. A choice follows
// selectHint.
const (
	hint       = "urn:alm:descriptor:"
	formHint   = hint + "com.tectonic.ui:"
	selectHint = formHint + "select:"
)

// shows returns the types of fields that a hint fits. It returns none for a hint that is unknown,
// or that this project does not use.
func shows(part, x string) []string {
	types := map[string][]string{
		"spec " + formHint + "text": {"string"}, "spec " + formHint + "number": {"integer", "number"},
		"spec " + formHint + "booleanSwitch": {"boolean"},
		"status " + hint + "text":            {"string"}, "status " + hint + "io.kubernetes.conditions": {"array"},
	}
	switch {
	case part == "spec" && strings.HasPrefix(x, selectHint):
		return []string{"string"}
	case part == "spec" && strings.HasPrefix(x, formHint+"selector:"):
		return []string{"object"}
	}
	return types[part+" "+x]
}

// choices checks that the choices of a field are the values that the schema accepts, by an enum or
// by a rule such as self in ["a", "b"].
func (b *bundle) choices(kind, part string, d olm.Descriptor, field apiextensionsv1.JSONSchemaProps) {
	var offered, accepted []string
	for _, x := range d.XDescriptors {
		if choice, ok := strings.CutPrefix(x, selectHint); ok {
			offered = append(offered, choice)
		}
	}
	for _, v := range field.Enum {
		accepted = append(accepted, strings.Trim(string(v.Raw), `"`))
	}
	for _, v := range field.XValidations {
		if words, ok := strings.CutPrefix(v.Rule, "self in ["); ok {
			for word := range strings.SplitSeq(strings.TrimSuffix(words, "]"), ", ") {
				accepted = append(accepted, strings.Trim(word, `"`))
			}
		}
	}
	if list(offered) != list(accepted) {
		b.add("descriptors", "%s: %s.%s offers %q, but the schema accepts %q", kind, part, d.Path, list(offered),
			list(accepted))
	}
}

// at returns the schema of the field at a path such as roles[0].name.
func at(s apiextensionsv1.JSONSchemaProps, path []string) (apiextensionsv1.JSONSchemaProps, bool) {
	for _, step := range path {
		name, _, indexed := strings.Cut(step, "[")
		next, ok := s.Properties[name]
		if !ok {
			return s, false
		}
		if indexed {
			if next.Items == nil || next.Items.Schema == nil {
				return s, false
			}
			next = *next.Items.Schema
		}
		s = next
	}
	return s, true
}

// checkExamples checks that an API server would accept each example, that its kind is owned, and
// that every owned kind has an example.
func (b *bundle) checkExamples() {
	if err := json.Unmarshal([]byte(b.csv.Metadata.Annotations[olm.AnnotationExamples]), &b.examples); err != nil {
		b.add("examples", "%s: %v", olm.AnnotationExamples, err)
		return
	}
	missing := map[string]bool{}
	for _, o := range b.csv.Spec.CRDs.Owned {
		missing[o.Kind] = true
	}
	names := map[string]bool{}
	for _, e := range b.examples {
		delete(missing, e.GetKind())
		if names[key(e)] {
			b.add("examples", "%s is a duplicate", key(e))
		}
		names[key(e)] = true
		if _, ok := e.Object["spec"].(map[string]any); !ok {
			b.add("examples", "%s has no spec", key(e))
		}
		if err := b.example(e); err != nil {
			b.add("examples", "%s: %v", key(e), err)
		}
	}
	for kind := range missing {
		b.add("examples", "there is none of kind %s", kind)
	}
}

func (b *bundle) example(e unstructured.Unstructured) error {
	for _, crd := range b.crds {
		gvk := e.GroupVersionKind()
		if crd.schema(gvk.Version) != nil && crd.object.Spec.Group == gvk.Group &&
			crd.object.Spec.Names.Kind == gvk.Kind {
			return crd.valid(e)
		}
	}
	return fmt.Errorf("%s is not a kind of this bundle", e.GroupVersionKind())
}

// ownedKinds returns group, version and kind of the owned CRDs.
func ownedKinds(csv olm.ClusterServiceVersion) []string {
	kinds := map[string]bool{}
	for _, o := range csv.Spec.CRDs.Owned {
		kinds[o.Group()+"/"+o.Version+"/"+o.Kind] = true
	}
	return slices.Sorted(maps.Keys(kinds))
}
