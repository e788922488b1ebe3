package olm_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/internal/olm"
)

// What a reader is told to apply fits what make bundle writes: the catalog's image has the folders
// that OLM is to read, and no others, and the Subscription asks for what the catalog offers, where
// it may be installed.
func TestDocumentedObjectsFit(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "openshift.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(page), "```yaml\n")
	block, _, _ = strings.Cut(block, "```\n")
	objects, err := olm.Objects([]byte(block))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{}
	for _, o := range objects {
		switch o.GetKind() {
		case "CatalogSource":
			got["extracted"], _, _ = unstructured.NestedMap(o.Object, "spec", "grpcPodConfig", "extractContent")
		case "Subscription":
			got["package"], _, _ = unstructured.NestedString(o.Object, "spec", "name")
			got["channel"], _, _ = unstructured.NestedString(o.Object, "spec", "channel")
			got["namespace"] = o.GetNamespace()
		case "OperatorGroup":
			got["namespaces"], _, _ = unstructured.NestedMap(o.Object, "spec")
		}
	}
	want := map[string]any{
		// The image holds no cache, and OLM fails where it is told to read one.
		"extracted": map[string]any{"catalogDir": "/configs"},
		"package":   olm.Package, "channel": olm.Channel, "namespace": olm.Namespace,
		"namespaces": map[string]any{}, // all of them
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
