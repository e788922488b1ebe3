package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TrustRootSpec says where signatures come from and which keys may sign for which role. It is a
// union of the signature formats: exactly one variant is set.
//
// +kubebuilder:validation:XValidation:rule="[has(self.notary), has(self.sigstore), has(self.notation), has(self.simpleSigning), has(self.tuf)].exists_one(x, x)",message="exactly one format must be set: notary, sigstore, notation, simpleSigning or tuf"
// +kubebuilder:validation:XValidation:rule="!has(self.expiredGrace) || has(self.notary) || has(self.tuf)",message="expiredGrace applies to notary and tuf: other signatures end by themselves, or not at all; remove expiredGrace"
// +kubebuilder:validation:XValidation:rule="!has(self.registries) || !(has(self.notary) || has(self.tuf))",message="registries applies to sigstore, notation and simpleSigning: notary and tuf read no image registry; remove registries"
// +kubebuilder:validation:XValidation:rule="!has(self.resolveInterval) || !(has(self.notary) || has(self.tuf))",message="resolveInterval applies to sigstore, notation and simpleSigning: notary and tuf read no image registry; remove resolveInterval"
// +kubebuilder:validation:XValidation:rule="!has(self.identityRemap) || !has(self.simpleSigning) || !has(self.simpleSigning.signedIdentity) || self.simpleSigning.signedIdentity.type != 'RemapIdentity'",message="identityRemap and simpleSigning.signedIdentity of type RemapIdentity both map names; remove one of them"
// +kubebuilder:validation:XValidation:rule="has(self.simpleSigning) || !has(self.revokedKeys) || self.revokedKeys.all(x, size(x) != 40)",fieldPath=".revokedKeys",message="a key ID of 40 digits is the fingerprint of an OpenPGP key, which applies to simpleSigning alone; write the 64 digits of the format's own key ID"
type TrustRootSpec struct {
	// RefreshInterval is how often the operator refreshes the metadata or signatures of each
	// tracked repository, with jitter. Default 5m, from 30s to 24h.
	// +optional
	// +default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('30s') && duration(self) <= duration('24h')",message="refreshInterval must be a duration such as 90s, 5m or 1h30m, from 30s to 24h"
	RefreshInterval metav1.Duration `json:"refreshInterval,omitzero"`

	// ExpiredGrace is how long metadata stays in use after its expiry while the signing server is
	// unavailable. It applies only to metadata that was verified before it expired. Metadata that
	// is expired when it is fetched has no grace. Only for notary and tuf. Default 0, up to 720h.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) <= duration('720h')",message="expiredGrace must be a duration such as 12h or 72h, up to 720h"
	ExpiredGrace metav1.Duration `json:"expiredGrace,omitzero"`

	// IdentityRemap maps the repository from which an image is pulled to the repository under which
	// it is signed, for images from a mirror. If several prefixes match, the longest applies. If
	// none matches, the name stays the same.
	// +optional
	// +listType=map
	// +listMapKey=prefix
	// +kubebuilder:validation:MaxItems=64
	IdentityRemap []IdentityRemap `json:"identityRemap,omitempty"`

	// ResolveInterval is for how long the answer of an image registry about a tag counts. After
	// that, a request waits for a new answer. With 0s every request does. Only for
	// sigstore, notation and simpleSigning. Default 10s, up to 1h.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) <= duration('1h')",message="resolveInterval must be a duration such as 0s, 10s or 5m, up to 1h"
	ResolveInterval *metav1.Duration `json:"resolveInterval,omitempty"`

	// Registries are the settings of image registries. The operator reads a registry that is not
	// listed over https, with the CAs of its system and without credentials. Only for
	// sigstore, notation and simpleSigning.
	// +optional
	// +listType=map
	// +listMapKey=host
	// +kubebuilder:validation:MaxItems=32
	Registries []Registry `json:"registries,omitempty"`

	// Notary describes a Notary v1 server (Docker Content Trust).
	// +optional
	Notary *NotarySpec `json:"notary,omitempty"`

	// Sigstore describes the keys that sign images with cosign, and where the signatures are.
	// +optional
	Sigstore *SigstoreSpec `json:"sigstore,omitempty"`

	// Notation describes whose certificates sign images with notation, of the Notary Project.
	// +optional
	Notation *NotationSpec `json:"notation,omitempty"`

	// SimpleSigning describes the OpenPGP keys that sign images with GPG, and where the signatures
	// are.
	// +optional
	SimpleSigning *SimpleSigningSpec `json:"simpleSigning,omitempty"`

	// TUF describes repositories of The Update Framework whose targets are images.
	// +optional
	TUF *TUFSpec `json:"tuf,omitempty"`

	// RevokedKeys are IDs of keys that no longer count for any role. For notary they are canonical
	// key IDs, which no longer count even if the signed metadata lists them. For tuf they are TUF
	// key IDs. For sigstore and notation they are the SHA-256 of the public key (DER,
	// SubjectPublicKeyInfo), of every certificate of a chain. For simpleSigning they are
	// fingerprints of primary keys, with all of their subkeys, or of single subkeys.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	RevokedKeys []KeyID `json:"revokedKeys,omitempty"`
}

