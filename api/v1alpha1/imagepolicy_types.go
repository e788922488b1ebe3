package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ImagePolicySpec says which images the policy covers and which roles must have signed them.
//
// +kubebuilder:validation:XValidation:rule="has(self.requiredRoles) != has(self.allowUnsigned)",message="exactly one of requiredRoles and allowUnsigned must be set"
// +kubebuilder:validation:XValidation:rule="!has(self.requiredRoles) || has(self.trustRoots)",message="trustRoots must name at least one TrustRoot where requiredRoles is set"
// +kubebuilder:validation:XValidation:rule=`!has(self.help) || !self.help.contains("PRIVATE KEY")`,fieldPath=".help",message="there is a private key in this field: remove it, and keep it out of the cluster"
type ImagePolicySpec struct {
	// Images are patterns that match registry host and repository path, from the first character
	// to the last. They match the normalised name: "nginx" is "docker.io/library/nginx". "*"
	// matches one path segment or a part of it. "**" is a segment of its own and matches any number
	// of segments. No pattern matches across the first "/". A pattern cannot name a tag or digest.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	Images []ImagePattern `json:"images,omitempty"`

	// ExceptImages are patterns of repositories that the policy does not cover, even if Images
	// matches them.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	ExceptImages []ImagePattern `json:"exceptImages,omitempty"`

	// NamespaceSelector selects the namespaces in which the policy holds, by their labels. Without
	// it, the policy holds in every namespace that is not exempt.
	// +optional
	NamespaceSelector *NamespaceSelector `json:"namespaceSelector,omitempty"`

	// TrustRoots are the names of the TrustRoots whose signatures count. For a tag, the first
	// TrustRoot with exactly one acceptable digest decides.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	TrustRoots []ObjectName `json:"trustRoots,omitempty"`

	// RequiredRoles are the requirements. An image must meet every one. Exactly one of
	// RequiredRoles and AllowUnsigned must be set.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	RequiredRoles []RoleRequirement `json:"requiredRoles,omitempty"`

	// AllowUnsigned, when true, covers the images and requires no signature. Other policies that
	// cover the same image still hold.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self",message="allowUnsigned can only be true; leave it out and set requiredRoles to require signatures"
	AllowUnsigned *bool `json:"allowUnsigned,omitempty"`

	// Mode says what happens when an image fails the policy. Enforce denies. Warn admits, warns the
	// client and writes to the operator's log. Audit admits, and writes to the audit log of the API
	// server and to the operator's log. Default Enforce.
	// +optional
	// +default="Enforce"
	Mode PolicyMode `json:"mode,omitempty"`

	// Help is text at the end of each denial and warning of this policy, on the same line. It tells
	// a developer what to do: "Ask #qa to sign: https://wiki.example.com/signing".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.contains('PRIVATE KEY') || !self.matches('[\\\\p{C}\\\\p{Zl}\\\\p{Zp}]')",message="help is one line of printable characters, without control characters"
	Help string `json:"help,omitempty"`

	// PinDigests says where the webhook rewrites a verified tag to tag@digest: in Pods, in All
	// workloads (templates too), or in None. Among the policies in mode Enforce that cover an
	// image, All wins over Pods, and Pods over None. Policies in other modes rewrite nothing.
	// Default Pods.
	// +optional
	// +default="Pods"
	PinDigests PinDigests `json:"pinDigests,omitempty"`
}

