package v1alpha1

// SimpleSigningSpec describes images signed with GPG (simple signing): who signs for which role,
// where the signatures are, and which name a signature must have.
//
// +kubebuilder:validation:XValidation:rule="!has(self.lookasideCABundle) || !has(self.lookasideCABundleFrom)",message="at most one of lookasideCABundle and lookasideCABundleFrom may be set"
// +kubebuilder:validation:XValidation:rule="has(self.lookaside) || !(has(self.lookasideCABundle) || has(self.lookasideCABundleFrom))",message="lookasideCABundle and lookasideCABundleFrom apply to lookaside: set it, or remove the CA bundle. The CAs of a registry are in spec.registries"
// +kubebuilder:validation:XValidation:rule=`!has(self.lookaside) || !self.lookaside.contains("PRIVATE KEY")`,fieldPath=".lookaside",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`!has(self.lookaside) || self.lookaside.contains("PRIVATE KEY") || !self.lookaside.contains("@")`,fieldPath=".lookaside",message="lookaside takes no user, password or '@': the operator reads it without credentials"
// +kubebuilder:validation:XValidation:rule=`!has(self.lookasideCABundle) || !self.lookasideCABundle.contains("PRIVATE KEY")`,fieldPath=".lookasideCABundle",message="this holds a private key; give certificates only"
type SimpleSigningSpec struct {
	// Roles say which OpenPGP keys sign for each role. A role that is not listed is never proven by
	// this trust root.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Roles []SimpleSigningRole `json:"roles,omitempty"`

	// Lookaside is the https URL below which the signatures are, as lookaside of
	// containers-registries.d(5): the operator reads LOOKASIDE/PATH@sha256=DIGEST/signature-1 and
	// so on, with the path of the repository without its host. It sends no credentials there.
	// Without Lookaside, the operator reads the signature extension of the image registry
	// (X-Registry-Supports-Signatures).
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule=`(self.matches("PRIVATE KEY|@") ? "" : self == "" ? "lookaside cannot be empty: write a URL such as https://sigs.example.com/containers" : self.matches("\\s") ? "lookaside has no white space: remove it" : self.matches("[?#]") ? "lookaside takes no query or fragment: remove what begins with '?' or '#'" : !self.contains("://") ? "write https:// before the host, as in https://sigs.example.com/containers" : !(isURL(self) && self.matches("^https://[^/]+(/.*)?$")) ? "lookaside must be an https:// URL such as https://sigs.example.com/containers" : "") == ""`,messageExpression=`self.matches("PRIVATE KEY|@") ? "" : self == "" ? "lookaside cannot be empty: write a URL such as https://sigs.example.com/containers" : self.matches("\\s") ? "lookaside has no white space: remove it" : self.matches("[?#]") ? "lookaside takes no query or fragment: remove what begins with '?' or '#'" : !self.contains("://") ? "write https:// before the host, as in https://sigs.example.com/containers" : !(isURL(self) && self.matches("^https://[^/]+(/.*)?$")) ? "lookaside must be an https:// URL such as https://sigs.example.com/containers" : ""`
	Lookaside string `json:"lookaside,omitempty"`

	// LookasideCABundle are PEM certificates. The TLS certificate of the lookaside server must
	// chain to one of them. Without a bundle, the operator uses the CAs of its system.
	// +optional
	LookasideCABundle RegistryCABundle `json:"lookasideCABundle,omitempty"`

	// LookasideCABundleFrom reads the bundle from an object in the operator's namespace instead.
	// +optional
	LookasideCABundleFrom *KeySource `json:"lookasideCABundleFrom,omitempty"`

	// SignedIdentity says which name a signature must have for an image, by the rules of
	// containers-policy.json(5). Default MatchRepoDigestOrExact.
	// +optional
	SignedIdentity *SignedIdentity `json:"signedIdentity,omitempty"`
}

