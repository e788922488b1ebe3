package olm

import (
	"encoding/json"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Identity of a ClusterServiceVersion.
const (
	KindCSV       = "ClusterServiceVersion"
	APIVersionCSV = "operators.coreos.com/v1alpha1"
)

// ClusterServiceVersion describes one version of the operator: its installation, and its entry in a
// catalog.
type ClusterServiceVersion struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        Metadata `json:"metadata"`
	Spec            Spec     `json:"spec"`
}

// Metadata is the metadata of a manifest.
type Metadata struct {
	Name        string            `json:"name,omitempty"`
	Namespace   string            `json:"namespace,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
}

// Spec has the fields of a ClusterServiceVersion's spec that the bundle uses.
type Spec struct {
	DisplayName    string       `json:"displayName,omitempty"`
	Description    string       `json:"description,omitempty"`
	Version        string       `json:"version,omitempty"`
	Replaces       string       `json:"replaces,omitempty"`
	Keywords       []string     `json:"keywords,omitempty"`
	Maturity       string       `json:"maturity,omitempty"`
	MinKubeVersion string       `json:"minKubeVersion,omitempty"`
	Provider       Link         `json:"provider,omitzero"`
	Maintainers    []Maintainer `json:"maintainers,omitempty"`
	Links          []Link       `json:"links,omitempty"`
	Icon           []Icon       `json:"icon,omitempty"`
	InstallModes   []Mode       `json:"installModes,omitempty"`
	CRDs           CRDs         `json:"customresourcedefinitions,omitzero"`
	// APIServices and Webhooks must be empty: the operator creates its webhook configurations
	// itself.
	APIServices   json.RawMessage `json:"apiservicedefinitions,omitempty"`
	Webhooks      json.RawMessage `json:"webhookdefinitions,omitempty"`
	Install       Install         `json:"install,omitzero"`
	RelatedImages []Image         `json:"relatedImages,omitempty"`
}

// Link is a name with a URL.
type Link struct {
	Name string `json:"name,omitempty"`
	URL  string `json:"url,omitempty"`
}

// Maintainer is a contact.
type Maintainer struct {
	Name  string `json:"name,omitempty"`
	Email string `json:"email,omitempty"`
}

// Icon is an image in base64.
type Icon struct {
	Data      string `json:"base64data,omitempty"`
	MediaType string `json:"mediatype,omitempty"`
}

// Mode says whether the operator supports an install mode, such as AllNamespaces.
type Mode struct {
	Type      string `json:"type"`
	Supported bool   `json:"supported"`
}

// CRDs are the kinds of the operator.
type CRDs struct {
	Owned []OwnedCRD `json:"owned,omitempty"`
}

// OwnedCRD describes a kind for a console.
type OwnedCRD struct {
	Name              string       `json:"name"`
	Version           string       `json:"version,omitempty"`
	Kind              string       `json:"kind,omitempty"`
	DisplayName       string       `json:"displayName,omitempty"`
	Description       string       `json:"description,omitempty"`
	Resources         []Resource   `json:"resources,omitempty"`
	SpecDescriptors   []Descriptor `json:"specDescriptors,omitempty"`
	StatusDescriptors []Descriptor `json:"statusDescriptors,omitempty"`
}

// Resource is a kind of object that the operator creates for an object of a CRD.
type Resource struct {
	Kind    string `json:"kind"`
	Name    string `json:"name,omitempty"`
	Version string `json:"version"`
}

// Descriptor describes a field for a console.
type Descriptor struct {
	Path         string   `json:"path"`
	DisplayName  string   `json:"displayName,omitempty"`
	Description  string   `json:"description,omitempty"`
	XDescriptors []string `json:"x-descriptors,omitempty"`
}

// Install says how OLM installs the operator.
type Install struct {
	Strategy string      `json:"strategy"`
	Spec     InstallSpec `json:"spec"`
}

// InstallSpec has the operator's Deployment and its permissions.
type InstallSpec struct {
	Deployments []Deployment `json:"deployments"`
	// Permissions must be empty: OLM grants them in the whole cluster if the operator is installed
	// for all namespaces.
	Permissions        []Permission `json:"permissions,omitempty"`
	ClusterPermissions []Permission `json:"clusterPermissions,omitempty"`
}

// Deployment is a Deployment that OLM creates in the namespace of the ClusterServiceVersion.
type Deployment struct {
	Name  string                `json:"name"`
	Label map[string]string     `json:"label,omitempty"`
	Spec  appsv1.DeploymentSpec `json:"spec"`
}

// Permission grants rules to a ServiceAccount.
type Permission struct {
	ServiceAccountName string              `json:"serviceAccountName"`
	Rules              []rbacv1.PolicyRule `json:"rules"`
}

// Image is an image that the operator needs.
type Image struct {
	Name  string `json:"name"`
	Image string `json:"image"`
}

// Group returns the API group of the kind.
func (c OwnedCRD) Group() string {
	_, group, _ := strings.Cut(c.Name, ".")
	return group
}
