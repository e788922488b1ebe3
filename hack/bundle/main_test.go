package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/internal/olm"
)

// The command writes a bundle and a catalog without problems. The same input gives the same files,
// and files of an earlier run are deleted.
func TestBundleIsWritten(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	output, err := runBundle(t, arguments(first)...)
	must(t, err)
	if !strings.Contains(output, "every check passed") {
		t.Errorf("got output %q, want \"every check passed\"", output)
	}
	stale := filepath.Join(second, olm.ManifestsDir, "stale.yaml")
	must(t, os.MkdirAll(filepath.Dir(stale), 0o755))
	must(t, os.WriteFile(stale, []byte("kind: Stale"), 0o644))
	_, err = runBundle(t, arguments(second)...)
	must(t, err)
	if diff := cmp.Diff(read(t, first), read(t, second)); diff != "" {
		t.Errorf("got different files from two runs:\n%s", diff)
	}
	written := read(t, first)
	for _, name := range []string{
		olm.CSVFile, olm.AnnotationsFile, olm.ScorecardFile, olm.Dockerfile, olm.CatalogFile, olm.CatalogDockerfile,
		manifestFile("countersign-webhook.service"),
	} {
		if len(written[name]) == 0 {
			t.Errorf("got no file %s", name)
		}
	}
}

// The bundle has the version, time and images of the flags.
func TestBundleFollowsFlags(t *testing.T) {
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
		t.Errorf("got a catalog without the default name of the bundle's image:\n%s", catalog[olm.CatalogFile])
	}
}

// A tag with a digest is removed, and does not become part of the name of the bundle's image.
func TestTagIsLeftOut(t *testing.T) {
	in, err := settings{
		version: "0.1.0", image: "localhost:5000/countersign:v9@sha256:" + strings.Repeat("0", 64), created: commitTime,
	}.input()
	must(t, err)
	if in.Image != "localhost:5000/countersign@sha256:"+strings.Repeat("0", 64) ||
		in.BundleImage != "localhost:5000/countersign-bundle:v0.1.0" {
		t.Errorf("got images %q and %q, want them without the tag v9", in.Image, in.BundleImage)
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
				t.Errorf("got %d files, want none", len(left))
			}
		})
	}
}