// SimpleSigningRole says which OpenPGP keys sign for a role, and how many of them must have signed.
//
// +kubebuilder:validation:XValidation:rule="has(self.keys) || has(self.keysFrom)",message="a role needs at least one of keys and keysFrom"
// +kubebuilder:validation:XValidation:rule=`!self.name.contains("PRIVATE KEY")`,fieldPath=".name",message="there is a private key in this field: remove it, and keep it out of the cluster"
type SimpleSigningRole struct {
	// Name is the name of the role in policies.
	// +required
	Name RoleName `json:"name,omitempty"`

	// Threshold is how many distinct keys of the role must have signed. A primary key and its
	// subkeys count as one. Default 1.
	// +optional
	// +default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	Threshold int32 `json:"threshold,omitempty"`

	// Keys are armored OpenPGP public keys, as "gpg --armor --export" prints them: one or several
	// in each entry. A primary key and its subkeys may sign for the role if their flags allow them
	// to sign.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:rule=`self.all(x, x.startsWith("-----BEGIN PGP PUBLIC KEY BLOCK-----"))`,message="expected armored OpenPGP keys, each beginning with '-----BEGIN PGP PUBLIC KEY BLOCK-----', as 'gpg --armor --export' prints them"
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="this is a private key; give the public key, as 'gpg --armor --export' prints it, and keep the private key out of the cluster"
	Keys []OpenPGPKey `json:"keys,omitempty"`

	// KeysFrom reads such keys from objects in the operator's namespace, armored or binary. A
	// binary key is in binaryData of a ConfigMap, or in a Secret.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	KeysFrom []KeySource `json:"keysFrom,omitempty"`
}

// OpenPGPKey are armored OpenPGP public keys of at most 8 KiB. KeysFrom takes more.
//
// +kubebuilder:validation:MaxLength=8192
type OpenPGPKey string

// SignedIdentity is a rule for the name in a signature (docker-reference).
//
// +kubebuilder:validation:XValidation:rule="has(self.reference) == (self.type == 'ExactReference')",message="reference must be set for type ExactReference, and for no other type"
// +kubebuilder:validation:XValidation:rule="has(self.repository) == (self.type == 'ExactRepository')",message="repository must be set for type ExactRepository, and for no other type"
// +kubebuilder:validation:XValidation:rule="has(self.prefix) == (self.type == 'RemapIdentity') && has(self.signedPrefix) == (self.type == 'RemapIdentity')",message="prefix and signedPrefix must be set for type RemapIdentity, and for no other type"
// +kubebuilder:validation:XValidation:rule=`!has(self.reference) || !self.reference.contains("PRIVATE KEY")`,fieldPath=".reference",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`!has(self.repository) || !self.repository.contains("PRIVATE KEY")`,fieldPath=".repository",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`!has(self.prefix) || !self.prefix.contains("PRIVATE KEY")`,fieldPath=".prefix",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`!has(self.signedPrefix) || !self.signedPrefix.contains("PRIVATE KEY")`,fieldPath=".signedPrefix",message="there is a private key in this field: remove it, and keep it out of the cluster"
type SignedIdentity struct {
	// Type is the rule. MatchRepoDigestOrExact: for an image with a tag, the repository and the tag
	// of the signature must be those of the image; for one with a digest alone, the repository.
	// MatchExact: the whole reference. MatchRepository: the repository, with any tag.
	// ExactReference: the reference of the signature must be Reference. ExactRepository: its
	// repository must be Repository. RemapIdentity: as MatchRepoDigestOrExact, with Prefix replaced
	// by SignedPrefix at the beginning of the image's name. Default MatchRepoDigestOrExact.
	// +optional
	// +default="MatchRepoDigestOrExact"
	Type SignedIdentityType `json:"type,omitempty"`

	// Reference is a repository with a tag or a digest, as in registry.example.com/acme/app:v1. For
	// ExactReference.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Reference string `json:"reference,omitempty"`

	// Repository is a repository without a tag, as in registry.example.com/acme/app. For
	// ExactRepository.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Repository string `json:"repository,omitempty"`

	// Prefix is a registry host, or a host and a path, without a final "/". It matches whole path
	// segments. For RemapIdentity.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Prefix string `json:"prefix,omitempty"`

	// SignedPrefix replaces Prefix. It has the same form. For RemapIdentity.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	SignedPrefix string `json:"signedPrefix,omitempty"`
}

// SignedIdentityType is a rule of containers-policy.json(5).
//
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule=`self in ["MatchRepoDigestOrExact", "MatchExact", "MatchRepository", "ExactReference", "ExactRepository", "RemapIdentity"]`,message="type must be MatchRepoDigestOrExact, MatchExact, MatchRepository, ExactReference, ExactRepository or RemapIdentity"
type SignedIdentityType string

// The values of SignedIdentityType.
const (
	SignedIdentityMatchRepoDigestOrExact SignedIdentityType = "MatchRepoDigestOrExact"
	SignedIdentityMatchExact             SignedIdentityType = "MatchExact"
	SignedIdentityMatchRepository        SignedIdentityType = "MatchRepository"
	SignedIdentityExactReference         SignedIdentityType = "ExactReference"
	SignedIdentityExactRepository        SignedIdentityType = "ExactRepository"
	SignedIdentityRemapIdentity          SignedIdentityType = "RemapIdentity"
)
