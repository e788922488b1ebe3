// Package compose makes a bundle for OLM, and a catalog that offers it. Its input is a render of
// config/olm and the hand-written part of the ClusterServiceVersion. It does no I/O except through
// the fs.FS of ReadConfig, and reads no clock, so the same input gives the same bytes. It does not
// check its output: package check does.
package compose

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/internal/olm"
)

// Input is the input of Bundle.
type Input struct {
	// Version is a semantic version without a leading v. Replaces is the version that it upgrades;
	// empty: it is the first version.
	Version, Replaces string
	// Image and BundleImage are the references of the operator's image and of the bundle's image.
	Image, BundleImage string
	// Created is the creation time of the bundle.
	Created time.Time
	// Rendered are the objects of config/olm, rendered with Image.
	Rendered []unstructured.Unstructured
	// Samples become the examples.
	Samples []unstructured.Unstructured
	// CSV is the hand-written part of the ClusterServiceVersion in YAML, Icon an SVG, and Scorecard
	// the configuration of scorecard.
	CSV, Icon, Scorecard []byte
}

// Files are the contents of files by path, relative to a root.
type Files map[string][]byte

// Bundle returns the files of the bundle, with its Dockerfile.
func Bundle(in Input) (Files, error) {
	csv, err := clusterServiceVersion(in)
	if err != nil {
		return nil, err
	}
	files := Files{olm.ScorecardFile: in.Scorecard, olm.Dockerfile: dockerfile()}
	if err := files.add(olm.CSVFile, csv); err != nil {
		return nil, err
	}
	if err := files.add(olm.AnnotationsFile, map[string]any{"annotations": olm.BundleAnnotations()}); err != nil {
		return nil, err
	}
	return files, files.addManifests(in, csv.Metadata.Name)
}

func (f Files) add(path string, content any) error {
	if _, ok := f[path]; ok {
		return fmt.Errorf("two objects have the file name %s", path)
	}
	text, err := yaml.Marshal(content)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	f[path] = text
	return nil
}

// addManifests adds the objects that OLM applies besides the ClusterServiceVersion.
func (f Files) addManifests(in Input, csv string) error {
	for _, o := range in.Rendered {
		switch kind := o.GetKind(); kind {
		case "Namespace", "Deployment":
			// The ClusterServiceVersion has them.
		case "ResourceQuota":
			// OLM does not accept it. A user whose cluster needs it creates it.
		case "ServiceAccount":
			if o.GetName() != olm.ServiceAccount {
				return fmt.Errorf("ServiceAccount %q: OLM creates only %s", o.GetName(), olm.ServiceAccount)
			}
		case "CustomResourceDefinition":
			if err := f.add(manifest(o), o.Object); err != nil {
				return err
			}
		default:
			if (kind == "ClusterRole" || kind == "ClusterRoleBinding") && o.GetName() == olm.ServiceAccount {
				continue // The ClusterServiceVersion has it.
			}
			extra, err := extraManifest(o, csv)
			if err != nil {
				return err
			}
			if err := f.add(manifest(extra), extra.Object); err != nil {
				return err
			}
		}
	}
	return nil
}

func manifest(o unstructured.Unstructured) string {
	return olm.ManifestsDir + "/" + strings.ToLower(o.GetName()+"."+o.GetKind()) + ".yaml"
}

// extraManifest returns the object in the form for OLM. A namespaced object loses its namespace,
// because OLM sets it. A cluster-scoped object gets the labels by which OLM deletes it.
func extraManifest(o unstructured.Unstructured, csv string) (unstructured.Unstructured, error) {
	kind, ok := olm.Kinds()[o.GetKind()]
	if !ok {
		return o, fmt.Errorf("%s %q: OLM does not accept this kind in a bundle", o.GetKind(), o.GetName())
	}
	o = *o.DeepCopy()
	if kind.Namespaced {
		o.SetNamespace("")
		return o, nil
	}
	labels := o.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, olm.OwnerLabels(csv))
	o.SetLabels(labels)
	return o, nil
}

func clusterServiceVersion(in Input) (*olm.ClusterServiceVersion, error) {
	csv := &olm.ClusterServiceVersion{}
	if err := olm.Decode(in.CSV, csv); err != nil {
		return nil, fmt.Errorf("reading the hand-written part of the ClusterServiceVersion: %w", err)
	}
	s := &csv.Spec
	described := func(o olm.OwnedCRD) bool { return o.Kind != "" || o.Version != "" }
	if csv.Metadata.Name != "" || csv.Metadata.Namespace != "" || s.Version != "" || s.Replaces != "" ||
		s.Icon != nil || s.RelatedImages != nil ||
		!reflect.DeepEqual(s.Install, olm.Install{}) || slices.ContainsFunc(s.CRDs.Owned, described) {
		return nil, errors.New(
			"the hand-written part of the ClusterServiceVersion sets a field that make bundle fills in: remove it")
	}
	csv.Metadata.Name = olm.CSVName(in.Version)
	csv.Metadata.Namespace = "placeholder"
	s.Version = in.Version
	if in.Replaces != "" {
		s.Replaces = olm.CSVName(in.Replaces)
	}
	s.Icon = []olm.Icon{{Data: base64.StdEncoding.EncodeToString(in.Icon), MediaType: "image/svg+xml"}}
	if err := fillInstall(csv, in); err != nil {
		return nil, err
	}
	if err := fillKinds(csv, in); err != nil {
		return nil, err
	}
	return csv, fillAnnotations(csv, in)
}

