package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/hack/bundle/check"
	"github.com/countersign-dev/countersign/hack/bundle/olm"
)

// The command writes a bundle and a catalog that every check passes, the same ones for the same
// commit, and leaves nothing of an earlier one.
func TestBundleIsWritten(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	said, err := runBundle(t, arguments(first)...)
	must(t, err)
	if !strings.Contains(said, "every check passed") {
		t.Errorf("the command said %q", said)
	}
	stale := filepath.Join(second, olm.ManifestsDir, "stale.yaml")
	must(t, os.MkdirAll(filepath.Dir(stale), 0o755))
	must(t, os.WriteFile(stale, []byte("kind: Stale"), 0o644))
	_, err = runBundle(t, arguments(second)...)
	must(t, err)
	if diff := cmp.Diff(read(t, first), read(t, second)); diff != "" {
		t.Errorf("two runs differ:\n%s", diff)
	}
	written := read(t, first)
	for _, name := range []string{
		olm.CSVFile, olm.AnnotationsFile, olm.ScorecardFile, olm.Dockerfile, olm.CatalogFile, olm.CatalogDockerfile,
		manifestFile("countersign-webhook.service"),
	} {
		if len(written[name]) == 0 {
			t.Errorf("%s was not written", name)
		}
	}
}

// What the ClusterServiceVersion says of its origin.
func TestBundleSaysWhatItIs(t *testing.T) {
	bundle, catalog := files(t, input(t))
	var csv olm.ClusterServiceVersion
	must(t, yaml.UnmarshalStrict(bundle[olm.CSVFile], &csv))
	got := map[string]string{
		"name": csv.Metadata.Name, "version": csv.Spec.Version,
		"created": csv.Metadata.Annotations[olm.AnnotationCreatedAt],
		"run":     csv.Spec.Install.Spec.Deployments[0].Spec.Template.Spec.Containers[0].Image,
		"related": csv.Spec.RelatedImages[0].Image,
		"scc":     csv.Spec.Install.Spec.Deployments[0].Spec.Template.Annotations["openshift.io/required-scc"],
	}
	want := map[string]string{
		"name": "countersign.v0.1.0", "version": "0.1.0", "created": "2026-01-02T01:04:05Z", "run": operatorImage,
		"related": operatorImage, "scc": "restricted-v2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(string(catalog[olm.CatalogFile]),
		"image: registry.example.com/countersign/countersign-bundle:v0.1.0") {
		t.Errorf("the catalog does not offer the bundle under the default name:\n%s", catalog[olm.CatalogFile])
	}
}

// Go reads the folder in which the operator is given CAs.
func TestTrustedCAsAreRead(t *testing.T) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	must(t, err)
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "src", "crypto", "x509", "root_linux.go"))
	must(t, err)
	_, folders, _ := strings.Cut(string(source), "var certDirectories = []string{")
	folders, _, _ = strings.Cut(folders, "\n}")
	if !strings.Contains(folders, `"`+check.TrustedCAFolder+`"`) {
		t.Errorf("%s is not among the folders that Go reads:%s", check.TrustedCAFolder, folders)
	}
}

// A tag beside a digest is left out, and does not become part of the bundle's name.
func TestTagIsLeftOut(t *testing.T) {
	in, err := settings{
		version: "0.1.0", image: "localhost:5000/countersign:v9@sha256:" + strings.Repeat("0", 64), created: commitTime,
	}.input()
	must(t, err)
	if in.Image != "localhost:5000/countersign@sha256:"+strings.Repeat("0", 64) ||
		in.BundleImage != "localhost:5000/countersign-bundle:v0.1.0" {
		t.Errorf("got %q and %q", in.Image, in.BundleImage)
	}
}

// An upgrade names what it replaces, moves the owner of the webhook configurations to the new
// version, and passes every check too.
func TestUpgradeReplaces(t *testing.T) {
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
				t.Errorf("replaces %q, skips %q", csv.Spec.Replaces, csv.Metadata.Annotations[olm.AnnotationSkipRange])
			}
			var owner struct{ Metadata olm.Metadata }
			must(t, yaml.Unmarshal(bundle[manifestFile("countersign-webhook-owner.clusterrole")], &owner))
			if got := owner.Metadata.Labels[olm.LabelOwner]; got != "countersign.v"+tt.version {
				t.Errorf("the owner is deleted with %q", got)
			}
			problems := append(check.New(in.Rendered).Bundle(bundle), check.Catalog(catalog, bundle)...)
			if tt.jumps != (len(problems) > 0) {
				t.Errorf("problems: %v", problems)
			}
		})
	}
}

func TestArgumentsAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"no version": {
			[]string{"--image=" + operatorImage, "--created=" + commitTime}, "name the version",
		},
		"no image": {[]string{"--version=0.1.0", "--created=" + commitTime}, "by digest"},
		"a tag": {
			[]string{"--version=0.1.0", "--image=registry.example.com/countersign:v0.1.0", "--created=" + commitTime},
			"by digest",
		},
		"no time":                  {[]string{"--version=0.1.0", "--image=" + operatorImage}, "--created"},
		"no such flag":             {[]string{"--channel=stable"}, "unknown flag"},
		"replaces a later version": {arguments(t.TempDir(), "--replaces=0.2.0"), "not an earlier version"},
	} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			if _, err := runBundle(t, append(tt.args, "--out="+out)...); err == nil ||
				!strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if left := read(t, out); len(left) > 0 {
				t.Errorf("wrote %d files", len(left))
			}
		})
	}
}

// What is written by hand may not say what is made, so that there is one place for each.
func TestHandWrittenPartIsKeptApart(t *testing.T) {
	for _, line := range []string{
		"metadata: {name: countersign.v9.9.9}", "spec: {version: 9.9.9}", "spec: {replaces: countersign.v9.9.8}",
		"spec: {relatedImages: [{name: a, image: b}]}", "spec: {install: {strategy: deployment}}",
		"spec: {install: {spec: {clusterPermissions: [{serviceAccountName: a, rules: []}]}}}",
		"metadata: {namespace: a}",
		"spec: {customresourcedefinitions: {owned: [{name: imagepolicies.countersign.dev, kind: ImagePolicy}]}}",
		"metadata: {annotations: {createdAt: today}}",
	} {
		t.Run(line, func(t *testing.T) {
			in := input(t)
			var base, more map[string]any
			must(t, yaml.Unmarshal(in.CSV, &base))
			must(t, yaml.Unmarshal([]byte(line), &more))
			merge(base, more)
			var err error
			in.CSV, err = json.Marshal(base)
			must(t, err)
			if _, _, err := makeFiles(in); err == nil || !strings.Contains(err.Error(), "take it out") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Without annotations there is much to say, and it is said.
func TestHandWrittenPartWithoutAnnotations(t *testing.T) {
	in := input(t)
	var part map[string]any
	must(t, yaml.Unmarshal(in.CSV, &part))
	part["metadata"] = map[string]any{}
	var err error
	in.CSV, err = json.Marshal(part)
	must(t, err)
	if _, _, err := makeFiles(in); err == nil || !strings.Contains(err.Error(), "answers: capabilities is") {
		t.Errorf("got %v", err)
	}
}

func merge(into, from map[string]any) {
	for k, v := range from {
		a, isMap := into[k].(map[string]any)
		if b, ok := v.(map[string]any); ok && isMap {
			merge(a, b)
			continue
		}
		into[k] = v
	}
}
