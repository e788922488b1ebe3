package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/distribution/reference"
	kyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/countersign-dev/countersign/internal/olm"
)

// catalog is a decoded catalog, and the problems found so far. csv is that of the offered bundle.
type catalog struct {
	problems
	csv      olm.ClusterServiceVersion
	packages []olm.CatalogPackage
	channels []olm.CatalogChannel
	bundles  []olm.CatalogBundle
}

// Catalog returns the problems of a file-based catalog that offers a bundle. Both are given by
// their files.
func Catalog(files, offered map[string][]byte) []Problem {
	c := &catalog{}
	if err := olm.Decode(offered[olm.CSVFile], &c.csv); err != nil {
		c.add("catalog", "%s: %v", olm.CSVFile, err)
	}
	dockerfile := string(files[olm.CatalogDockerfile])
	for _, line := range []string{
		"FROM scratch", "LABEL operators.operatorframework.io.index.configs.v1=/configs",
		"COPY " + olm.CatalogDir + " /configs/",
	} {
		if !slices.Contains(strings.Split(dockerfile, "\n"), line) {
			c.add("catalog", "%s lacks the line %q", olm.CatalogDockerfile, line)
		}
	}
	for name := range files {
		if name != olm.CatalogFile && name != olm.CatalogDockerfile {
			c.add("catalog", "%s must not be in the catalog: OLM reads every file of it", name)
		}
	}
	c.read(files[olm.CatalogFile])
	if len(c.packages) != 1 || len(c.channels) != 1 || len(c.bundles) != 1 {
		c.add("catalog", "there must be one package, one channel and one bundle; there are %d, %d and %d",
			len(c.packages), len(c.channels), len(c.bundles))
		return c.problems
	}
	c.graph()
	c.bundle(c.bundles[0])
	return c.problems
}

func (c *catalog) read(text []byte) {
	for d := kyaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		var raw json.RawMessage
		if err := d.Decode(&raw); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			c.add("catalog", "%v", err)
			return
		}
		var head struct {
			Schema string `json:"schema"`
		}
		var err error
		switch err = json.Unmarshal(raw, &head); head.Schema {
		case olm.SchemaPackage:
			c.packages, err = appendStrict(c.packages, raw)
		case olm.SchemaChannel:
			c.channels, err = appendStrict(c.channels, raw)
		case olm.SchemaBundle:
			c.bundles, err = appendStrict(c.bundles, raw)
		default:
			c.add("catalog", "a document of schema %q", head.Schema)
		}
		if err != nil {
			c.add("catalog", "a document of schema %q: %v", head.Schema, err)
		}
	}
}

func appendStrict[T any](to []T, raw []byte) ([]T, error) {
	var v T
	if err := olm.Decode(raw, &v); err != nil {
		return to, err
	}
	return append(to, v), nil
}

// graph checks package and channel: the default channel exists, its only entry is the bundle, and
// the upgrade is the one that the bundle declares.
func (c *catalog) graph() {
	p, ch := c.packages[0], c.channels[0]
	if p.Name != olm.Package || ch.Package != olm.Package || p.DefaultChannel != ch.Name || ch.Name != olm.Channel {
		c.add("catalog", "package %q with default channel %q, and channel %q of %q", p.Name, p.DefaultChannel, ch.Name,
			ch.Package)
	}
	if p.Icon == nil || len(c.csv.Spec.Icon) != 1 || *p.Icon != olm.CatalogIcon(c.csv.Spec.Icon[0]) ||
		p.Description != c.csv.Spec.Description {
		c.add("catalog", "the package does not have the icon and description of the bundle")
	}
	if len(ch.Entries) != 1 || ch.Entries[0].Name != c.bundles[0].Name {
		c.add("catalog", "the channel has the entries %v, but the bundle is %q", ch.Entries, c.bundles[0].Name)
		return
	}
	e := ch.Entries[0]
	if e.Replaces == e.Name {
		c.add("catalog", "%s replaces itself", e.Name)
	}
	if e.Replaces != c.csv.Spec.Replaces || e.SkipRange != c.csv.Metadata.Annotations[olm.AnnotationSkipRange] {
		c.add("catalog", "the channel replaces %q and skips %q, but the bundle does not", e.Replaces, e.SkipRange)
	}
}

// bundle checks that the catalog describes the bundle as the bundle does itself.
func (c *catalog) bundle(b olm.CatalogBundle) {
	if b.Name != c.csv.Metadata.Name || b.Package != olm.Package {
		c.add("catalog", "the bundle %q of %q is not %q", b.Name, b.Package, c.csv.Metadata.Name)
	}
	if _, err := reference.ParseNormalizedNamed(b.Image); err != nil {
		c.add("catalog", "the bundle's image %q: %v", b.Image, err)
	}
	if want := append([]olm.Image{{Image: b.Image}}, c.csv.Spec.RelatedImages...); !slices.Equal(b.RelatedImages,
		want) {
		c.add("catalog", "the related images are %v, not %v", b.RelatedImages, want)
	}
	var kinds []string
	found := map[string]int{}
	for _, p := range b.Properties {
		found[p.Type]++
		switch p.Type {
		case olm.PropertyPackage:
			if v, err := value[olm.PackageValue](p); err != nil ||
				v != (olm.PackageValue{PackageName: olm.Package, Version: c.csv.Spec.Version}) {
				c.add("catalog", "the property %s is %v: %v", p.Type, v, err)
			}
		case olm.PropertyGVK:
			v, err := value[olm.GVKValue](p)
			if err != nil {
				c.add("catalog", "the property %s: %v", p.Type, err)
			}
			kinds = append(kinds, v.Group+"/"+v.Version+"/"+v.Kind)
		case olm.PropertyCSVMetadata:
			c.metadata(p)
		default:
			c.add("catalog", "a property of type %q", p.Type)
		}
	}
	if found[olm.PropertyPackage] != 1 || found[olm.PropertyCSVMetadata] != 1 {
		c.add("catalog", "there must be one property each of %s and %s", olm.PropertyPackage, olm.PropertyCSVMetadata)
	}
	if list(kinds) != list(ownedKinds(c.csv)) {
		c.add("catalog", "the catalog offers the kinds %s, the bundle %s", list(kinds), list(ownedKinds(c.csv)))
	}
}

func (c *catalog) metadata(p olm.Property) {
	v, err := value[olm.CSVMetadata](p)
	if err != nil {
		c.add("catalog", "the property %s: %v", p.Type, err)
		return
	}
	s := c.csv.Spec
	want := olm.CSVMetadata{
		Annotations: c.csv.Metadata.Annotations, Labels: c.csv.Metadata.Labels, CRDs: s.CRDs,
		Description: s.Description, DisplayName: s.DisplayName,
		InstallModes: s.InstallModes, Keywords: s.Keywords, Links: s.Links, Maintainers: s.Maintainers,
		Maturity:       s.Maturity,
		MinKubeVersion: s.MinKubeVersion, Provider: s.Provider,
	}
	if !reflect.DeepEqual(v, want) {
		c.add("catalog", "the property %s differs from the ClusterServiceVersion", p.Type)
	}
}

// value decodes the value of a property.
func value[T any](p olm.Property) (T, error) {
	var v T
	raw, err := json.Marshal(p.Value)
	if err != nil {
		return v, err
	}
	return v, olm.Decode(raw, &v)
}
