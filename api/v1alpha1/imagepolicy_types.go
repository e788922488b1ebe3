package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ImagePolicySpec says which images are covered, and which roles must have signed them.
//
// +kubebuilder:validation:XValidation:rule="has(self.requiredRoles) != has(self.allowUnsigned)",message="exactly one of requiredRoles and allowUnsigned must be set"
// +kubebuilder:validation:XValidation:rule="!has(self.requiredRoles) || has(self.trustRoots)",message="trustRoots must name at least one TrustRoot where requiredRoles is set"
// +kubebuilder:validation:XValidation:rule=`!has(self.help) || !self.help.contains("PRIVATE KEY")`,fieldPath=".help",message="there is a private key in this field: remove it, and keep it out of the cluster"
type ImagePolicySpec struct {
	// Images are patterns over the normalised repository ("nginx" is "docker.io/library/nginx"),
	// registry host and path, anchored at both ends. "*" stands for one path segment or a part of
	// one, "**" as a whole segment for any number of segments. No pattern reaches across the first
	// "/". Tags and digests cannot be named.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	Images []ImagePattern `json:"images,omitempty"`

	// ExceptImages are patterns of repositories that this policy does not cover although Images
	// matches them.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	ExceptImages []ImagePattern `json:"exceptImages,omitempty"`

	// NamespaceSelector selects the namespaces in which the policy holds, by their labels. Absent:
	// every namespace that is not exempt.
	// +optional
	NamespaceSelector *NamespaceSelector `json:"namespaceSelector,omitempty"`

	// TrustRoots names the TrustRoots that a role's signature may come from. For a tag, the first
	// that yields one acceptable digest decides.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	TrustRoots []ObjectName `json:"trustRoots,omitempty"`

	// RequiredRoles are the requirements; every entry must be met. Exactly one of RequiredRoles and
	// AllowUnsigned must be set.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	RequiredRoles []RoleRequirement `json:"requiredRoles,omitempty"`

	// AllowUnsigned, true, marks the images as covered with nothing required. Other policies that
	// cover the same image still hold.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self",message="allowUnsigned can only be true; leave it out and set requiredRoles to require signatures"
	AllowUnsigned *bool `json:"allowUnsigned,omitempty"`

	// Mode says what a failed requirement does: Enforce denies, Warn admits with a warning to the
	// client and a line in the operator's log, Audit admits silently and logs. Default Enforce.
	// +optional
	// +default="Enforce"
	Mode PolicyMode `json:"mode,omitempty"`

	// Help is appended to the denials and warnings of this policy, on the same line, so that a
	// developer knows whom to ask: "Ask #qa to sign: https://wiki.example.com/signing".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.contains('PRIVATE KEY') || !self.matches('[\\\\p{C}\\\\p{Zl}\\\\p{Zp}]')",message="help is one line of printable characters, without control characters"
	Help string `json:"help,omitempty"`

	// PinDigests says where a verified tag is rewritten to tag@digest: in Pods, in All workloads
	// (templates too), or in None. Of several policies in mode Enforce that cover an image the
	// strongest applies, All before Pods before None; in the other modes nothing is rewritten.
	// Default Pods.
	// +optional
	// +default="Pods"
	PinDigests PinDigests `json:"pinDigests,omitempty"`
}

// NamespaceSelector selects namespaces by their labels. What MatchLabels and what MatchExpressions
// say must all hold. Empty, it selects every namespace.
type NamespaceSelector struct {
	// MatchLabels are labels that a namespace must have, each with its value.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule=`self.all(k, !k.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	// +kubebuilder:validation:XValidation:rule=`(self.exists(k, k.contains("PRIVATE KEY")) ? "" : self.exists(k, k == "") ? "a label has a name: write it" : self.exists(k, size(k) > 317 || k.matches("^[^/]{254}")) ? "the name of a label is too long: it has at most 63 characters, and may follow a domain of at most 253 and '/'" : self.exists(k, k.matches("\\s")) ? "a label has no white space: remove it" : self.exists(k, !k.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")) ? "no label has the name '" + self.filter(k, !k.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$") && self.all(y, k <= y || y.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")))[0] + "': a name consists of letters, digits, '-', '_' and '.', at most 63, and may follow a domain and '/', as in example.com/team" : "") == ""`,messageExpression=`self.exists(k, k.contains("PRIVATE KEY")) ? "" : self.exists(k, k == "") ? "a label has a name: write it" : self.exists(k, size(k) > 317 || k.matches("^[^/]{254}")) ? "the name of a label is too long: it has at most 63 characters, and may follow a domain of at most 253 and '/'" : self.exists(k, k.matches("\\s")) ? "a label has no white space: remove it" : self.exists(k, !k.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")) ? "no label has the name '" + self.filter(k, !k.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$") && self.all(y, k <= y || y.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")))[0] + "': a name consists of letters, digits, '-', '_' and '.', at most 63, and may follow a domain and '/', as in example.com/team" : ""`
	MatchLabels map[string]LabelValue `json:"matchLabels,omitempty"`

	// MatchExpressions are requirements on labels; each must be met.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	MatchExpressions []NamespaceRequirement `json:"matchExpressions,omitempty"`
}