// ImagePattern is a pattern that matches registry host and repository path, such as
// "registry.example.com/acme/**".
//
// +kubebuilder:validation:MaxLength=512
// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self == "" ? "an empty pattern covers nothing: remove it, or write '*/**' to cover every image" : self.matches("\\s") ? "a pattern has no white space: remove it" : self.contains("://") ? "drop https:// or what else ends in '://': a pattern begins with the registry host, as in registry.example.com/acme/**" : self.contains("@") ? "a pattern matches repositories and cannot name a digest; remove what follows the '@'" : self == "*" ? "'*' alone is not every image: write '*/**', or 'docker.io/library/*' for the official ones" : self.startsWith("**") ? "'**' cannot stand for the registry host; write the host, or '*/**' for every image" : self.matches("^([^/:]*[.][^/:]*(:[0-9]+)?/?|localhost(:[0-9]+)?/?|[[][^/]*[]](:[0-9]+)?/?|[^/:]+:[0-9]+/)$") ? "this looks like a registry host: write " + self + (self.endsWith("/") ? "" : "/") + "** for every repository there" : self.matches("/[^/]*:") || !self.contains("/") && self.contains(":") ? "a pattern matches repositories and cannot name a tag; remove what follows the last ':' (after a registry with its port write '/**')" : self.startsWith("/") || self.endsWith("/") || self.contains("//") ? "a pattern has no empty segment: remove the leading, trailing or doubled '/', or end it with '/**'" : self.matches("[*][*][^/]|[^/][*][*]") ? "'**' stands for whole path segments: write it between slashes, as in registry.example.com/acme/**" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self == "" ? "an empty pattern covers nothing: remove it, or write '*/**' to cover every image" : self.matches("\\s") ? "a pattern has no white space: remove it" : self.contains("://") ? "drop https:// or what else ends in '://': a pattern begins with the registry host, as in registry.example.com/acme/**" : self.contains("@") ? "a pattern matches repositories and cannot name a digest; remove what follows the '@'" : self == "*" ? "'*' alone is not every image: write '*/**', or 'docker.io/library/*' for the official ones" : self.startsWith("**") ? "'**' cannot stand for the registry host; write the host, or '*/**' for every image" : self.matches("^([^/:]*[.][^/:]*(:[0-9]+)?/?|localhost(:[0-9]+)?/?|[[][^/]*[]](:[0-9]+)?/?|[^/:]+:[0-9]+/)$") ? "this looks like a registry host: write " + self + (self.endsWith("/") ? "" : "/") + "** for every repository there" : self.matches("/[^/]*:") || !self.contains("/") && self.contains(":") ? "a pattern matches repositories and cannot name a tag; remove what follows the last ':' (after a registry with its port write '/**')" : self.startsWith("/") || self.endsWith("/") || self.contains("//") ? "a pattern has no empty segment: remove the leading, trailing or doubled '/', or end it with '/**'" : self.matches("[*][*][^/]|[^/][*][*]") ? "'**' stands for whole path segments: write it between slashes, as in registry.example.com/acme/**" : ""`
// +kubebuilder:validation:XValidation:rule=`(!self.matches("^[^/@\\s]+(/[^/:@\\s]+)*$") || self.startsWith("**") || self in ["*", "localhost"] || !self.contains("/") && self.matches("[.:]") || self.matches("[*][*][^/]|[^/][*][*]") ? "" : self.matches("^[^/]*[.:][^/]*/") && (!self.replace("*", "a").matches("^([a-zA-Z0-9]+(([.]|-+)[a-zA-Z0-9]+)*|[[][0-9a-fA-F:]+[]])(:[0-9]{1,5})?/") || self.matches("^([*]|sha(256|384|512)):|^[^/]*:(0{1,5}|6553[6-9]|655[4-9][0-9]|65[6-9][0-9]{2}|6[6-9][0-9]{3}|[7-9][0-9]{4})/")) ? "the host of a pattern is a registry's name or address with an optional port up to 65535, as in registry.example.com:5000/acme/**" : self.matches("^[[][0-9a-fA-F:]+[]]") && (!self.matches("^[[]([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}[]]") && (!self.matches("^[[]([0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4})*)?::([0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4})*)?[]]") || self.matches("^[[]:*([0-9a-fA-F]+:+){7}[0-9a-fA-F]")) || self.matches("^[[]((0{1,4}:){5}|(0{1,4}(:0{1,4})*)?::(0{1,4}:)*)[fF]{4}:[0-9a-fA-F]{1,4}:[0-9a-fA-F]{1,4}[]]") || self.matches("^[[](0{1,4}:){5}[fF]{4}:")) ? "what is in brackets is not an IPv6 address; an IPv4 address is written as such" : !(self.matches("^[^/]*[.:][^/]*/") ? self.substring(self.indexOf("/") + 1) : self.startsWith("localhost/") ? self.substring(10) : self).replace("*", "a").matches("^[a-z0-9]+(([.]|__?|-+|/)[a-z0-9]+)*$") ? "the path of a pattern consists of lower-case letters and digits, single '.', '_', '__' or '-' between them, and the wildcards '*' and '**'" : "") == ""`,messageExpression=`!self.matches("^[^/@\\s]+(/[^/:@\\s]+)*$") || self.startsWith("**") || self in ["*", "localhost"] || !self.contains("/") && self.matches("[.:]") || self.matches("[*][*][^/]|[^/][*][*]") ? "" : self.matches("^[^/]*[.:][^/]*/") && (!self.replace("*", "a").matches("^([a-zA-Z0-9]+(([.]|-+)[a-zA-Z0-9]+)*|[[][0-9a-fA-F:]+[]])(:[0-9]{1,5})?/") || self.matches("^([*]|sha(256|384|512)):|^[^/]*:(0{1,5}|6553[6-9]|655[4-9][0-9]|65[6-9][0-9]{2}|6[6-9][0-9]{3}|[7-9][0-9]{4})/")) ? "the host of a pattern is a registry's name or address with an optional port up to 65535, as in registry.example.com:5000/acme/**" : self.matches("^[[][0-9a-fA-F:]+[]]") && (!self.matches("^[[]([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}[]]") && (!self.matches("^[[]([0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4})*)?::([0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4})*)?[]]") || self.matches("^[[]:*([0-9a-fA-F]+:+){7}[0-9a-fA-F]")) || self.matches("^[[]((0{1,4}:){5}|(0{1,4}(:0{1,4})*)?::(0{1,4}:)*)[fF]{4}:[0-9a-fA-F]{1,4}:[0-9a-fA-F]{1,4}[]]") || self.matches("^[[](0{1,4}:){5}[fF]{4}:")) ? "what is in brackets is not an IPv6 address; an IPv4 address is written as such" : !(self.matches("^[^/]*[.:][^/]*/") ? self.substring(self.indexOf("/") + 1) : self.startsWith("localhost/") ? self.substring(10) : self).replace("*", "a").matches("^[a-z0-9]+(([.]|__?|-+|/)[a-z0-9]+)*$") ? "the path of a pattern consists of lower-case letters and digits, single '.', '_', '__' or '-' between them, and the wildcards '*' and '**'" : ""`
type ImagePattern string

