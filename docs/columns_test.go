package docs_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// pages returns the paths of all pages, from the root of the repository.
func pages(t *testing.T) []string {
	t.Helper()
	var paths []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			paths = append(paths, strings.TrimPrefix(filepath.ToSlash(path), root+"/"))
		}
	}
	return paths
}

// The output of kubectl get on the pages has the columns of the CRDs, in the same order, with -o
// wide and without.
func TestListingsHaveTheColumns(t *testing.T) {
	plain, wide := map[string][]string{}, map[string][]string{}
	for first, file := range map[string]string{
		"MODE":   "config/crd/countersign.dev_imagepolicies.yaml",
		"FORMAT": "config/crd/countersign.dev_trustroots.yaml",
	} {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict([]byte(read(t, file)), &crd); err != nil {
			t.Fatal(err)
		}
		plain[first], wide[first] = []string{"NAME"}, []string{"NAME"}
		for _, column := range crd.Spec.Versions[0].AdditionalPrinterColumns {
			name := strings.ToUpper(column.Name)
			wide[first] = append(wide[first], name)
			if column.Priority == 0 {
				plain[first] = append(plain[first], name)
			}
		}
	}
	listings := 0
	for _, page := range pages(t) {
		for line := range strings.Lines(read(t, page)) {
			columns := strings.Fields(line)
			if len(columns) < 2 || columns[0] != "NAME" || plain[columns[1]] == nil {
				continue
			}
			listings++
			if first := columns[1]; !slices.Equal(columns, plain[first]) && !slices.Equal(columns, wide[first]) {
				t.Errorf("%s prints the columns %q, and kubectl %q, or %q with -o wide", page, columns, plain[first],
					wide[first])
			}
		}
	}
	if listings < 3 {
		t.Fatalf("found only %d listings", listings)
	}
}