// NamespaceRequirement is a requirement on one label of a namespace.
//
// +kubebuilder:validation:XValidation:rule=`self.operator in ["In", "NotIn", "Exists", "DoesNotExist"]`,fieldPath=".operator",message="operator must be In, NotIn, Exists or DoesNotExist"
// +kubebuilder:validation:XValidation:rule=`!(self.operator in ["In", "NotIn"]) || has(self.values) && size(self.values) > 0`,fieldPath=".values",message="In and NotIn need values: list them, or write Exists or DoesNotExist"
// +kubebuilder:validation:XValidation:rule=`!(self.operator in ["Exists", "DoesNotExist"]) || !has(self.values) || size(self.values) == 0`,fieldPath=".values",message="Exists and DoesNotExist take no values: remove them, or write In or NotIn"
// +kubebuilder:validation:XValidation:rule=`!self.key.contains("PRIVATE KEY")`,fieldPath=".key",message="there is a private key in this field: remove it, and keep it out of the cluster"
type NamespaceRequirement struct {
	// Key is the name of the label.
	// +required
	Key LabelKey `json:"key,omitempty"`

	// Operator is In or NotIn, which compare the label with Values, or Exists or DoesNotExist.
	// NotIn and DoesNotExist select the namespaces without the label, too.
	// +required
	Operator SelectorOperator `json:"operator,omitempty"`

	// Values are those that In and NotIn compare with.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Values []LabelValue `json:"values,omitempty"`
}

// SelectorOperator is In, NotIn, Exists or DoesNotExist.
//
// +kubebuilder:validation:MaxLength=32
type SelectorOperator string

// LabelKey is the name of a label.
//
// +kubebuilder:validation:MaxLength=317
// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self == "" ? "a label has a name: write it" : self.matches("\\s") ? "a label has no white space: remove it" : !self.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$") || self.matches("^[^/]{254}") ? "no label has this name: a name consists of letters, digits, '-', '_' and '.', at most 63, and may follow a domain and '/', as in example.com/team" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self == "" ? "a label has a name: write it" : self.matches("\\s") ? "a label has no white space: remove it" : !self.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$") || self.matches("^[^/]{254}") ? "no label has this name: a name consists of letters, digits, '-', '_' and '.', at most 63, and may follow a domain and '/', as in example.com/team" : ""`
type LabelKey string

// LabelValue is the value of a label.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule=`(self.matches("\\s") ? "a label has no white space: remove it" : !self.matches("^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$") ? "no label has this value: a value consists of letters, digits, '-', '_' and '.', and begins and ends with a letter or digit" : "") == ""`,messageExpression=`self.matches("\\s") ? "a label has no white space: remove it" : !self.matches("^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$") ? "no label has this value: a value consists of letters, digits, '-', '_' and '.', and begins and ends with a letter or digit" : ""`
type LabelValue string

// LabelSelector returns s as Kubernetes' own type.
func (s *NamespaceSelector) LabelSelector() *metav1.LabelSelector {
	if s == nil {
		return nil
	}
	converted := &metav1.LabelSelector{}
	for key, value := range s.MatchLabels {
		if converted.MatchLabels == nil {
			converted.MatchLabels = map[string]string{}
		}
		converted.MatchLabels[key] = string(value)
	}
	for _, e := range s.MatchExpressions {
		requirement := metav1.LabelSelectorRequirement{
			Key: string(e.Key), Operator: metav1.LabelSelectorOperator(e.Operator),
		}
		for _, value := range e.Values {
			requirement.Values = append(requirement.Values, string(value))
		}
		converted.MatchExpressions = append(converted.MatchExpressions, requirement)
	}
	return converted
}

// ImagePattern is a pattern over registry host and repository path, such as
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

