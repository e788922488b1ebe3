package v1alpha1

// NotationSpec describes the signatures that notation makes: whose certificates sign for which
// role, and how the certificates are checked.
//
// +kubebuilder:validation:XValidation:rule="!has(self.timestampAuthorities) || !has(self.timestampAuthoritiesFrom)",message="at most one of timestampAuthorities and timestampAuthoritiesFrom may be set"
// +kubebuilder:validation:XValidation:rule=`!has(self.timestampAuthorities) || !self.timestampAuthorities.contains("PRIVATE KEY")`,fieldPath=".timestampAuthorities",message="this holds a private key; give certificates only"
type NotationSpec struct {
	// Roles say whose certificates sign for each role. A role that is not listed is never proven by
	// this trust root.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Roles []NotationRole `json:"roles,omitempty"`

	// Revocation says whether the operator checks, by OCSP and CRL, that no certificate of a
	// signature is revoked: Enforce, or Skip. With Enforce, a failed check is "could not check".
	// Default Enforce.
	// +optional
	// +default="Enforce"
	Revocation RevocationCheck `json:"revocation,omitempty"`

	// TimestampAuthorities are PEM certificates of the CAs of RFC 3161 timestamp authorities. A
	// signature with a timestamp counts if its certificates were valid at that time. Without a
	// timestamp, or without authorities, the certificates must be valid now.
	// +optional
	TimestampAuthorities TimestampBundle `json:"timestampAuthorities,omitempty"`

	// TimestampAuthoritiesFrom reads these from an object in the operator's namespace instead.
	// +optional
	TimestampAuthoritiesFrom *KeySource `json:"timestampAuthoritiesFrom,omitempty"`
}

// NotationRole says whose certificates sign for a role, and how many keys must have signed.
//
// +kubebuilder:validation:XValidation:rule="has(self.certificates) || has(self.certificatesFrom)",message="a role needs at least one of certificates and certificatesFrom"
// +kubebuilder:validation:XValidation:rule=`!self.name.contains("PRIVATE KEY")`,fieldPath=".name",message="there is a private key in this field: remove it, and keep it out of the cluster"
type NotationRole struct {
	// Name is the name of the role in policies.
	// +required
	Name RoleName `json:"name,omitempty"`

	// Threshold is how many distinct keys must have signed, each with a certificate of the role.
	// Default 1.
	// +optional
	// +default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	Threshold int32 `json:"threshold,omitempty"`

	// Certificates are the role's trust store: CA certificates, or a signing certificate that is
	// self-signed. The chain of a signature must contain one of them. An entry may hold several.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="this is a private key; give the certificate, and keep the private key out of the cluster"
	Certificates []PEM `json:"certificates,omitempty"`

	// CertificatesFrom reads such certificates from objects in the operator's namespace.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	CertificatesFrom []KeySource `json:"certificatesFrom,omitempty"`

	// Identities say which certificates of these CAs may sign for the role: those whose subject has
	// each attribute of an entry, as in C=US,ST=WA,O=acme,CN=qa. The single entry * accepts every
	// certificate.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	// +kubebuilder:validation:XValidation:rule=`!("*" in self) || size(self) == 1`,message="* accepts every certificate of these CAs: let it stand alone, or remove it"
	Identities []CertificateSubject `json:"identities,omitempty"`
}

// CertificateSubject names attributes of a certificate's subject as RFC 4514 writes them, or is *.
//
// +kubebuilder:validation:MaxLength=512
// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") || self == "*" ? "" : self == "" ? "an identity cannot be empty: write attributes of the subject, such as C=US,ST=WA,O=acme,CN=qa, or * for every certificate" : self.startsWith("x509.subject:") ? "drop the prefix x509.subject: and write C=US,ST=WA,O=acme,CN=qa" : !self.matches("^[ ]*[A-Za-z0-9.]+[ ]*=") ? "an identity is a list of attributes of the subject, such as C=US,ST=WA,O=acme,CN=qa" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") || self == "*" ? "" : self == "" ? "an identity cannot be empty: write attributes of the subject, such as C=US,ST=WA,O=acme,CN=qa, or * for every certificate" : self.startsWith("x509.subject:") ? "drop the prefix x509.subject: and write C=US,ST=WA,O=acme,CN=qa" : !self.matches("^[ ]*[A-Za-z0-9.]+[ ]*=") ? "an identity is a list of attributes of the subject, such as C=US,ST=WA,O=acme,CN=qa" : ""`
type CertificateSubject string

// TimestampBundle is a sequence of PEM certificates of timestamp authorities.
//
// +kubebuilder:validation:MaxLength=65536
// +kubebuilder:validation:XValidation:rule="self.contains('-----BEGIN CERTIFICATE-----') || self.contains('PRIVATE KEY')",message="expected PEM certificates, each beginning with '-----BEGIN CERTIFICATE-----'"
type TimestampBundle string

// RevocationCheck says whether certificates are checked for revocation.
//
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule=`self in ["Enforce", "Skip"]`,message="revocation must be Enforce or Skip"
type RevocationCheck string

// The values of RevocationCheck.
const (
	RevocationEnforce RevocationCheck = "Enforce"
	RevocationSkip    RevocationCheck = "Skip"
)