// fillInstall copies the Deployment, and the cluster-wide permissions.
func fillInstall(csv *olm.ClusterServiceVersion, in Input) error {
	var d appsv1.Deployment
	if err := one(in.Rendered, "Deployment", olm.ServiceAccount, &d); err != nil {
		return err
	}
	var role rbacv1.ClusterRole
	if err := one(in.Rendered, "ClusterRole", olm.ServiceAccount, &role); err != nil {
		return err
	}
	csv.Spec.Install = olm.Install{Strategy: "deployment", Spec: olm.InstallSpec{
		Deployments: []olm.Deployment{{Name: d.Name, Label: d.Labels, Spec: d.Spec}},
		ClusterPermissions: []olm.Permission{
			{ServiceAccountName: d.Spec.Template.Spec.ServiceAccountName, Rules: role.Rules},
		},
	}}
	for _, c := range d.Spec.Template.Spec.Containers {
		csv.Spec.RelatedImages = append(csv.Spec.RelatedImages, olm.Image{Name: c.Name, Image: c.Image})
	}
	return nil
}

// fillKinds sets version and kind of each owned CRD.
func fillKinds(csv *olm.ClusterServiceVersion, in Input) error {
	for i := range csv.Spec.CRDs.Owned {
		owned := &csv.Spec.CRDs.Owned[i]
		var crd unstructured.Unstructured
		if err := one(in.Rendered, "CustomResourceDefinition", owned.Name, &crd.Object); err != nil {
			return err
		}
		owned.Kind, _, _ = unstructured.NestedString(crd.Object, "spec", "names", "kind")
		versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
		for _, v := range versions {
			if v, ok := v.(map[string]any); ok && v["storage"] == true {
				owned.Version, _ = v["name"].(string)
			}
		}
	}
	return nil
}

func fillAnnotations(csv *olm.ClusterServiceVersion, in Input) error {
	examples := make([]any, 0, len(in.Samples))
	for _, o := range in.Samples {
		examples = append(examples, o.Object)
	}
	text, err := json.MarshalIndent(examples, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the examples: %w", err)
	}
	var namespace unstructured.Unstructured
	if err := one(in.Rendered, "Namespace", olm.Namespace, &namespace.Object); err != nil {
		return err
	}
	template, err := json.Marshal(namespace.Object)
	if err != nil {
		return fmt.Errorf("writing the namespace: %w", err)
	}
	skip, err := skipRange(in)
	if err != nil {
		return err
	}
	filled := map[string]string{
		olm.AnnotationExamples:          string(text),
		olm.AnnotationContainerImage:    in.Image,
		olm.AnnotationCreatedAt:         in.Created.UTC().Format(time.RFC3339),
		olm.AnnotationNamespace:         olm.Namespace,
		olm.AnnotationNamespaceTemplate: string(template),
	}
	if skip != "" {
		filled[olm.AnnotationSkipRange] = skip
	}
	if csv.Metadata.Annotations == nil {
		csv.Metadata.Annotations = map[string]string{}
	}
	for key, value := range filled {
		if _, ok := csv.Metadata.Annotations[key]; ok {
			return fmt.Errorf(
				"the hand-written part of the ClusterServiceVersion has the annotation %s, which make bundle fills "+
					"in: remove it", key)
		}
		csv.Metadata.Annotations[key] = value
	}
	return nil
}

// skipRange returns the versions that OLM may upgrade to this one directly: all earlier versions,
// from the first patch of the minor version of Replaces on. It is empty for the first version.
func skipRange(in Input) (string, error) {
	if in.Replaces == "" {
		return "", nil
	}
	from, err := version.ParseSemantic(in.Replaces)
	if err != nil {
		return "", fmt.Errorf("parsing the replaced version: %w", err)
	}
	return fmt.Sprintf(">=%d.%d.0 <%s", from.Major(), from.Minor(), in.Version), nil
}

// one decodes the object of that kind and name into into.
func one(objects []unstructured.Unstructured, kind, name string, into any) error {
	i := slices.IndexFunc(objects, func(o unstructured.Unstructured) bool {
		return o.GetKind() == kind && o.GetName() == name
	})
	if i < 0 {
		return fmt.Errorf("config/olm renders no %s %q", kind, name)
	}
	if m, ok := into.(*map[string]any); ok {
		*m = objects[i].Object
		return nil
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(objects[i].Object, into,
		true); err != nil {
		return fmt.Errorf("reading %s %q: %w", kind, name, err)
	}
	return nil
}

func dockerfile() []byte {
	var b strings.Builder
	b.WriteString("# The bundle's image holds these files and nothing else.\nFROM scratch\n\n")
	annotations := olm.BundleAnnotations()
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		fmt.Fprintf(&b, "LABEL %s=%s\n", key, annotations[key])
	}
	b.WriteString(
		"\nCOPY bundle/manifests /manifests/\nCOPY bundle/metadata /metadata/\nCOPY bundle/tests/scorecard " +
			"/tests/scorecard/\n")
	return []byte(b.String())
}
