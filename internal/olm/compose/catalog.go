package compose

import (
	"bytes"
	"errors"
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/internal/olm"
)

// Catalog returns the files of a file-based catalog that offers the bundle, with its Dockerfile.
// image is the reference of the bundle's image.
func Catalog(bundle Files, image string) (Files, error) {
	csv := &olm.ClusterServiceVersion{}
	if err := olm.Decode(bundle[olm.CSVFile], csv); err != nil {
		return nil, fmt.Errorf("reading the ClusterServiceVersion: %w", err)
	}
	if len(csv.Spec.Icon) != 1 {
		return nil, errors.New("the ClusterServiceVersion must have exactly one icon")
	}
	icon := olm.CatalogIcon(csv.Spec.Icon[0])
	documents := []any{
		olm.CatalogPackage{
			Schema: olm.SchemaPackage, Name: olm.Package, DefaultChannel: olm.Channel,
			Description: csv.Spec.Description, Icon: &icon,
		},
		olm.CatalogChannel{Schema: olm.SchemaChannel, Name: olm.Channel, Package: olm.Package,
			Entries: []olm.CatalogEntry{{
				Name: csv.Metadata.Name, Replaces: csv.Spec.Replaces,
				SkipRange: csv.Metadata.Annotations[olm.AnnotationSkipRange],
			}}},
		olm.CatalogBundle{
			Schema: olm.SchemaBundle, Name: csv.Metadata.Name, Package: olm.Package, Image: image,
			Properties:    properties(csv),
			RelatedImages: append([]olm.Image{{Image: image}}, csv.Spec.RelatedImages...),
		},
	}
	var b bytes.Buffer
	for _, d := range documents {
		text, err := yaml.Marshal(d)
		if err != nil {
			return nil, fmt.Errorf("writing the catalog: %w", err)
		}
		b.WriteString("---\n")
		b.Write(text)
	}
	return Files{olm.CatalogFile: b.Bytes(), olm.CatalogDockerfile: catalogDockerfile()}, nil
}

func properties(csv *olm.ClusterServiceVersion) []olm.Property {
	p := []olm.Property{
		{Type: olm.PropertyPackage, Value: olm.PackageValue{PackageName: olm.Package, Version: csv.Spec.Version}},
	}
	for _, owned := range csv.Spec.CRDs.Owned {
		p = append(p, olm.Property{
			Type: olm.PropertyGVK, Value: olm.GVKValue{Group: owned.Group(), Kind: owned.Kind, Version: owned.Version},
		})
	}
	s := csv.Spec
	return append(p, olm.Property{Type: olm.PropertyCSVMetadata, Value: olm.CSVMetadata{
		Annotations: csv.Metadata.Annotations, Labels: csv.Metadata.Labels,
		CRDs: s.CRDs, Description: s.Description, DisplayName: s.DisplayName, InstallModes: s.InstallModes,
		Keywords: s.Keywords, Links: s.Links,
		Maintainers: s.Maintainers, Maturity: s.Maturity, MinKubeVersion: s.MinKubeVersion, Provider: s.Provider,
	}})
}

func catalogDockerfile() []byte {
	return []byte("# OLM serves the files in /configs; the image needs no program.\nFROM scratch\n\n" +
		"LABEL operators.operatorframework.io.index.configs.v1=/configs\n\nCOPY " + olm.CatalogDir + " /configs/\n")
}
