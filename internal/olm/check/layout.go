package check

import (
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/countersign-dev/countersign/internal/olm"
)

// layout checks the files and folders, and that annotations and Dockerfile agree with them.
func (b *bundle) layout() {
	for _, name := range []string{olm.AnnotationsFile, olm.ScorecardFile, olm.Dockerfile} {
		if _, ok := b.files[name]; !ok {
			b.add("layout", "%s is missing", name)
		}
	}
	for name := range b.files {
		dir, known := path.Dir(name), []string{olm.AnnotationsFile, olm.ScorecardFile, olm.Dockerfile}
		if dir != olm.ManifestsDir && !slices.Contains(known, name) {
			b.add("layout", "%s must not be in the bundle", name)
		}
	}
	annotations := b.annotations()
	b.dockerfile(annotations)
	b.scorecard()
}

// inBundle returns a folder in the form that annotations need: relative to the bundle, with a final
// slash.
func inBundle(dir string) string { return strings.TrimPrefix(dir, olm.BundleDir+"/") + "/" }

// bundleAnnotations is the content of olm.AnnotationsFile.
type bundleAnnotations struct {
	Annotations map[string]string `json:"annotations"`
}

func (b *bundle) annotations() map[string]string {
	var file bundleAnnotations
	if err := olm.Decode(b.files[olm.AnnotationsFile], &file); err != nil {
		b.add("annotations", "%s: %v", olm.AnnotationsFile, err)
	}
	const bundle = "operators.operatorframework.io.bundle."
	for suffix, want := range map[string]string{
		"mediatype.v1": "registry+v1", "manifests.v1": inBundle(olm.ManifestsDir),
		"metadata.v1": inBundle(path.Dir(olm.AnnotationsFile)), "package.v1": olm.Package,
	} {
		if got := file.Annotations[bundle+suffix]; got != want {
			b.add("annotations", "%s is %q, not %q", bundle+suffix, got, want)
		}
	}
	channels := strings.Split(file.Annotations[bundle+"channels.v1"], ",")
	if standard := file.Annotations[bundle+"channel.default.v1"]; !slices.Contains(channels, standard) {
		b.add("annotations", "the default channel %q is not one of the channels %q", standard, channels)
	}
	for _, c := range channels {
		if !strings.HasPrefix(c, "candidate") && !strings.HasPrefix(c, "fast") && !strings.HasPrefix(c, "stable") {
			b.add("annotations", "the name of the channel %q does not begin with candidate, fast or stable", c)
		}
	}
	const test = "operators.operatorframework.io.test."
	if got, want := file.Annotations[test+"config.v1"], inBundle(path.Dir(olm.ScorecardFile)); got != want ||
		file.Annotations[test+"mediatype.v1"] != "scorecard+v1" {
		b.add("annotations", "scorecard would read its configuration from %q, not from %q", got, want)
	}
	return file.Annotations
}

// kubernetesOf is the difference between the minor versions of Kubernetes 1 and of OpenShift 4,
// which contains it.
const kubernetesOf = 13

// openShift checks that OpenShift offers the bundle from the version with the oldest supported
// Kubernetes on.
func (b *bundle) openShift() {
	oldest, err := version.ParseSemantic(b.csv.Spec.MinKubeVersion)
	if err != nil {
		return // oldest reports it
	}
	var file bundleAnnotations
	if err := olm.Decode(b.files[olm.AnnotationsFile], &file); err != nil {
		return
	}
	want := fmt.Sprintf("v4.%d", int(oldest.Minor())-kubernetesOf)
	if got := file.Annotations[olm.AnnotationOpenShift]; got != want {
		b.add("annotations", "%s is %q, not %q, which has Kubernetes %s", olm.AnnotationOpenShift, got, want, oldest)
	}
}

// dockerfile checks that the image has the annotations as labels, and the folders that the labels
// name.
func (b *bundle) dockerfile(annotations map[string]string) {
	labels, copies := map[string]string{}, map[string]string{}
	from := ""
	for line := range strings.Lines(string(b.files[olm.Dockerfile])) {
		switch words := strings.Fields(line); {
		case len(words) == 2 && words[0] == "FROM":
			from = words[1]
		case len(words) == 2 && words[0] == "LABEL":
			key, value, _ := strings.Cut(words[1], "=")
			labels[key] = value
		case len(words) == 3 && words[0] == "COPY":
			copies[words[1]] = words[2]
		case len(words) > 0 && !strings.HasPrefix(words[0], "#"):
			b.add("dockerfile", "unknown instruction: %s", line)
		}
	}
	if from != "scratch" {
		b.add("dockerfile", "the image is made from %q, not from scratch", from)
	}
	if !maps.Equal(labels, annotations) {
		b.add("dockerfile", "the labels differ from the annotations: %v, %v", labels, annotations)
	}
	want := map[string]string{}
	for _, dir := range []string{olm.ManifestsDir, path.Dir(olm.AnnotationsFile), path.Dir(olm.ScorecardFile)} {
		want[dir] = "/" + inBundle(dir)
	}
	if !maps.Equal(copies, want) {
		b.add("dockerfile", "it copies %v, not %v", copies, want)
	}
}

// scorecardTests returns all tests of scorecard with their suites.
func scorecardTests() map[string]string {
	return map[string]string{
		"basic-check-spec": "basic", "olm-bundle-validation": "olm", "olm-crds-have-validation": "olm",
		"olm-crds-have-resources": "olm",
		"olm-spec-descriptors":    "olm", "olm-status-descriptors": "olm",
	}
}

func (b *bundle) scorecard() {
	type test struct {
		Entrypoint []string          `json:"entrypoint"`
		Image      string            `json:"image"`
		Labels     map[string]string `json:"labels"`
	}
	var config struct {
		APIVersion string       `json:"apiVersion"`
		Kind       string       `json:"kind"`
		Metadata   olm.Metadata `json:"metadata"`
		Storage    any          `json:"storage"`
		Stages     []struct {
			Parallel bool   `json:"parallel"`
			Tests    []test `json:"tests"`
		} `json:"stages"`
	}
	if err := olm.Decode(b.files[olm.ScorecardFile], &config); err != nil {
		b.add("scorecard", "%s: %v", olm.ScorecardFile, err)
		return
	}
	if config.APIVersion != "scorecard.operatorframework.io/v1alpha3" || config.Kind != "Configuration" ||
		config.Metadata.Name != "config" {
		b.add("scorecard", "it is not a Configuration of scorecard.operatorframework.io/v1alpha3 named config")
	}
	found := map[string]string{}
	images := map[string]bool{}
	for _, stage := range config.Stages {
		for _, t := range stage.Tests {
			if len(t.Entrypoint) != 2 || t.Entrypoint[0] != "scorecard-test" || t.Labels["test"] != t.Entrypoint[1]+
				"-test" {
				b.add("scorecard", "the test with labels %v runs %q", t.Labels, t.Entrypoint)
				continue
			}
			found[t.Entrypoint[1]] = t.Labels["suite"]
			images[t.Image] = true
		}
	}
	if !reflect.DeepEqual(found, scorecardTests()) {
		b.add("scorecard", "it runs %s, not %s", fmt.Sprint(found), fmt.Sprint(scorecardTests()))
	}
	if len(images) != 1 || images[""] {
		b.add("scorecard", "the tests use the images %s, not a single one",
			list(slices.Collect(maps.Keys(images))))
	}
}
