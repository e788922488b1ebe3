package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// chartName is the name of the chart, and of its folder in the archive.
const chartName = "countersign"

// generate returns the files of the chart.
func generate(ctx context.Context, root string, r release) (files, error) {
	written, err := readFiles(filepath.Join(root, "config", "chart"))
	if err != nil {
		return nil, err
	}
	objects, err := templates(ctx)
	if err != nil {
		return nil, err
	}
	values := make(map[string]any)
	if err := yaml.Unmarshal(written["values.yaml"], &values); err != nil {
		return nil, fmt.Errorf("reading values.yaml: %w", err)
	}
	defaults, err := parametrize(objects, values)
	if err != nil {
		return nil, err
	}
	maps.Copy(defaults, map[string]any{"image.repository": r.repository, "image.tag": r.tag, "image.digest": r.digest})
	if written["values.yaml"], err = fill(written["values.yaml"], defaults); err != nil {
		return nil, fmt.Errorf("in values.yaml: %w", err)
	}
	written["Chart.yaml"], err = fill(written["Chart.yaml"],
		map[string]any{"version": r.version, "appVersion": r.appVersion()})
	if err != nil {
		return nil, fmt.Errorf("in Chart.yaml: %w", err)
	}
	license, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		return nil, err
	}
	written["LICENSE"] = license
	return written, addTemplates(written, objects)
}

// parametrize replaces the fields of objects that values set by template expressions. It returns
// the replaced contents as defaults, by the name of the value.
func parametrize(objects, values map[string]any) (defaults map[string]any, err error) {
	if err := removeNamespace(objects); err != nil {
		return nil, err
	}
	if defaults, err = setFields(objects, fields()); err != nil {
		return nil, err
	}
	if err := setFlags(objects, values, defaults); err != nil {
		return nil, err
	}
	if err := setNetwork(objects); err != nil {
		return nil, fmt.Errorf("%s: %w", deployment, err)
	}
	for key, object := range objects {
		if objects[key], err = parametrizeObject(key, object); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	return defaults, nil
}

// parametrizeObject makes the changes that apply to every object, and those for its kind.
func parametrizeObject(key string, object any) (any, error) {
	object, err := followNamespace("", object)
	if err != nil {
		return nil, err
	}
	inner := object
	if g, ok := object.(guarded); ok {
		inner = g.value
	}
	metadata, err := descend(inner, []string{"metadata"})
	if err != nil {
		return nil, err
	}
	labels, ok := metadata["labels"].(map[string]any)
	if !ok {
		labels = make(map[string]any)
		metadata["labels"] = labels
	}
	labels[moreKey] = block(`include "countersign.labels" .`)
	kind, _, _ := strings.Cut(key, "/")
	switch kind {
	case "CustomResourceDefinition":
		annotations, err := descend(inner, []string{"metadata", "annotations"})
		if err != nil {
			return nil, err
		}
		annotations["helm.sh/resource-policy"] = guarded{".Values.crds.keep", "keep"}
		return guarded{".Values.crds.install", object}, nil
	case "NetworkPolicy":
		return guarded{".Values.networkPolicy.enabled", object}, setPeers(inner)
	case "PodDisruptionBudget":
		return guarded{".Values.podDisruptionBudget.enabled", object}, nil
	case "ServiceMonitor", "PrometheusRule":
		return object, setMonitoring(kind, inner.(map[string]any))
	}
	return object, nil
}

// ownNamespace is the operator's namespace in config/.
const ownNamespace = "countersign-system"

// removeNamespace removes the Namespace. Helm creates it, or the user does before the installation.
func removeNamespace(objects map[string]any) error {
	key := "Namespace/" + ownNamespace
	if _, ok := objects[key]; !ok {
		return errors.New("config/default has no " + key)
	}
	delete(objects, key)
	return nil
}

// namespacePaths returns the paths of the fields that name the operator's namespace.
func namespacePaths() []string {
	return []string{
		"metadata.namespace", "subjects[].namespace",
		"spec.matchConditions[].expression", "spec.variables[].expression", // ValidatingAdmissionPolicy
		"spec.dnsNames[]",                       // Certificate
		"spec.endpoints[].tlsConfig.serverName", // ServiceMonitor
	}
}

// followNamespace replaces the operator's namespace by the namespace of the release. A field that
// names it and is not in namespacePaths is an error.
func followNamespace(path string, tree any) (any, error) {
	var err error
	switch t := tree.(type) {
	case guarded:
		t.value, err = followNamespace(path, t.value)
		return t, err
	case choice:
		for i := range t.branches {
			if t.branches[i].value, err = followNamespace(path, t.branches[i].value); err != nil {
				return nil, err
			}
		}
		t.otherwise, err = followNamespace(path, t.otherwise)
		return t, err
	case map[string]any:
		for key, value := range t {
			if t[key], err = followNamespace(strings.TrimPrefix(path+"."+key, "."), value); err != nil {
				return nil, err
			}
		}
	case []any:
		for i, value := range t {
			if t[i], err = followNamespace(path+"[]", value); err != nil {
				return nil, err
			}
		}
	case string:
		if !strings.Contains(t, ownNamespace) {
			return t, nil
		}
		if !slices.Contains(namespacePaths(), path) {
			return nil, fmt.Errorf("%s names %s; list the field in namespacePaths, to replace it by the release's "+
				"namespace", path, ownNamespace)
		}
		return inline(`"` + strings.ReplaceAll(t, ownNamespace, "{{ .Release.Namespace }}") + `"`), nil
	}
	return tree, nil
}

// addTemplates adds a template file for each object.
func addTemplates(to files, objects map[string]any) error {
	for key, object := range objects {
		name := filepath.Join("templates", strings.ToLower(strings.ReplaceAll(key, "/", "-"))+".yaml")
		condition := ""
		for {
			g, ok := object.(guarded)
			if !ok {
				break
			}
			condition, object = condition+"{{- if "+g.condition+" }}\n", g.value
		}
		text, err := emit(object.(map[string]any))
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		end := strings.Repeat("{{- end }}\n", strings.Count(condition, "\n"))
		to[name] = []byte(generated + condition + string(text) + end)
	}
	return nil
}

// generated is the first line of every template.
const generated = "{{- /* Made from config/ by make chart. */}}\n"