// IdentityRemap replaces Prefix by SignedPrefix at the start of a repository. Both end in "/".
//
// +kubebuilder:validation:XValidation:rule=`!self.prefix.contains("PRIVATE KEY")`,fieldPath=".prefix",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`!self.signedPrefix.contains("PRIVATE KEY")`,fieldPath=".signedPrefix",message="there is a private key in this field: remove it, and keep it out of the cluster"
type IdentityRemap struct {
	// Prefix is the beginning of the repository that is pulled: a registry host, optional path
	// segments and a final "/".
	// +required
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self == "" ? "prefix cannot be empty: write a registry host that ends in '/', as in mirror.example.com/" : self.matches("\\s") ? "prefix has no white space: remove it" : self.contains("://") ? "drop https:// or what else ends in '://': prefix begins with the registry host, as in mirror.example.com/" : self.matches("[A-Z]") ? "write prefix in lower case" : !self.endsWith("/") ? "end prefix with a '/', as in mirror.example.com/" : !self.matches("^[a-z0-9][a-z0-9.:-]*/([a-z0-9._-]+/)*$") ? "prefix is a registry host, perhaps with path segments, and ends in '/', as in mirror.example.com/" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self == "" ? "prefix cannot be empty: write a registry host that ends in '/', as in mirror.example.com/" : self.matches("\\s") ? "prefix has no white space: remove it" : self.contains("://") ? "drop https:// or what else ends in '://': prefix begins with the registry host, as in mirror.example.com/" : self.matches("[A-Z]") ? "write prefix in lower case" : !self.endsWith("/") ? "end prefix with a '/', as in mirror.example.com/" : !self.matches("^[a-z0-9][a-z0-9.:-]*/([a-z0-9._-]+/)*$") ? "prefix is a registry host, perhaps with path segments, and ends in '/', as in mirror.example.com/" : ""`
	Prefix string `json:"prefix,omitempty"`

	// SignedPrefix replaces Prefix in the name of the signed repository. It has a final "/".
	// +required
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self == "" ? "signedPrefix cannot be empty: write a registry host that ends in '/', as in docker.io/" : self.matches("\\s") ? "signedPrefix has no white space: remove it" : self.contains("://") ? "drop https:// or what else ends in '://': signedPrefix begins with the registry host, as in docker.io/" : self.matches("[A-Z]") ? "write signedPrefix in lower case" : !self.endsWith("/") ? "end signedPrefix with a '/', as in docker.io/" : !self.matches("^[a-z0-9][a-z0-9.:-]*/([a-z0-9._-]+/)*$") ? "signedPrefix is a registry host, perhaps with path segments, and ends in '/', as in docker.io/" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self == "" ? "signedPrefix cannot be empty: write a registry host that ends in '/', as in docker.io/" : self.matches("\\s") ? "signedPrefix has no white space: remove it" : self.contains("://") ? "drop https:// or what else ends in '://': signedPrefix begins with the registry host, as in docker.io/" : self.matches("[A-Z]") ? "write signedPrefix in lower case" : !self.endsWith("/") ? "end signedPrefix with a '/', as in docker.io/" : !self.matches("^[a-z0-9][a-z0-9.:-]*/([a-z0-9._-]+/)*$") ? "signedPrefix is a registry host, perhaps with path segments, and ends in '/', as in docker.io/" : ""`
	SignedPrefix string `json:"signedPrefix,omitempty"`
}

