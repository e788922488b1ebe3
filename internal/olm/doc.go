// Package olm holds what the Operator Lifecycle Manager reads: the parts of its formats that this
// project's bundle uses, and no others. Bundles are decoded into these types strictly, so a field
// that is not known here is an error and not a surprise on a cluster.
package olm

// Names that are the same in every bundle.
const (
	// Package is the name of the operator's package in a catalog.
	Package = "countersign"
	// Channel is where every version is published. Conventional names are candidate, fast and
	// stable; the API is v1alpha1.
	Channel = "candidate"
	// Namespace is where the operator must be installed: the RoleBinding of the bundle names it.
	Namespace = "countersign-system"
	// ServiceAccount is the operator's. OLM makes it.
	ServiceAccount = "countersign-manager"
	// WebhookOwner is the ClusterRole that owns the webhook configurations.
	WebhookOwner = "countersign-webhook-owner"
)

// Labels by which OLM finds the ClusterRoles and ClusterRoleBindings that it deletes with a
// ClusterServiceVersion. It sets them on those that it makes itself, and honours them on those that
// a bundle brings along.
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
	// AnnotationFeature is the prefix of the answers that OpenShift's catalogue filters by.
	AnnotationFeature = "features.operators.openshift.io/"
)

// AnnotationOpenShift is the annotation of a bundle that says from which version of OpenShift on
// catalogues offer it.
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

// CSVName is the name of the ClusterServiceVersion of a version such as 0.1.0.
func CSVName(version string) string { return Package + ".v" + version }

// Features are the questions that a bundle answers with "true" or "false".
func Features() []string {
	return []string{
		"disconnected", "fips-compliant", "proxy-aware", "tls-profiles", "token-auth-aws", "token-auth-azure",
		"token-auth-gcp",
	}
}

// OwnerLabels have OLM delete a cluster-scoped object with the ClusterServiceVersion of that name.
func OwnerLabels(csv string) map[string]string {
	return map[string]string{LabelOwner: csv, LabelOwnerKind: KindCSV, LabelOwnerNamespace: Namespace}
}

// BundleAnnotations are the content of AnnotationsFile, and the labels of the bundle's image.
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

// Kind is how OLM takes a kind of object from a bundle.
type Kind struct {
	APIVersion string
	Namespaced bool
}

// Kinds are what a bundle may hold besides its ClusterServiceVersion, by name. PriorityClasses and
// the like, which OLM takes too but never deletes, are left out; API versions are those that no
// supported cluster has removed.
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
