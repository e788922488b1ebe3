package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SigstoreSpec describes the signatures that cosign makes: who signs for which role, and where the
// signatures are.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.signatureRepository) || !self.signatureRepository.contains("PRIVATE KEY")`,fieldPath=".signatureRepository",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`!has(self.signatureRepository) || self.signatureRepository.contains("PRIVATE KEY") || !self.signatureRepository.contains("@")`,fieldPath=".signatureRepository",message="signatureRepository takes no digest, user or '@': write a registry host and a path, as in registry.example.com/acme/signatures"
// +kubebuilder:validation:XValidation:rule="has(self.trustedRoot) || self.roles.all(r, !has(r.identities))",fieldPath=".trustedRoot",message="trustedRoot is required where a role has identities: it says which certificate authorities, logs and timestamp authorities are trusted; set from or tuf"
// +kubebuilder:validation:XValidation:rule="has(self.trustedRoot) || !has(self.transparencyLog) || self.transparencyLog != 'Require'",fieldPath=".trustedRoot",message="trustedRoot is required with transparencyLog: Require: it says which logs are trusted; set from or tuf"
// +kubebuilder:validation:XValidation:rule="has(self.trustedRoot) || self.roles.all(r, !has(r.attestation) || !has(r.attestation.maxAge))",fieldPath=".trustedRoot",message="trustedRoot is required where an attestation has maxAge: it says which logs and timestamp authorities are trusted; set from or tuf"
type SigstoreSpec struct {
	// Roles say which keys and identities sign for each role. A role that is not listed is never
	// proven by this trust root.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Roles []SigstoreRole `json:"roles,omitempty"`

	// TrustedRoot says which certificate authorities, transparency logs and timestamp authorities
	// are trusted. It is required where a role has identities, where an attestation has MaxAge, and
	// with TransparencyLog Require.
	// +optional
	TrustedRoot *SigstoreTrustedRoot `json:"trustedRoot,omitempty"`

	// TransparencyLog says which signatures need an entry in a transparency log of TrustedRoot.
	// With Require, every signature needs one. With Ignore, none does, and a signature by an
	// identity needs a signed timestamp. Without a value, a signature by an identity needs a log
	// entry or a signed timestamp, and a signature by a key needs neither.
	// +optional
	TransparencyLog TransparencyLog `json:"transparencyLog,omitempty"`

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

// SigstoreRole says which keys and identities sign for a role, and how many of them must have
// signed.
//
// +kubebuilder:validation:XValidation:rule="has(self.keys) || has(self.keysFrom) || has(self.identities)",message="a role needs at least one of keys, keysFrom and identities"
// +kubebuilder:validation:XValidation:rule=`!self.name.contains("PRIVATE KEY")`,fieldPath=".name",message="there is a private key in this field: remove it, and keep it out of the cluster"
type SigstoreRole struct {
	// Name is the name of the role in policies.
	// +required
	Name RoleName `json:"name,omitempty"`

	// Threshold is how many distinct keys and identities of the role must have signed. Default 1.
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

	// Identities are issuers and subjects of certificates. Each of them may sign for the role.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Identities []SigstoreIdentity `json:"identities,omitempty"`

	// Attestation proves the role by an attestation, which keys or identities of the role have
	// signed, instead of a signature.
	// +optional
	Attestation *SigstoreAttestation `json:"attestation,omitempty"`
}

// SigstoreIdentity is who a certificate of a Sigstore CA may be issued to.
//
// +kubebuilder:validation:XValidation:rule="has(self.issuer) != has(self.issuerRegExp)",message="exactly one of issuer and issuerRegExp must be set"
// +kubebuilder:validation:XValidation:rule="has(self.subject) != has(self.subjectRegExp)",message="exactly one of subject and subjectRegExp must be set"
// +kubebuilder:validation:XValidation:rule=`!has(self.issuer) || !self.issuer.contains("PRIVATE KEY")`,fieldPath=".issuer",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`!has(self.issuerRegExp) || !self.issuerRegExp.contains("PRIVATE KEY")`,fieldPath=".issuerRegExp",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`!has(self.subject) || !self.subject.contains("PRIVATE KEY")`,fieldPath=".subject",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`!has(self.subjectRegExp) || !self.subjectRegExp.contains("PRIVATE KEY")`,fieldPath=".subjectRegExp",message="there is a private key in this field: remove it, and keep it out of the cluster"
type SigstoreIdentity struct {
	// Issuer is the OpenID Connect provider that authenticated the signer, compared exactly.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self == "" ? "issuer cannot be empty: write the URL of the OpenID Connect provider" : self.matches("^\\s|\\s$") ? "issuer begins or ends with white space: remove it" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self == "" ? "issuer cannot be empty: write the URL of the OpenID Connect provider" : self.matches("^\\s|\\s$") ? "issuer begins or ends with white space: remove it" : ""`
	Issuer string `json:"issuer,omitempty"`

	// IssuerRegExp is a regular expression (RE2) that must match the whole issuer.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self == "" ? "issuerRegExp cannot be empty: write an expression that matches the whole issuer" : self.matches("^\\s|\\s$") ? "issuerRegExp begins or ends with white space: remove it" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self == "" ? "issuerRegExp cannot be empty: write an expression that matches the whole issuer" : self.matches("^\\s|\\s$") ? "issuerRegExp begins or ends with white space: remove it" : ""`
	IssuerRegExp string `json:"issuerRegExp,omitempty"`

	// Subject is the subject alternative name of the certificate, compared exactly: a URI
	// such as that of a workflow, an email address or a user name.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self == "" ? "subject cannot be empty: write the URI or email address in the certificate" : self.matches("^\\s|\\s$") ? "subject begins or ends with white space: remove it" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self == "" ? "subject cannot be empty: write the URI or email address in the certificate" : self.matches("^\\s|\\s$") ? "subject begins or ends with white space: remove it" : ""`
	Subject string `json:"subject,omitempty"`

	// SubjectRegExp is a regular expression (RE2) that must match the whole subject.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self == "" ? "subjectRegExp cannot be empty: write an expression that matches the whole subject" : self.matches("^\\s|\\s$") ? "subjectRegExp begins or ends with white space: remove it" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self == "" ? "subjectRegExp cannot be empty: write an expression that matches the whole subject" : self.matches("^\\s|\\s$") ? "subjectRegExp begins or ends with white space: remove it" : ""`
	SubjectRegExp string `json:"subjectRegExp,omitempty"`
}

// SigstoreAttestation says which attestation proves a role.
//
// +kubebuilder:validation:XValidation:rule=`!self.predicateType.contains("PRIVATE KEY")`,fieldPath=".predicateType",message="there is a private key in this field: remove it, and keep it out of the cluster"
type SigstoreAttestation struct {
	// PredicateType is the type of the predicate, compared exactly:
	// https://slsa.dev/provenance/v1.
	// +required
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self == "" ? "predicateType cannot be empty: write the type of the predicate, as in https://slsa.dev/provenance/v1" : self.matches("\\s") ? "predicateType has no white space: remove it" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self == "" ? "predicateType cannot be empty: write the type of the predicate, as in https://slsa.dev/provenance/v1" : self.matches("\\s") ? "predicateType has no white space: remove it" : ""`
	PredicateType string `json:"predicateType,omitempty"`

	// Conditions are expressions in CEL, all of which must be true. Their variables are statement,
	// the whole in-toto statement, and predicate, the predicate in it.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=2048
	// +kubebuilder:validation:items:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self.matches("^\\s*$") ? "a condition cannot be empty: write an expression, or remove the entry" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self.matches("^\\s*$") ? "a condition cannot be empty: write an expression, or remove the entry" : ""`
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	Conditions []string `json:"conditions,omitempty"`

	// MaxAge is how old the attestation may be, by the time that a transparency log or a timestamp
	// authority has signed. Without it, an attestation of any age counts. From 1m to 87600h.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1m') && duration(self) <= duration('87600h')",message="maxAge must be a duration such as 12h or 720h, from 1m to 87600h"
	MaxAge metav1.Duration `json:"maxAge,omitzero"`
}

// SigstoreTrustedRoot says where the trusted root of a Sigstore instance comes from.
//
// +kubebuilder:validation:XValidation:rule="has(self.from) != has(self.tuf)",message="exactly one of from and tuf must be set"
type SigstoreTrustedRoot struct {
	// From reads the trusted root, a trusted_root.json, from an object in the operator's namespace.
	// +optional
	From *KeySource `json:"from,omitempty"`

	// TUF fetches the trusted root from a TUF repository, and refreshes it. An empty object means
	// the public instance of Sigstore.
	// +optional
	TUF *SigstoreTUF `json:"tuf,omitempty"`
}

// SigstoreTUF is a TUF repository with the trusted root of a Sigstore instance.
//
// +kubebuilder:validation:XValidation:rule="!has(self.caBundle) || !has(self.caBundleFrom)",message="at most one of caBundle and caBundleFrom may be set"
// +kubebuilder:validation:XValidation:rule=`!has(self.caBundle) || !self.caBundle.contains("PRIVATE KEY")`,fieldPath=".caBundle",message="this holds a private key; give certificates only"
// +kubebuilder:validation:XValidation:rule=`!has(self.mirror) || !self.mirror.contains("PRIVATE KEY")`,fieldPath=".mirror",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`!has(self.mirror) || self.mirror.contains("PRIVATE KEY") || !self.mirror.matches("[@?#]")`,fieldPath=".mirror",message="mirror takes no user, query, fragment or '@': write the base URL of the TUF repository"
type SigstoreTUF struct {
	// Mirror is the base URL of the TUF repository. Without it, the operator uses that of the
	// public instance.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") || self.matches("[@?#]") ? "" : self == "" ? "mirror cannot be empty: write a URL such as https://tuf.example.com, or remove the field" : self.matches("\\s") ? "mirror has no white space: remove it" : !(isURL(self) && self.matches("^https://[^/]+(/.*)?$")) ? "mirror must be an https:// URL such as https://tuf.example.com" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") || self.matches("[@?#]") ? "" : self == "" ? "mirror cannot be empty: write a URL such as https://tuf.example.com, or remove the field" : self.matches("\\s") ? "mirror has no white space: remove it" : !(isURL(self) && self.matches("^https://[^/]+(/.*)?$")) ? "mirror must be an https:// URL such as https://tuf.example.com" : ""`
	Mirror string `json:"mirror,omitempty"`

	// CABundle are PEM certificates. The mirror's TLS certificate must chain to one of them.
	// Without a bundle, the operator uses the CAs of its system.
	// +optional
	CABundle RegistryCABundle `json:"caBundle,omitempty"`

	// CABundleFrom reads the bundle from an object in the operator's namespace instead.
	// +optional
	CABundleFrom *KeySource `json:"caBundleFrom,omitempty"`

	// RootFrom reads the initial root.json of the TUF repository from an object in the operator's
	// namespace. Without it, the operator uses that of the public instance, which it has built in.
	// +optional
	RootFrom *KeySource `json:"rootFrom,omitempty"`
}

// TransparencyLog says which signatures need an entry in a transparency log.
//
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule=`self in ["Require", "Ignore"]`,message="transparencyLog must be Require or Ignore"
type TransparencyLog string

// The values of TransparencyLog.
const (
	TransparencyLogRequire TransparencyLog = "Require"
	TransparencyLogIgnore  TransparencyLog = "Ignore"
)

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