// RoleName is the name of a signer role, such as "ci" or "qa". It means the same whatever format
// proves it.
//
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self == "" ? "a role name cannot be empty: write the name of the role, or remove the entry" : self.matches("\\s") ? "a role name has no white space: remove it" : self.startsWith("targets/") ? "name the role and not its delegation: ci, not targets/ci" : self == "targets" ? "targets is the repository's own key and no role: write a role such as ci, and give it delegations: [targets] in the TrustRoot, if targets is to speak for it" : !self.matches("^[-a-z0-9_]+(/[-a-z0-9_]+)*$") ? "a role name consists of lower-case letters, digits, '-' and '_', with '/' between the parts of a nested role" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self == "" ? "a role name cannot be empty: write the name of the role, or remove the entry" : self.matches("\\s") ? "a role name has no white space: remove it" : self.startsWith("targets/") ? "name the role and not its delegation: ci, not targets/ci" : self == "targets" ? "targets is the repository's own key and no role: write a role such as ci, and give it delegations: [targets] in the TrustRoot, if targets is to speak for it" : !self.matches("^[-a-z0-9_]+(/[-a-z0-9_]+)*$") ? "a role name consists of lower-case letters, digits, '-' and '_', with '/' between the parts of a nested role" : ""`
type RoleName string

// RoleRequirement is met when one role, or a number of roles out of a list, have signed the image.
//
// +kubebuilder:validation:XValidation:rule="has(self.role) != has(self.anyOf)",message="exactly one of role and anyOf must be set"
// +kubebuilder:validation:XValidation:rule="!has(self.threshold) || has(self.anyOf)",message="threshold goes with anyOf; a single role is always required"
// +kubebuilder:validation:XValidation:rule="!has(self.threshold) || !has(self.anyOf) || self.threshold <= size(self.anyOf)",message="threshold cannot exceed the number of roles in anyOf"
// +kubebuilder:validation:XValidation:rule=`!has(self.role) || !self.role.contains("PRIVATE KEY")`,fieldPath=".role",message="there is a private key in this field: remove it, and keep it out of the cluster"
type RoleRequirement struct {
	// Role must have signed.
	// +optional
	Role RoleName `json:"role,omitempty"`

	// AnyOf lists roles of which Threshold must have signed.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	AnyOf []RoleName `json:"anyOf,omitempty"`

	// Threshold is how many roles of AnyOf must have signed, at most all of them. Default 1.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Threshold *int32 `json:"threshold,omitempty"`
}

// PolicyMode says what a failed requirement does.
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

// PinDigests says in which objects a verified tag is rewritten to tag@digest.
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

// ImagePolicyStatus is what the operator observed of a policy.
type ImagePolicyStatus struct {
	// ObservedGeneration is the generation of the spec that the status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Conditions are Ready, with the reason where the policy denies its scope, Gated, which says
	// whether the API server calls the webhook at all, and Compliant, which says whether what
	// already runs meets the policy.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Roles is the requirements in short, for the print column: "ci,qa,2 of 3".
	// +optional
	// +kubebuilder:validation:MaxLength=8192
	Roles string `json:"roles,omitempty"`

	// TrustRoots is the names of the trust roots, for the print column: "acme-notary,acme-tuf".
	// +optional
	// +kubebuilder:validation:MaxLength=8192
	TrustRoots string `json:"trustRoots,omitempty"`

	// Workloads counts the running workloads that the policy covers.
	// +optional
	Workloads *WorkloadCounts `json:"workloads,omitempty"`

	// Violations are the first 20 of what runs in breach of the policy, by namespace, kind, name
	// and image.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	Violations []Violation `json:"violations,omitempty"`

	// BreakGlass are the first 20 namespaces in the policy's scope in which the gate stands open.
	// +optional
	// +listType=map
	// +listMapKey=namespace
	// +kubebuilder:validation:MaxItems=20
	BreakGlass []BreakGlass `json:"breakGlass,omitempty"`
}

// WorkloadCounts counts running workloads. A workload is what the running Pods of one controller
// belong to, such as a Deployment, or a Pod without a controller.
type WorkloadCounts struct {
	// Covered is how many run an image that the policy covers.
	// +required
	// +kubebuilder:validation:Minimum=0
	Covered int32 `json:"covered"`

	// Violating is how many of them run an image that the policy does not allow.
	// +required
	// +kubebuilder:validation:Minimum=0
	Violating int32 `json:"violating"`

	// Unchecked is how many of them could not be checked, and are not known to violate the policy.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Unchecked int32 `json:"unchecked,omitempty"`

	// WouldDeny is how many of them mode Enforce would deny and the mode of the policy, Warn or
	// Audit, lets in: those that violate it, and those that could not be checked. It is absent in
	// mode Enforce, and where it is 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	WouldDeny int32 `json:"wouldDeny,omitempty"`
}

// Violation is one image of one workload that runs in breach of the policy.
type Violation struct {
	// Namespace of the workload.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// Kind of the workload, such as Deployment.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`

	// Name of the workload.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Image is the repository with the digest that runs, or the reference of the Pod where the
	// kubelet reports none.
	// +required
	// +kubebuilder:validation:MaxLength=1024
	Image string `json:"image"`

	// Reason is the kind of violation, such as NotSigned.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`

	// MissingRoles are the roles that have not signed, "2 of 3" for a requirement with anyOf.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=128
	MissingRoles []string `json:"missingRoles,omitempty"`

	// Since is when the violation was first seen.
	// +required
	Since metav1.Time `json:"since"`
}

// LabelBreakGlass on a Namespace, with a reason as its value, admits whatever policies would deny
// there, with a warning.
const LabelBreakGlass = "countersign.dev/break-glass"

// BreakGlass is a namespace that is labelled so that the gate stands open in it.
type BreakGlass struct {
	// Namespace is its name.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// Reason is the value of the label.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Reason string `json:"reason"`
}

// ImagePolicy lets an image run only when every role that it names has signed it.
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

	// Spec says which images are covered, and which roles must have signed them.
	// +required
	Spec ImagePolicySpec `json:"spec"`
	// Status is what the operator observed.
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
