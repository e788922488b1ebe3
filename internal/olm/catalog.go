package olm

// Files of a catalog, relative to the folder that its image is built from.
const (
	// CatalogDir is the root of the catalog. OLM reads every file in it, so the Dockerfile is
	// beside it.
	CatalogDir        = "catalog"
	CatalogDockerfile = "catalog.Dockerfile"
	CatalogFile       = CatalogDir + "/" + Package + "/catalog.yaml"
)

// Schemas of the documents of a file-based catalog, and types of a bundle's properties.
const (
	SchemaPackage       = "olm.package"
	SchemaChannel       = "olm.channel"
	SchemaBundle        = "olm.bundle"
	PropertyPackage     = "olm.package"
	PropertyGVK         = "olm.gvk"
	PropertyCSVMetadata = "olm.csv.metadata"
)

// CatalogPackage describes the package, and names its default channel.
type CatalogPackage struct {
	Schema         string       `json:"schema"`
	Name           string       `json:"name"`
	DefaultChannel string       `json:"defaultChannel"`
	Description    string       `json:"description,omitempty"`
	Icon           *CatalogIcon `json:"icon,omitempty"`
}

// CatalogIcon is an Icon with the field names of a catalog.
type CatalogIcon struct {
	Data      string `json:"base64data"`
	MediaType string `json:"mediatype"`
}

// CatalogChannel says which version upgrades to which.
type CatalogChannel struct {
	Schema  string         `json:"schema"`
	Name    string         `json:"name"`
	Package string         `json:"package"`
	Entries []CatalogEntry `json:"entries"`
}

// CatalogEntry is one version of a channel.
type CatalogEntry struct {
	Name      string `json:"name"`
	Replaces  string `json:"replaces,omitempty"`
	SkipRange string `json:"skipRange,omitempty"`
}

// CatalogBundle is one bundle, with the properties that OLM needs before it pulls the image.
type CatalogBundle struct {
	Schema        string     `json:"schema"`
	Name          string     `json:"name"`
	Package       string     `json:"package"`
	Image         string     `json:"image"`
	Properties    []Property `json:"properties"`
	RelatedImages []Image    `json:"relatedImages"`
}

// Property is a property or a requirement of a bundle.
type Property struct {
	Type  string `json:"type"`
	Value any    `json:"value"`
}

// PackageValue is the value of the property PropertyPackage.
type PackageValue struct {
	PackageName string `json:"packageName"`
	Version     string `json:"version"`
}

// GVKValue is the value of the property PropertyGVK: a kind whose CRD is in the bundle.
type GVKValue struct {
	Group   string `json:"group"`
	Kind    string `json:"kind"`
	Version string `json:"version"`
}

// CSVMetadata is the value of the property PropertyCSVMetadata: the description for a console.
type CSVMetadata struct {
	Annotations    map[string]string `json:"annotations"`
	APIServices    struct{}          `json:"apiServiceDefinitions"`
	CRDs           CRDs              `json:"crdDescriptions"`
	Description    string            `json:"description"`
	DisplayName    string            `json:"displayName"`
	InstallModes   []Mode            `json:"installModes"`
	Keywords       []string          `json:"keywords"`
	Labels         map[string]string `json:"labels"`
	Links          []Link            `json:"links"`
	Maintainers    []Maintainer      `json:"maintainers"`
	Maturity       string            `json:"maturity"`
	MinKubeVersion string            `json:"minKubeVersion"`
	Provider       Link              `json:"provider"`
}