// ObjectName is the name of a Kubernetes object.
//
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self == "" ? "a name cannot be empty: write the name of the object, or remove the entry" : self.matches("\\s") ? "a name has no white space: remove it" : !self.matches("^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$") ? "an object name consists of lower-case letters, digits, '-' and '.'" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self == "" ? "a name cannot be empty: write the name of the object, or remove the entry" : self.matches("\\s") ? "a name has no white space: remove it" : !self.matches("^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$") ? "an object name consists of lower-case letters, digits, '-' and '.'" : ""`
type ObjectName string

// RoleName is the name of a signer role, such as "ci" or "qa". It means the same under every
// signature format.
//
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self == "" ? "a role name cannot be empty: write the name of the role, or remove the entry" : self.matches("\\s") ? "a role name has no white space: remove it" : self.startsWith("targets/") ? "name the role and not its delegation: ci, not targets/ci" : self == "targets" ? "targets is the repository's own key and no role: write a role such as ci, and give it delegations: [targets] in the TrustRoot, if targets is to speak for it" : !self.matches("^[-a-z0-9_]+(/[-a-z0-9_]+)*$") ? "a role name consists of lower-case letters, digits, '-' and '_', with '/' between the parts of a nested role" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self == "" ? "a role name cannot be empty: write the name of the role, or remove the entry" : self.matches("\\s") ? "a role name has no white space: remove it" : self.startsWith("targets/") ? "name the role and not its delegation: ci, not targets/ci" : self == "targets" ? "targets is the repository's own key and no role: write a role such as ci, and give it delegations: [targets] in the TrustRoot, if targets is to speak for it" : !self.matches("^[-a-z0-9_]+(/[-a-z0-9_]+)*$") ? "a role name consists of lower-case letters, digits, '-' and '_', with '/' between the parts of a nested role" : ""`
type RoleName string

// RoleRequirement is met when one role has signed the image, or enough roles of a list have.
//
// +kubebuilder:validation:XValidation:rule="has(self.role) != has(self.anyOf)",message="exactly one of role and anyOf must be set"
// +kubebuilder:validation:XValidation:rule="!has(self.threshold) || has(self.anyOf)",message="threshold goes with anyOf; a single role is always required"
// +kubebuilder:validation:XValidation:rule="!has(self.threshold) || !has(self.anyOf) || self.threshold <= size(self.anyOf)",message="threshold cannot exceed the number of roles in anyOf"
// +kubebuilder:validation:XValidation:rule=`!has(self.role) || !self.role.contains("PRIVATE KEY")`,fieldPath=".role",message="there is a private key in this field: remove it, and keep it out of the cluster"
type RoleRequirement struct {
	// Role is the role that must have signed.
	// +optional
	Role RoleName `json:"role,omitempty"`

	// AnyOf lists roles. At least Threshold of them must have signed.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	AnyOf []RoleName `json:"anyOf,omitempty"`

	// Threshold is how many roles of AnyOf must have signed. Default 1.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Threshold *int32 `json:"threshold,omitempty"`
}

// PolicyMode says what happens when an image fails a policy.
//
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule=`self in ["Enforce", "Warn", "Audit"]`,message="mode must be Enforce, Warn or Audit"
type PolicyMode string

// The modes of a policy.
const (
	ModeEnforce PolicyMode = "Enforce"
	ModeWarn    PolicyMode = "Warn"
	ModeAudit   PolicyMode = "Audit"
)

// PinDigests says in which objects the webhook rewrites a verified tag to tag@digest.
//
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule=`self in ["Pods", "All", "None"]`,message="pinDigests must be Pods, All or None"
type PinDigests string

