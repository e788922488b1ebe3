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

// TestThreatNoKindIsForgotten reads the OpenAPI documents of an API server, with alpha APIs. Every
// resource that accepts a PodSpec must be a checked kind, with the right path to the PodSpec. Every
// field of the PodSpec that names an image must be read. So the test fails if a later Kubernetes
// adds a kind, a subresource or a field that needs a decision.
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
		t.Error("got no alpha API, want some")
	}
	for _, k := range workload.Builtin() {
		if k.Group == "apps.openshift.io" {
			continue // not served by Kubernetes
		}
		for _, name := range append([]string{""}, k.Subresources...) {
			if full := resourceName(k.Group, k.Version, k.Resource, name); !resources[full] {
				t.Errorf("%s is a checked kind, and this test found no PodSpec in it", full)
			}
		}
	}
	lookAtFields(t, schemas)
}

// openAPI holds the schemas of a document by name.
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

// taking returns the operations with an object as request body. PATCH needs no check: a resource
// that supports PATCH supports PUT too.
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

// walk calls see with a schema and all schemas below it, with their paths and names.
func (s openAPI) walk(t *testing.T, at *openAPISchema, path string, above []string,
	see func(path, name string, at *openAPISchema)) {
	t.Helper()
	name := strings.TrimPrefix(at.Ref, "#/components/schemas/")
	if name != "" {
		if slices.Contains(above, name) {
			return
		}
		if at = s[name]; at == nil {
			t.Fatalf("got no schema %s", name)
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

// lookAt checks that an operation belongs to a checked kind if its request body contains a PodSpec.
func lookAt(t *testing.T, schemas openAPI, path string, o openAPIOperation, seen map[string]bool) {
	t.Helper()
	found := map[string]bool{}
	for _, content := range o.RequestBody.Content {
		if content.Schema == nil {
			continue
		}
		schemas.walk(t, content.Schema, "", nil, func(path, name string, _ *openAPISchema) {
			// A container outside of a PodSpec counts too.
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
		t.Errorf("%s accepts a PodSpec, and this test cannot parse the path", path)
		return
	}
	group, version, resource, subresource := parts[1], parts[2], parts[3], parts[4]
	full := resourceName(group, version, resource, subresource)
	if seen[full] {
		return
	}
	seen[full] = true
	// These accept no new image: TestCoverage tests that for every kind.
	if subresource == "status" || resource == "pods" && subresource == "resize" {
		return
	}
	k, err := workload.Builtin().Find(group, version, resource, subresource)
	if err != nil {
		t.Errorf("%s accepts a PodSpec (at %s) and is not a checked kind: %v", full, slices.Sorted(maps.Keys(found)),
			err)
		return
	}
	for at := range found {
		if !readAt(t, k, strings.Split(leaf(at), ".")) {
			t.Errorf("%s has a container or PodSpec at %q, and the manager does not read it", full, at)
		}
	}
}

// leaf returns the path of the image in a PodSpec, a container or an image volume.
func leaf(at string) string {
	switch {
	case strings.HasSuffix(at, "ontainers[]"):
		return at + ".image"
	case strings.HasSuffix(at, "volumes[].image"):
		return at + ".reference"
	}
	return strings.TrimPrefix(at+".containers[].image", ".")
}

// readAt reports whether the manager reads an image at a path of an object.
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

// lookAtFields checks every string field of the PodSpec whose path contains a word for an image.
// The manager must read it, unless it is known as something else.
func lookAtFields(t *testing.T, schemas openAPI) {
	t.Helper()
	imageLike := regexp.MustCompile(`(?i)image|artifact|reference$|oci`)
	known := []string{"imagePullPolicy", "imagePullSecrets[].name", "volumes[].image.pullPolicy", "volumes[].rbd.image"}
	pod, read := workload.Builtin()[0], 0
	if !pod.IsPod() {
		t.Fatalf("got %s as the first kind, want Pod", pod.Name)
	}
	schemas.walk(t, &openAPISchema{Ref: "#/components/schemas/io.k8s.api.core.v1.PodSpec"}, "spec", nil,
		func(path, _ string, at *openAPISchema) {
			if at.Type != "string" || !imageLike.MatchString(path) ||
				slices.ContainsFunc(known, func(k string) bool { return strings.HasSuffix(path, k) }) {
				return
			}
			read++
			if !readAt(t, pod, strings.Split(path, ".")) {
				t.Errorf("the manager does not read %s, want it read: it names an image", path)
			}
		})
	if read != 4 {
		t.Errorf("got %d fields of the PodSpec that name an image, want 4", read)
	}
}