// KeyID is the lower-case hexadecimal SHA-256 of a key. For notary it is the canonical key ID that
// "docker trust inspect" prints. For sigstore and notation it is the SHA-256 of the
// SubjectPublicKeyInfo, and for tuf the TUF key ID. For simpleSigning it is the fingerprint of an
// OpenPGP key, of 40 digits or of 64.
//
// +kubebuilder:validation:MaxLength=100
// +kubebuilder:validation:XValidation:rule=`(self == "" ? "an empty key ID names no key: remove it" : self.matches("\\s") ? "a key ID has no white space: remove it" : self.matches("^[sS][hH][aA]256:") ? "drop the prefix sha256: before the key ID" : self.matches("[A-F]") && self.matches("^([0-9a-fA-F]{40}|[0-9a-fA-F]{64})$") ? "write the key ID in lower case" : !self.matches("^([0-9a-f]{40}|[0-9a-f]{64})$") ? "a key ID is 64 lower-case hexadecimal digits, or for simpleSigning the 40 of a fingerprint" : "") == ""`,messageExpression=`self == "" ? "an empty key ID names no key: remove it" : self.matches("\\s") ? "a key ID has no white space: remove it" : self.matches("^[sS][hH][aA]256:") ? "drop the prefix sha256: before the key ID" : self.matches("[A-F]") && self.matches("^([0-9a-fA-F]{40}|[0-9a-fA-F]{64})$") ? "write the key ID in lower case" : !self.matches("^([0-9a-f]{40}|[0-9a-f]{64})$") ? "a key ID is 64 lower-case hexadecimal digits, or for simpleSigning the 40 of a fingerprint" : ""`
type KeyID string

// PEM is one PEM document of at most 8 KiB: a public key or a certificate.
//
// +kubebuilder:validation:MaxLength=8192
// +kubebuilder:validation:XValidation:rule="self.contains('-----BEGIN ')",message="expected PEM, beginning with '-----BEGIN PUBLIC KEY-----' or '-----BEGIN CERTIFICATE-----'"
type PEM string

// PEMBundle is a sequence of PEM certificates.
//
// +kubebuilder:validation:MaxLength=262144
// +kubebuilder:validation:XValidation:rule="self.contains('-----BEGIN CERTIFICATE-----') || self.contains('PRIVATE KEY')",message="expected PEM certificates, each beginning with '-----BEGIN CERTIFICATE-----'"
type PEMBundle string

// KeySource names a key of a Secret or ConfigMap in the operator's namespace. The value is PEM, or
// JSON for a trusted root or the root of a TUF repository.
//
// +kubebuilder:validation:XValidation:rule=`!self.name.contains("PRIVATE KEY")`,fieldPath=".name",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`!self.key.contains("PRIVATE KEY")`,fieldPath=".key",message="there is a private key in this field: remove it, and keep it out of the cluster"
type KeySource struct {
	// Kind is Secret or ConfigMap.
	// +required
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule=`self in ["Secret", "ConfigMap"]`,message="kind must be Secret or ConfigMap"
	Kind string `json:"kind,omitempty"`
	// Name is the name of the object.
	// +required
	Name ObjectName `json:"name,omitempty"`
	// Key is the key in the data of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`
}

// SecretReference names a Secret in the operator's namespace.
//
// +kubebuilder:validation:XValidation:rule=`!self.name.contains("PRIVATE KEY")`,fieldPath=".name",message="there is a private key in this field: remove it, and keep it out of the cluster"
type SecretReference struct {
	// Name is the name of the Secret.
	// +required
	Name ObjectName `json:"name,omitempty"`
}

