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

// The objects in docs/openshift.md fit the bundle. The CatalogSource names the folder of the
// catalog's image, and the Subscription names the package and channel of the catalog and the
// operator's namespace.
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
		// The image has no cache, so the CatalogSource must not name one.
		"extracted": map[string]any{"catalogDir": "/configs"},
		"package":   olm.Package, "channel": olm.Channel, "namespace": olm.Namespace,
		"namespaces": map[string]any{}, // all
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
