package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/workload"
)

// Everything that a Kubernetes API server takes is looked at, alpha APIs too: whatever has a
// PodSpec in it is among the kinds that are checked, and is read where the PodSpec is; and every
// field of the PodSpec that names an image is read. A kind, a subresource or a field that a later
// Kubernetes adds fails this test until somebody has thought about it.
func TestThreatNoKindIsForgotten(t *testing.T) {
	t.Parallel()
	kube := kubeserver.Run(t, kubeserver.Options{
		APIServerArgs: []string{"--runtime-config=api/all=true", "--feature-gates=AllAlpha=true,AllBeta=true"},
		WithoutCRDs:   true,
	})
	client, err := discovery.NewDiscoveryClientForConfig(kube.Config)
	must(t, err)
	groups, err := client.OpenAPIV3().Paths()
	must(t, err)
	alpha, resources, schemas := 0, map[string]bool{}, openAPI{}
	for name, group := range groups {
		raw, err := group.Schema("application/json")
		must(t, err)
		var document openAPIDocument
		must(t, json.Unmarshal(raw, &document))
		if strings.Contains(name, "alpha") {
			alpha++
		}
		for path, operations := range document.Paths {
			for _, o := range operations.taking() {
				lookAt(t, document.Components.Schemas, path, o, resources)
			}
		}
		maps.Copy(schemas, document.Components.Schemas)
	}
	t.Logf("%d groups and versions, %d of them alpha; with a PodSpec: %s", len(groups), alpha,
		strings.Join(slices.Sorted(maps.Keys(resources)), " "))
	if alpha == 0 {
		t.Error("no alpha API is served")
	}
	for _, k := range workload.Builtin() {
		if k.Group == "apps.openshift.io" {
			continue // not of Kubernetes
		}
		for _, name := range append([]string{""}, k.Subresources...) {
			if full := resourceName(k.Group, k.Version, k.Resource, name); !resources[full] {
				t.Errorf("%s is checked, and not among what has a PodSpec: has this test looked?", full)
			}
		}
	}
	lookAtFields(t, schemas)
}

// openAPI are the schemas of a document by name.
type openAPI map[string]*openAPISchema

type openAPISchema struct {
	Ref                  string                    `json:"$ref"`
	Type                 string                    `json:"type"`
	Properties           map[string]*openAPISchema `json:"properties"`
	Items                *openAPISchema            `json:"items"`
	AdditionalProperties json.RawMessage           `json:"additionalProperties"`
	AllOf                []*openAPISchema          `json:"allOf"`
	OneOf                []*openAPISchema          `json:"oneOf"`
	AnyOf                []*openAPISchema          `json:"anyOf"`
}

type openAPIDocument struct {
	Paths      map[string]openAPIOperations `json:"paths"`
	Components struct {
		Schemas openAPI `json:"schemas"`
	} `json:"components"`
}

type openAPIOperations struct {
	Post, Put *openAPIOperation
}

// taking returns the operations that take an object. What can be patched can be put as well.
func (o openAPIOperations) taking() []openAPIOperation {
	var taking []openAPIOperation
	for _, operation := range []*openAPIOperation{o.Post, o.Put} {
		if operation != nil {
			taking = append(taking, *operation)
		}
	}
	return taking
}

type openAPIOperation struct {
	RequestBody struct {
		Content map[string]struct {
			Schema *openAPISchema `json:"schema"`
		} `json:"content"`
	} `json:"requestBody"`
}

// walk calls see with every schema below one and the path to it, and the name that the schema is
// defined under.
func (s openAPI) walk(t *testing.T, at *openAPISchema, path string, above []string,
	see func(path, name string, at *openAPISchema)) {
	t.Helper()
	name := strings.TrimPrefix(at.Ref, "#/components/schemas/")
	if name != "" {
		if slices.Contains(above, name) {
			return
		}
		if at = s[name]; at == nil {
			t.Fatalf("no schema %s", name)
		}
		above = append(slices.Clone(above), name)
	}
	see(path, name, at)
	for property, below := range at.Properties {
		s.walk(t, below, strings.TrimPrefix(path+"."+property, "."), above, see)
	}
	for _, below := range slices.Concat(at.AllOf, at.OneOf, at.AnyOf) {
		s.walk(t, below, path, above, see)
	}
	if at.Items != nil {
		s.walk(t, at.Items, path+"[]", above, see)
	}
	var values openAPISchema
	if json.Unmarshal(at.AdditionalProperties, &values) == nil {
		s.walk(t, &values, path+"{}", above, see)
	}
}

