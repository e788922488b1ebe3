package v1alpha1

// SigstoreSpec describes the signatures that cosign makes: who signs for which role, and where the
// signatures are.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.signatureRepository) || !self.signatureRepository.contains("PRIVATE KEY")`,fieldPath=".signatureRepository",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`!has(self.signatureRepository) || self.signatureRepository.contains("PRIVATE KEY") || !self.signatureRepository.contains("@")`,fieldPath=".signatureRepository",message="signatureRepository takes no digest, user or '@': write a registry host and a path, as in registry.example.com/acme/signatures"
type SigstoreSpec struct {
	// Roles say which keys sign for each role. A role that is not listed is never proven by this
	// trust root.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Roles []SigstoreRole `json:"roles,omitempty"`

	// SignedRepository says whether a signature must name the repository of the image: Ignore, or
	// Match to count only signatures that name it, after IdentityRemap. With Ignore, a signature
	// counts for a copy of the image in any repository. Default Ignore.
	// +optional
	// +default="Ignore"
	SignedRepository SignedRepository `json:"signedRepository,omitempty"`

	// SignatureRepository is the repository that has the signatures of all images, as in
	// registry.example.com/acme/signatures. Without it, the operator looks for signatures in the
	// repository of the image.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule=`(self.matches("PRIVATE KEY|@") ? "" : self == "" ? "signatureRepository cannot be empty: write a repository such as registry.example.com/acme/signatures" : self.matches("\\s") ? "signatureRepository has no white space: remove it" : self.contains("://") ? "drop https:// or what else ends in '://': signatureRepository begins with the registry host, as in registry.example.com/acme/signatures" : self.matches("[A-Z]") ? "write signatureRepository in lower case" : !self.matches("^[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$") ? "signatureRepository is a registry host and a path, without a tag, as in registry.example.com/acme/signatures" : "") == ""`,messageExpression=`self.matches("PRIVATE KEY|@") ? "" : self == "" ? "signatureRepository cannot be empty: write a repository such as registry.example.com/acme/signatures" : self.matches("\\s") ? "signatureRepository has no white space: remove it" : self.contains("://") ? "drop https:// or what else ends in '://': signatureRepository begins with the registry host, as in registry.example.com/acme/signatures" : self.matches("[A-Z]") ? "write signatureRepository in lower case" : !self.matches("^[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$") ? "signatureRepository is a registry host and a path, without a tag, as in registry.example.com/acme/signatures" : ""`
	SignatureRepository string `json:"signatureRepository,omitempty"`
}

// SigstoreRole says which keys sign for a role, and how many of them must have signed.
//
// +kubebuilder:validation:XValidation:rule="has(self.keys) || has(self.keysFrom)",message="a role needs at least one of keys and keysFrom"
// +kubebuilder:validation:XValidation:rule=`!self.name.contains("PRIVATE KEY")`,fieldPath=".name",message="there is a private key in this field: remove it, and keep it out of the cluster"
type SigstoreRole struct {
	// Name is the name of the role in policies.
	// +required
	Name RoleName `json:"name,omitempty"`

	// Threshold is how many distinct keys of the role must have signed. Default 1.
	// +optional
	// +default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	Threshold int32 `json:"threshold,omitempty"`

	// Keys are public keys, or certificates of which only the key counts: ECDSA on P-256, P-384 or
	// P-521, RSA of 2048 to 8192 bits, or Ed25519. Each of them may sign for the role.
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
	// +kubebuilder:validation:MaxItems=32
	KeysFrom []KeySource `json:"keysFrom,omitempty"`
}

// SignedRepository says whether the repository that a signature names is compared.
//
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule=`self in ["Ignore", "Match"]`,message="signedRepository must be Ignore or Match"
type SignedRepository string

// The values of SignedRepository.
const (
	SignedRepositoryIgnore SignedRepository = "Ignore"
	SignedRepositoryMatch  SignedRepository = "Match"
)