// The values of PinDigests.
const (
	PinPods PinDigests = "Pods"
	PinAll  PinDigests = "All"
	PinNone PinDigests = "None"
)

// ImagePolicyStatus is the state of a policy as the operator last observed it.
type ImagePolicyStatus struct {
	// ObservedGeneration is the generation of the spec that the status describes.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Conditions are Ready, Gated and Compliant. Ready says whether the policy is in force; if it
	// is not, the reason says why the policy denies its scope. Gated says whether the API server
	// calls the webhook at all. Compliant says whether the running workloads meet the policy.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Roles summarises the requirements for the print column: "ci,qa,2 of 3".
	// +optional
	// +kubebuilder:validation:MaxLength=8192
	Roles string `json:"roles,omitempty"`

	// TrustRoots lists the trust roots for the print column: "acme-notary,acme-tuf".
	// +optional
	// +kubebuilder:validation:MaxLength=8192
	TrustRoots string `json:"trustRoots,omitempty"`

	// Workloads counts the running workloads that the policy covers.
	// +optional
	Workloads *WorkloadCounts `json:"workloads,omitempty"`

	// Violations are the first 20 running images that violate the policy, sorted by namespace,
	// kind, name and image.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	Violations []Violation `json:"violations,omitempty"`

	// BreakGlass are the first 20 namespaces in the policy's scope in which break-glass is on.
	// +optional
	// +listType=map
	// +listMapKey=namespace
	// +kubebuilder:validation:MaxItems=20
	BreakGlass []BreakGlass `json:"breakGlass,omitempty"`
}

// WorkloadCounts counts running workloads. A workload is a controller with its running Pods, such
// as a Deployment, or a running Pod without a controller.
type WorkloadCounts struct {
	// Covered is how many workloads run an image that the policy covers.
	// +required
	// +kubebuilder:validation:Minimum=0
	Covered int32 `json:"covered"`

	// Violating is how many of the covered workloads run an image that violates the policy.
	// +required
	// +kubebuilder:validation:Minimum=0
	Violating int32 `json:"violating"`

	// Unchecked is how many of the covered workloads run an image that could not be checked, and
	// none that is known to violate the policy.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Unchecked int32 `json:"unchecked,omitempty"`

	// WouldDeny is how many of the covered workloads mode Enforce would deny: those that violate
	// the policy and those that could not be checked. It is set in modes Warn and Audit only, and
	// absent when it is 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	WouldDeny int32 `json:"wouldDeny,omitempty"`
}

// Violation is one image of a running workload that violates the policy.
type Violation struct {
	// Namespace is the namespace of the workload.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// Kind is the kind of the workload, such as Deployment.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`

	// Name is the name of the workload.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Image is the repository with the running digest. If the kubelet reports no digest, it is the
	// image reference of the Pod.
	// +required
	// +kubebuilder:validation:MaxLength=1024
	Image string `json:"image"`

	// Reason is the kind of violation, such as NotSigned.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`

	// MissingRoles are the required roles that have not signed. A requirement with anyOf is shown
	// as "2 of 3".
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=128
	MissingRoles []string `json:"missingRoles,omitempty"`

	// Since is when the operator first saw the violation.
	// +required
	Since metav1.Time `json:"since"`
}

// LabelBreakGlass is the label that turns break-glass on in a Namespace. Its value is the reason.
// Images that policies would deny are then admitted there with a warning.
const LabelBreakGlass = "countersign.dev/break-glass"

// BreakGlass is a namespace in which break-glass is on: the label countersign.dev/break-glass
// admits images that policies would deny.
type BreakGlass struct {
	// Namespace is the name of the namespace.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// Reason is the value of the label.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Reason string `json:"reason"`
}

// ImagePolicy lets an image run only when every role that it requires has signed the image.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=imgpol,categories=countersign
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Roles",type=string,JSONPath=`.status.roles`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Covered",type=integer,JSONPath=`.status.workloads.covered`
// +kubebuilder:printcolumn:name="Violations",type=integer,JSONPath=`.status.workloads.violating`
// +kubebuilder:printcolumn:name="Compliant",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Compliant")].status`
// +kubebuilder:printcolumn:name="Gated",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Gated")].status`
// +kubebuilder:printcolumn:name="TrustRoots",type=string,priority=1,JSONPath=`.status.trustRoots`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ImagePolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says which images the policy covers and which roles must have signed them.
	// +required
	Spec ImagePolicySpec `json:"spec"`
	// Status is the state of the policy as the operator last observed it.
	// +optional
	Status ImagePolicyStatus `json:"status,omitempty"`
}

// ImagePolicyList is a list of ImagePolicies.
//
// +kubebuilder:object:root=true
type ImagePolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ImagePolicy `json:"items"`
}
