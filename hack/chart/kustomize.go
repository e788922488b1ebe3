package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/countersign-dev/countersign/internal/testenv/kustomize"
)

// component is a folder of config/components, and the condition under which the chart includes it.
type component struct {
	name, condition string
	// adds marks a component that only adds objects. The other components may change those objects.
	adds bool
}

func components() []component {
	return []component{
		{name: "prometheus", condition: ".Values.prometheus.enabled", adds: true},
		{name: "restrict-operator", condition: ".Values.restrictOperator.enabled", adds: true},
		{name: "cert-manager", condition: ".Values.certManager.enabled"},
		{name: "openshift", condition: ".Values.openshift.enabled"},
		{name: "client-ca", condition: ".Values.clientCA.enabled"},
		{name: "host-network", condition: ".Values.hostNetwork.enabled"},
		{name: "pull-secrets", condition: ".Values.pullSecrets.enabled"},
	}
}

// templates renders config/default, and merges the changes by each component under its condition.
// It returns the objects by "Kind/name".
func templates(ctx context.Context) (map[string]any, error) {
	base, err := render(ctx)
	if err != nil {
		return nil, err
	}
	added := make(map[string]string) // key of an added object -> condition
	var adding []string
	for _, c := range slices.DeleteFunc(components(), func(c component) bool { return !c.adds }) {
		with, err := render(ctx, c.name)
		if err != nil {
			return nil, err
		}
		for key, object := range with {
			if old, ok := base[key]; !ok {
				added[key] = c.condition
			} else if !reflect.DeepEqual(old, object) {
				return nil, fmt.Errorf("component %s changes %s, but is listed as one that only adds objects",
					c.name, key)
			}
		}
		adding = append(adding, c.name)
	}
	if base, err = render(ctx, adding...); err != nil {
		return nil, err
	}
	var variants []variant
	for _, c := range slices.DeleteFunc(components(), func(c component) bool { return c.adds }) {
		with, err := render(ctx, append(slices.Clone(adding), c.name)...)
		if err != nil {
			return nil, err
		}
		variants = append(variants, variant{c.condition, with})
	}
	merged, err := merge("", base, variants)
	if err != nil {
		return nil, err
	}
	objects := merged.(map[string]any)
	for key, condition := range added {
		objects[key] = guarded{condition, objects[key]}
	}
	return objects, nil
}

// render renders config/default with components. It returns the objects by "Kind/name".
func render(ctx context.Context, components ...string) (map[string]any, error) {
	text, err := kustomize.Render(ctx, os.Stderr, kustomize.Overlay{Components: components})
	if err != nil {
		return nil, err
	}
	return readObjects(bytes.NewReader(text))
}

// readObjects decodes YAML documents into a map by "Kind/name".
func readObjects(r io.Reader) (map[string]any, error) {
	objects := make(map[string]any)
	decoder := utilyaml.NewYAMLOrJSONDecoder(r, 4096)
	for {
		var o map[string]any
		if err := decoder.Decode(&o); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, fmt.Errorf("decoding the rendered objects: %w", err)
		}
		if len(o) == 0 {
			continue
		}
		metadata, _ := o["metadata"].(map[string]any)
		key := fmt.Sprintf("%v/%v", o["kind"], metadata["name"])
		if _, ok := objects[key]; ok {
			return nil, fmt.Errorf("%s was rendered twice", key)
		}
		objects[key] = o
	}
}