func resourceName(group, version, resource, subresource string) string {
	name := schema.GroupVersionResource{Group: group, Version: version, Resource: resource}
	return strings.Trim(fmt.Sprintf("%s/%s", name.GroupVersion(), strings.Trim(resource+"/"+subresource, "/")), "/")
}

// lookAt wants what one operation takes to be checked where it has a PodSpec in it.
func lookAt(t *testing.T, schemas openAPI, path string, o openAPIOperation, seen map[string]bool) {
	t.Helper()
	found := map[string]bool{}
	for _, content := range o.RequestBody.Content {
		if content.Schema == nil {
			continue
		}
		schemas.walk(t, content.Schema, "", nil, func(path, name string, _ *openAPISchema) {
			// A container that is not in a PodSpec would be found by itself.
			if slices.Contains([]string{"PodSpec", "Container", "EphemeralContainer", "ImageVolumeSource"},
				strings.TrimPrefix(name, "io.k8s.api.core.v1.")) {
				found[path] = true
			}
		})
	}
	if len(found) == 0 {
		return
	}
	parts := regexp.MustCompile(
		`^/apis?(?:/([^/]+))?/([^/]+)/namespaces/\{namespace\}/([^/{}]+)(?:/\{name\}(?:/([^/{}]+))?)?$`).
		FindStringSubmatch(path)
	if parts == nil {
		t.Errorf("%s takes a PodSpec, and is not a path that this test understands", path)
		return
	}
	group, version, resource, subresource := parts[1], parts[2], parts[3], parts[4]
	full := resourceName(group, version, resource, subresource)
	if seen[full] {
		return
	}
	seen[full] = true
	// No image goes in by these: TestCoverage tries for every kind.
	if subresource == "status" || resource == "pods" && subresource == "resize" {
		return
	}
	k, err := workload.Builtin().Find(group, version, resource, subresource)
	if err != nil {
		t.Errorf("%s takes a PodSpec (at %s), and is not checked: %v", full, slices.Sorted(maps.Keys(found)), err)
		return
	}
	for at := range found {
		if !readAt(t, k, strings.Split(leaf(at), ".")) {
			t.Errorf("%s has a container or PodSpec at %q, where nobody looks", full, at)
		}
	}
}

// leaf returns the path of an image below a PodSpec, a container or an image volume.
func leaf(at string) string {
	switch {
	case strings.HasSuffix(at, "ontainers[]"):
		return at + ".image"
	case strings.HasSuffix(at, "volumes[].image"):
		return at + ".reference"
	}
	return strings.TrimPrefix(at+".containers[].image", ".")
}

// readAt reports whether an image at a path of an object is read.
func readAt(t *testing.T, k workload.Kind, path []string) bool {
	t.Helper()
	var value any = "example.com/here"
	for _, name := range slices.Backward(path) {
		bare, list := strings.CutSuffix(name, "[]")
		if list {
			value = []any{value}
		}
		object := map[string]any{bare: value}
		if i := slices.Index([]string{"initContainers", "ephemeralContainers", "volumes"}, bare); i >= 0 && list {
			object["containers"] = []any{map[string]any{"image": "example.com/other"}}
		}
		value = object
	}
	raw, err := json.Marshal(value)
	must(t, err)
	o, err := k.Read(raw)
	return err == nil &&
		slices.ContainsFunc(o.Images, func(i workload.Image) bool { return i.Image == "example.com/here" })
}

// lookAtFields wants every string of the PodSpec that speaks of an image to be read, or to be known
// as something else.
func lookAtFields(t *testing.T, schemas openAPI) {
	t.Helper()
	speaks := regexp.MustCompile(`(?i)image|artifact|reference$|oci`)
	known := []string{"imagePullPolicy", "imagePullSecrets[].name", "volumes[].image.pullPolicy", "volumes[].rbd.image"}
	pod, read := workload.Builtin()[0], 0
	if !pod.IsPod() {
		t.Fatalf("the first kind is %s", pod.Name)
	}
	schemas.walk(t, &openAPISchema{Ref: "#/components/schemas/io.k8s.api.core.v1.PodSpec"}, "spec", nil,
		func(path, _ string, at *openAPISchema) {
			if at.Type != "string" || !speaks.MatchString(path) ||
				slices.ContainsFunc(known, func(k string) bool { return strings.HasSuffix(path, k) }) {
				return
			}
			read++
			if !readAt(t, pod, strings.Split(path, ".")) {
				t.Errorf("%s names an image, and is not read", path)
			}
		})
	if read != 4 {
		t.Errorf("%d fields of the PodSpec name an image, 4 are known", read)
	}
}
