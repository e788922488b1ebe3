// Package olm has the formats of the Operator Lifecycle Manager: the parts that this project's
// bundle and catalog use. Decode is strict, so a misspelt field is an error before it reaches a
// cluster. The packages compose and check make and check the files. The manager uses none of them.
package olm

// Names that all versions of the bundle share.
const (
	// Package is the name of the operator's package in a catalog.
	Package = "countersign"
	// Channel is the channel of every version. Conventional names are candidate, fast and stable;
	// it is candidate because the API is v1alpha1.
	Channel = "candidate"
	// Namespace is the namespace of the operator. The RoleBinding of the bundle requires it.
	Namespace = "countersign-system"
	// ServiceAccount is the operator's ServiceAccount. OLM creates it.
	ServiceAccount = "countersign-manager"
	// WebhookOwner is the ClusterRole that owns the webhook configurations.
	WebhookOwner = "countersign-webhook-owner"
)

// Labels by which OLM finds the ClusterRoles and ClusterRoleBindings that it deletes with a
// ClusterServiceVersion. OLM sets them on objects that it creates, and respects them on objects of
// the bundle.
const (
	LabelOwner          = "olm.owner"
	LabelOwnerKind      = "olm.owner.kind"
	LabelOwnerNamespace = "olm.owner.namespace"
)

// Annotations of a ClusterServiceVersion.
const (
	AnnotationCapabilities      = "capabilities"
	AnnotationCategories        = "categories"
	AnnotationContainerImage    = "containerImage"
	AnnotationCreatedAt         = "createdAt"
	AnnotationDescription       = "description"
	AnnotationExamples          = "alm-examples"
	AnnotationRepository        = "repository"
	AnnotationSupport           = "support"
	AnnotationSkipRange         = "olm.skipRange"
	AnnotationMonitoring        = "operatorframework.io/cluster-monitoring"
	AnnotationNamespace         = "operatorframework.io/suggested-namespace"
	AnnotationNamespaceTemplate = "operatorframework.io/suggested-namespace-template"
	// AnnotationFeature is the prefix of the feature annotations, by which OpenShift's catalog
	// filters.
	AnnotationFeature = "features.operators.openshift.io/"
)

// AnnotationOpenShift is the annotation of a bundle with the first version of OpenShift whose
// catalog offers it.
const AnnotationOpenShift = "com.redhat.openshift.versions"

// Files of a bundle, relative to the folder in which its image is built.
const (
	// BundleDir is the root of the bundle. Its Dockerfile lies beside it.
	BundleDir       = "bundle"
	Dockerfile      = "bundle.Dockerfile"
	ManifestsDir    = BundleDir + "/manifests"
	AnnotationsFile = BundleDir + "/metadata/annotations.yaml"
	ScorecardFile   = BundleDir + "/tests/scorecard/config.yaml"
	// CSVFile is where the ClusterServiceVersion is.
	CSVFile = ManifestsDir + "/" + Package + ".clusterserviceversion.yaml"
)

// CSVName returns the name of the ClusterServiceVersion for a version such as 0.1.0.
func CSVName(version string) string { return Package + ".v" + version }

// Features returns the features that a bundle must declare as "true" or "false".
func Features() []string {
	return []string{
		"disconnected", "fips-compliant", "proxy-aware", "tls-profiles", "token-auth-aws", "token-auth-azure",
		"token-auth-gcp",
	}
}

// OwnerLabels returns the labels of a cluster-scoped object that make OLM delete it with the
// ClusterServiceVersion csv.
func OwnerLabels(csv string) map[string]string {
	return map[string]string{LabelOwner: csv, LabelOwnerKind: KindCSV, LabelOwnerNamespace: Namespace}
}

// BundleAnnotations returns the content of AnnotationsFile, which the bundle's image has as labels.
func BundleAnnotations() map[string]string {
	const bundle, test = "operators.operatorframework.io.bundle.", "operators.operatorframework.io.test."
	return map[string]string{
		bundle + "mediatype.v1":       "registry+v1",
		bundle + "manifests.v1":       "manifests/",
		bundle + "metadata.v1":        "metadata/",
		bundle + "package.v1":         Package,
		bundle + "channels.v1":        Channel,
		bundle + "channel.default.v1": Channel,
		AnnotationOpenShift:           "v4.17",
		test + "mediatype.v1":         "scorecard+v1",
		test + "config.v1":            "tests/scorecard/",
	}
}

// Kind is the form in which OLM accepts a kind of object from a bundle.
type Kind struct {
	APIVersion string
	Namespaced bool
}

// Kinds returns the kinds that a bundle may have besides its ClusterServiceVersion, by name. It
// omits kinds such as PriorityClass, which OLM accepts but never deletes. Every supported cluster
// serves the API versions.
func Kinds() map[string]Kind {
	const rbac, monitoring = "rbac.authorization.k8s.io/v1", "monitoring.coreos.com/v1"
	return map[string]Kind{
		"ClusterRole":              {rbac, false},
		"ClusterRoleBinding":       {rbac, false},
		"ConfigMap":                {"v1", true},
		"CustomResourceDefinition": {"apiextensions.k8s.io/v1", false},
		"NetworkPolicy":            {"networking.k8s.io/v1", true},
		"PodDisruptionBudget":      {"policy/v1", true},
		"PrometheusRule":           {monitoring, true},
		"Role":                     {rbac, true},
		"RoleBinding":              {rbac, true},
		"Service":                  {"v1", true},
		"ServiceMonitor":           {monitoring, true},
	}
}