// AnnotationForgetVersions is the annotation of a TrustRoot that makes the operator forget, once
// for each new value, which versions of the metadata it has seen. Administrators set it when a
// server was restored from a backup, or when a stolen key has signed a version that the server
// cannot exceed.
const AnnotationForgetVersions = "countersign.dev/forget-versions"

// TrustRootStatus is the state of a trust root as the operator last observed it.
type TrustRootStatus struct {
	// ObservedGeneration is the generation of the spec that the status describes.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Conditions are Ready, Fresh and Expiring. Ready says whether the trust root can be used,
	// Fresh whether the last refresh of every repository succeeded. Expiring warns of evidence that
	// expires.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Format is the signature format that the spec sets: Notary, Sigstore, Notation,
	// SimpleSigning or TUF.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Format string `json:"format,omitempty"`

	// RootFingerprints are the keys that are trusted, in hexadecimal. For notary they are the key
	// IDs of the pins, and the SHA-256 of each certificate of the CA bundle. For tuf they are the
	// IDs of the root keys. For sigstore and notation they are the SHA-256 of each role's keys, for
	// sigstore also of the root certificates of the authorities by which identities sign, and for
	// simpleSigning the fingerprints of each role's primary keys.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	RootFingerprints []string `json:"rootFingerprints,omitempty"`

	// Repositories counts the repositories that the operator tracks under this trust root.
	// +optional
	Repositories *RepositoryStatus `json:"repositories,omitempty"`

	// Expires is the earliest expiry among the evidence in use, in RFC 3339: of metadata, of a
	// trusted root, for notation of a signature, a certificate or an answer about revocation, or
	// for simpleSigning of a key or signature.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Expires string `json:"expires,omitempty"`

	// ExpiresFirst names the repository, and its file or signature that expires at that time.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	ExpiresFirst string `json:"expiresFirst,omitempty"`

	// LastRefreshTime is when a refresh last succeeded.
	// +optional
	LastRefreshTime *metav1.Time `json:"lastRefreshTime,omitempty"`

	// LastHandledForgetVersions is the last value of the annotation countersign.dev/forget-versions
	// that the operator has handled.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	LastHandledForgetVersions string `json:"lastHandledForgetVersions,omitempty"`
}

// RepositoryStatus counts the repositories of a trust root.
type RepositoryStatus struct {
	// Tracked is how many repositories are known to be signed or needed by running images. While
	// there are none, it is how many the operator has tried to fetch.
	// +required
	Tracked int32 `json:"tracked"`
	// Failing is how many of them failed their last refresh.
	// +required
	Failing int32 `json:"failing"`
	// Errors are the last errors of the first ten failing repositories: those known to be signed
	// first, and then sorted by name.
	// +optional
	// +listType=map
	// +listMapKey=repository
	// +kubebuilder:validation:MaxItems=10
	Errors []RepositoryError `json:"errors,omitempty"`
}

// RepositoryError is the last error of one repository.
type RepositoryError struct {
	// Repository is the name under which the repository is signed.
	// +required
	// +kubebuilder:validation:MaxLength=1024
	Repository string `json:"repository,omitempty"`
	// Reason is the class of the fault.
	// +required
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
	// Message says what went wrong and what to do.
	// +required
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// TrustRoot says where the signatures of roles come from and which keys are trusted.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=troot,categories=countersign
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Format",type=string,JSONPath=`.status.format`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Fresh",type=string,JSONPath=`.status.conditions[?(@.type=="Fresh")].status`
// +kubebuilder:printcolumn:name="Repositories",type=integer,JSONPath=`.status.repositories.tracked`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.expires`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Fresh")].reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Fresh")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type TrustRoot struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says where signatures come from and which keys are trusted.
	// +required
	Spec TrustRootSpec `json:"spec"`
	// Status is the state of the trust root as the operator last observed it.
	// +optional
	Status TrustRootStatus `json:"status,omitempty"`
}

// TrustRootList is a list of TrustRoots.
//
// +kubebuilder:object:root=true
type TrustRootList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrustRoot `json:"items"`
}
