package check_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/internal/olm"
	"github.com/countersign-dev/countersign/internal/olm/check"
	"github.com/countersign-dev/countersign/internal/olm/compose"
)

// Indexes of the documents of the catalog.
const (
	packageDocument = iota
	channelDocument
	bundleDocument
)

// document returns a fault in one document of the catalog.
func document(n int, says string, change func(any) any, path ...any) fault {
	return fault{func(t *testing.T, f compose.Files) {
		documents := strings.Split(strings.TrimPrefix(string(f[olm.CatalogFile]), "---\n"), "---\n")
		one := compose.Files{"document": []byte(documents[n])}
		edit(t, one, "document", change, path...)
		documents[n] = string(one["document"])
		f[olm.CatalogFile] = []byte("---\n" + strings.Join(documents, "---\n"))
	}, "catalog", says}
}

// Catalog accepts the catalog, and reports each fault.
func TestCatalogChecksFindFaults(t *testing.T) {
	bundle, catalog := files(t, input(t))
	if problems := check.Catalog(catalog, bundle); len(problems) > 0 {
		t.Fatalf("got problems %v before any fault, want none", problems)
	}
	for name, f := range catalogFaults() {
		t.Run(name, func(t *testing.T) {
			broken := maps.Clone(catalog)
			f.put(t, broken)
			found(t, check.Catalog(broken, bundle), f)
		})
	}
}

func catalogFaults() map[string]fault {
	property := func(n int, path ...any) []any { return append([]any{"properties", n}, path...) }
	return map[string]fault{
		"no default channel": document(packageDocument, "with default channel", to("stable"), "defaultChannel"),
		"another package":    document(packageDocument, "package \"other\"", to("other"), "name"),
		"no icon":            document(packageDocument, "does not have the icon", to(nil), "icon"),
		"another description": document(packageDocument, "does not have the icon and description", to("x"),
			"description"),
		"an unknown field": document(packageDocument, "unknown field", with("colour", "red")),
		"a channel of another package": document(channelDocument, "channel \"candidate\" of \"other\"", to("other"),
			"package"),
		"an entry without a bundle": document(channelDocument, "but the bundle is", to("countersign.v0.0.9"),
			"entries", 0, "name"),
		"no entry": document(channelDocument, "but the bundle is", dropFirst, "entries"),
		"two entries": document(channelDocument, "but the bundle is",
			appended(map[string]any{"name": "countersign.v0.0.9"}), "entries"),
		"a loop": document(channelDocument, "replaces itself", to("countersign.v0.1.0"), "entries", 0,
			"replaces"),
		"another upgrade": document(channelDocument, "but the bundle does not", to("countersign.v0.0.9"),
			"entries", 0, "replaces"),
		"another range": document(channelDocument, "but the bundle does not", to("<0.1.0"), "entries", 0,
			"skipRange"),
		"another bundle": document(bundleDocument, "is not \"countersign.v0.1.0\"", to("countersign.v0.0.9"),
			"name"),
		"no image":                document(bundleDocument, "the bundle's image", to(""), "image"),
		"a missing related image": document(bundleDocument, "the related images", dropFirst, "relatedImages"),
		"another version": document(bundleDocument, "the property olm.package", to("0.1.1"),
			property(0, "value", "version")...),
		"a missing kind": document(bundleDocument, "the catalog offers the kinds",
			func(v any) any { items, _ := v.([]any); return append(items[:1:1], items[2:]...) }, "properties"),
		"another kind": document(bundleDocument, "the catalog offers the kinds", to("ImageRule"),
			property(1, "value", "kind")...),
		"other metadata": document(bundleDocument, "differs from the ClusterServiceVersion", to("x"),
			property(3, "value", "displayName")...),
		"no metadata": document(bundleDocument, "one property each",
			func(v any) any { items, _ := v.([]any); return items[:3] }, "properties"),
		"an unknown property": document(bundleDocument, "a property of type", to("olm.other"),
			property(1, "type")...),
		"another base image": text(olm.CatalogDockerfile, "FROM scratch", "FROM busybox", "catalog",
			"lacks the line"),
		"another folder": text(olm.CatalogDockerfile, "=/configs", "=/config", "catalog", "lacks the line"),
		"another file":   added(olm.CatalogDir+"/countersign/README.md", "x", "catalog", "must not be in"),
		"an unknown document": text(olm.CatalogFile, "schema: olm.channel", "schema: olm.deprecations", "catalog",
			"a document of schema"),
		"invalid YAML": added(olm.CatalogFile, "a: [", "catalog", ""),
		"no catalog":   missing(olm.CatalogFile, "catalog", "there are 0, 0 and 0"),
	}
}

// maxNoise is slightly above the limit for a bundle.
const maxNoise = 1<<20 + 1<<14

// noise returns an object that exceeds the limit even when it is compressed.
func noise() []byte {
	source := rand.NewChaCha8([32]byte{1})
	data := make([]byte, maxNoise)
	source.Read(data)
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "noise"},
		"data": map[string]any{"x": fmt.Sprintf("%x", data)},
	})
	if err != nil {
		panic(err)
	}
	return text
}
