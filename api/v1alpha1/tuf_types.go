package v1alpha1

// TUFSpec describes repositories of The Update Framework (TUF): where their metadata is, the root
// that is trusted first, and which delegations sign for which role.
//
// +kubebuilder:validation:XValidation:rule="!has(self.caBundle) || !has(self.caBundleFrom)",message="at most one of caBundle and caBundleFrom may be set"
// +kubebuilder:validation:XValidation:rule="has(self.root) != has(self.rootFrom)",message="exactly one of root and rootFrom must be set; there is no trust on first use"
// +kubebuilder:validation:XValidation:rule="self.server.contains('{repository}') || !has(self.targetPath) || self.targetPath.contains('{repository}')",fieldPath=".targetPath",message="targetPath must contain {repository} where server does not: otherwise a signature on one image would count for the same tag of every other"
// +kubebuilder:validation:XValidation:rule=`!has(self.caBundle) || !self.caBundle.contains("PRIVATE KEY")`,fieldPath=".caBundle",message="this holds a private key; give certificates only"
// +kubebuilder:validation:XValidation:rule=`!has(self.root) || !self.root.contains("PRIVATE KEY")`,fieldPath=".root",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`!self.server.contains("PRIVATE KEY")`,fieldPath=".server",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`self.server.contains("PRIVATE KEY") || !self.server.contains("@")`,fieldPath=".server",message="server takes no user, password or '@': put user and password into a Secret, and name it in credentialsSecretRef"
// +kubebuilder:validation:XValidation:rule=`self.server.contains("PRIVATE KEY") || self.server.contains("@") || !self.server.matches("[?#]")`,fieldPath=".server",message="server takes no query or fragment: remove what begins with '?' or '#'"
// +kubebuilder:validation:XValidation:rule=`!has(self.targetPath) || !self.targetPath.contains("PRIVATE KEY")`,fieldPath=".targetPath",message="there is a private key in this field: remove it, and keep it out of the cluster"
type TUFSpec struct {
	// Server is the URL of the metadata: the folder that has timestamp.json. With {repository} in
	// its path, each image repository has a TUF repository of its own, and the name of the image
	// repository stands there, with its host. Without it, one TUF repository has the signatures of
	// all images.
	// +required
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") || self.matches("[@?#]") ? "" : self == "" ? "server cannot be empty: write a URL such as https://tuf.example.com/metadata" : self.matches("\\s") ? "server has no white space: remove it" : !self.contains("://") ? "write https:// before the host, as in https://tuf.example.com/metadata" : self.matches("^[hH][tT][tT][pP][sS]?://") && !self.matches("^https?://") ? "write https:// in lower case" : self.startsWith("http://") ? "server must be an https:// URL: a file server without TLS is not read" : self.matches("[{}]") && !self.matches("^https://[^/{}]+(/[^{}]*)?/[{]repository[}](/[^{}]*)?$") ? "write {repository} in server once, as a whole element of the path, and no other braces" : !(isURL(self.replace("{repository}", "r")) && self.matches("^https://[^/]+(/.*)?$")) ? "server must be an https URL such as https://tuf.example.com/metadata" : self.matches("[.]json/*$") ? "server is the folder of the metadata: drop the name of the file from its end" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") || self.matches("[@?#]") ? "" : self == "" ? "server cannot be empty: write a URL such as https://tuf.example.com/metadata" : self.matches("\\s") ? "server has no white space: remove it" : !self.contains("://") ? "write https:// before the host, as in https://tuf.example.com/metadata" : self.matches("^[hH][tT][tT][pP][sS]?://") && !self.matches("^https?://") ? "write https:// in lower case" : self.startsWith("http://") ? "server must be an https:// URL: a file server without TLS is not read" : self.matches("[{}]") && !self.matches("^https://[^/{}]+(/[^{}]*)?/[{]repository[}](/[^{}]*)?$") ? "write {repository} in server once, as a whole element of the path, and no other braces" : !(isURL(self.replace("{repository}", "r")) && self.matches("^https://[^/]+(/.*)?$")) ? "server must be an https URL such as https://tuf.example.com/metadata" : self.matches("[.]json/*$") ? "server is the folder of the metadata: drop the name of the file from its end" : ""`
	Server string `json:"server,omitempty"`

	// CABundle are PEM certificates. The server's TLS certificate must chain to one of them.
	// Without a bundle, the operator uses the CAs of its system. It skips a certificate that it
	// cannot parse, and condition Ready names it.
	// +optional
	CABundle PEMBundle `json:"caBundle,omitempty"`

	// CABundleFrom reads the bundle from an object in the operator's namespace instead.
	// +optional
	CABundleFrom *KeySource `json:"caBundleFrom,omitempty"`

	// CredentialsSecretRef names a Secret in the operator's namespace with the keys "username" and
	// "password" (type kubernetes.io/basic-auth). The operator sends them to the server.
	// +optional
	CredentialsSecretRef *SecretReference `json:"credentialsSecretRef,omitempty"`

	// Root is the content of the root.json that is trusted first: of any version, expired or not.
	// The operator verifies each newer root from it. There is no trust on first use. With
	// {repository} in Server, all TUF repositories must begin with this root.
	// +optional
	// +kubebuilder:validation:MaxLength=131072
	// +kubebuilder:validation:XValidation:rule=`self.contains("PRIVATE KEY") || self.matches("^\\s*[{]")`,message="root is the content of a root.json, which begins with '{'"
	Root string `json:"root,omitempty"`

	// RootFrom reads that root.json from an object in the operator's namespace instead. It may have
	// up to 512 KiB.
	// +optional
	RootFrom *KeySource `json:"rootFrom,omitempty"`

	// TargetPath is the path of the target that a tag is signed as. {tag} stands for the tag, and
	// {repository} for the name of the image repository, with its host. Default
	// "{repository}:{tag}".
	// +optional
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : !self.contains("{tag}") ? "write {tag} in targetPath, as in {repository}:{tag}" : self.matches("\\s") ? "targetPath has no white space: remove it" : !self.matches("^([^{}]|[{]repository[}]|[{]tag[}])*$") ? "the only braces that targetPath may have are those of {repository} and {tag}" : self.matches("[{]tag[}].*[{]tag[}]|[{]repository[}].*[{]repository[}]") ? "write {tag} and {repository} once each in targetPath" : self.contains("{repository}") && !self.matches("[}][^{}]*[^A-Za-z0-9_.{}-][^{}]*[{]") ? "write a ':' or '/' between {repository} and {tag} in targetPath: otherwise a path could be of two images" : self.matches("(^|/)[.]{0,2}(/|$)") || self.contains("\\") ? "targetPath has an empty path element, one of dots, or a backslash: remove it" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : !self.contains("{tag}") ? "write {tag} in targetPath, as in {repository}:{tag}" : self.matches("\\s") ? "targetPath has no white space: remove it" : !self.matches("^([^{}]|[{]repository[}]|[{]tag[}])*$") ? "the only braces that targetPath may have are those of {repository} and {tag}" : self.matches("[{]tag[}].*[{]tag[}]|[{]repository[}].*[{]repository[}]") ? "write {tag} and {repository} once each in targetPath" : self.contains("{repository}") && !self.matches("[}][^{}]*[^A-Za-z0-9_.{}-][^{}]*[{]") ? "write a ':' or '/' between {repository} and {tag} in targetPath: otherwise a path could be of two images" : self.matches("(^|/)[.]{0,2}(/|$)") || self.contains("\\") ? "targetPath has an empty path element, one of dots, or a backslash: remove it" : ""`
	TargetPath string `json:"targetPath,omitempty"`

	// Roles maps a role of a policy to the delegations that sign for it. A role r that is not
	// listed is mapped to the delegation r of the targets role. By default, targets itself never
	// counts for a role, and neither does a delegation of another delegation.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Roles []TUFRole `json:"roles,omitempty"`
}

// TUFRole says which delegations sign for a role, and how many keys must have signed.
//
// +kubebuilder:validation:XValidation:rule=`!self.name.contains("PRIVATE KEY")`,fieldPath=".name",message="there is a private key in this field: remove it, and keep it out of the cluster"
type TUFRole struct {
	// Name is the name of the role in policies.
	// +required
	Name RoleName `json:"name,omitempty"`

	// Delegations are the TUF roles that sign for it: any of them, also a delegation of another
	// delegation, or targets itself. Hash bins sign for the role that they split. By default it is
	// the delegation of the role's own name.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	Delegations []TUFDelegationName `json:"delegations,omitempty"`

	// Threshold is how many distinct keys of the delegations must have signed. Default 1.
	// +optional
	// +default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	Threshold int32 `json:"threshold,omitempty"`

	// Keys are public keys or certificates. If Keys or KeysFrom is set, only those keys count for
	// this role. The CA certificates of a chain may follow a certificate and are ignored.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="this is a private key; give the public key or the certificate, and keep the private key out of the cluster"
	Keys []PEM `json:"keys,omitempty"`

	// KeysFrom reads such keys from objects in the operator's namespace.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	KeysFrom []KeySource `json:"keysFrom,omitempty"`
}

// TUFDelegationName is the name of a TUF role that signs targets.
//
// +kubebuilder:validation:MaxLength=255
// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self == "" ? "a delegation cannot be empty: write its name, or remove the entry" : self.matches("^\\s|\\s$") ? "a delegation begins and ends without white space: remove it" : self in ["root", "timestamp", "snapshot"] ? "root, timestamp and snapshot sign no targets: name a delegation, or targets itself" : self.matches("(^|/)[.]{0,2}(/|$)") || self.contains("\\") ? "the name of a delegation has an empty path element, one of dots, or a backslash: such a delegation is never read" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self == "" ? "a delegation cannot be empty: write its name, or remove the entry" : self.matches("^\\s|\\s$") ? "a delegation begins and ends without white space: remove it" : self in ["root", "timestamp", "snapshot"] ? "root, timestamp and snapshot sign no targets: name a delegation, or targets itself" : self.matches("(^|/)[.]{0,2}(/|$)") || self.contains("\\") ? "the name of a delegation has an empty path element, one of dots, or a backslash: such a delegation is never read" : ""`
type TUFDelegationName string
