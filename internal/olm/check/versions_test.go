package check_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/internal/olm"
	"github.com/countersign-dev/countersign/internal/olm/check"
	"github.com/countersign-dev/countersign/internal/olm/compose"
)

// An upgrade declares the replaced version and the skip range, its owner of the webhook
// configurations belongs to the new version, and the checks find a problem only if it skips a minor
// version.
func TestUpgradeReplaces(t *testing.T) {
	checker := check.New(input(t).Rendered)
	for name, tt := range map[string]struct {
		replaces, version, skip string
		jumps                   bool
	}{
		"patch":                   {"0.1.0", "0.1.1", ">=0.1.0 <0.1.1", false},
		"minor":                   {"0.1.7", "0.2.0", ">=0.1.0 <0.2.0", false},
		"candidate of a minor":    {"0.1.7", "0.2.0-rc.1", ">=0.1.0 <0.2.0-rc.1", false},
		"major":                   {"0.9.3", "1.0.0", ">=0.9.0 <1.0.0", false},
		"over a minor":            {"0.1.0", "0.3.0", ">=0.1.0 <0.3.0", true},
		"over the first of 1":     {"0.9.3", "1.1.0", ">=0.9.0 <1.1.0", true},
		"over a major altogether": {"0.9.3", "2.0.0", ">=0.9.0 <2.0.0", true},
	} {
		t.Run(name, func(t *testing.T) {
			in := input(t)
			in.Version, in.Replaces = tt.version, tt.replaces
			bundle, catalog := files(t, in)
			var csv olm.ClusterServiceVersion
			must(t, yaml.UnmarshalStrict(bundle[olm.CSVFile], &csv))
			if csv.Spec.Replaces != "countersign.v"+tt.replaces ||
				csv.Metadata.Annotations[olm.AnnotationSkipRange] != tt.skip {
				t.Errorf("got replaces %q and skip range %q", csv.Spec.Replaces,
					csv.Metadata.Annotations[olm.AnnotationSkipRange])
			}
			var owner struct{ Metadata olm.Metadata }
			must(t, yaml.Unmarshal(bundle[manifestFile("countersign-webhook-owner.clusterrole")], &owner))
			if got := owner.Metadata.Labels[olm.LabelOwner]; got != "countersign.v"+tt.version {
				t.Errorf("got owner label %q, want that of the new version", got)
			}
			problems := append(checker.Bundle(bundle), check.Catalog(catalog, bundle)...)
			if tt.jumps != (len(problems) > 0) {
				t.Errorf("got problems %v, want some: %t", problems, tt.jumps)
			}
		})
	}
}

// A committed bundle names its images by tag alone.
func TestCommittedBundleIsByTag(t *testing.T) {
	in := input(t)
	bundle, _ := files(t, in)
	for _, image := range []string{
		operatorImage, "registry.example.com/c", strings.Replace(operatorImage, "@", ":v1@", 1),
	} {
		broken := compose.Files{}
		for name, text := range bundle {
			broken[name] = []byte(strings.ReplaceAll(string(text), operatorImage, image))
		}
		found(t, check.New(in.Rendered).ByTag().Bundle(broken),
			fault{check: "images", says: "is not named by tag alone"})
	}
}

// Go reads the folder that the cluster's CAs are mounted in.
func TestTrustedCAsAreRead(t *testing.T) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	must(t, err)
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "src", "crypto", "x509", "root_linux.go"))
	must(t, err)
	_, folders, _ := strings.Cut(string(source), "var certDirectories = []string{")
	folders, _, _ = strings.Cut(folders, "\n}")
	if !strings.Contains(folders, `"`+check.TrustedCAFolder+`"`) {
		t.Errorf("got folders without %s:%s", check.TrustedCAFolder, folders)
	}
}

// A hand-written part without annotations is reported, and does not panic.
func TestHandWrittenPartWithoutAnnotations(t *testing.T) {
	in := input(t)
	var part map[string]any
	must(t, yaml.Unmarshal(in.CSV, &part))
	part["metadata"] = map[string]any{}
	var err error
	in.CSV, err = json.Marshal(part)
	must(t, err)
	bundle, _ := files(t, in)
	found(t, check.New(in.Rendered).Bundle(bundle), fault{check: "answers", says: "capabilities is"})
}
