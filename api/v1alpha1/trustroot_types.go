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

// NotarySpec describes a Notary v1 server and the root of trust of its repositories.
//
// +kubebuilder:validation:XValidation:rule="!self.server.startsWith('http://') || (has(self.plainHTTP) && self.plainHTTP == 'Allow')",message="server must be an https:// URL; set plainHTTP: Allow to accept http"
// +kubebuilder:validation:XValidation:rule="!has(self.caBundle) || !has(self.caBundleFrom)",message="at most one of caBundle and caBundleFrom may be set"
// +kubebuilder:validation:XValidation:rule="!has(self.credentialsSecretRef) || !self.server.startsWith('http://')",message="credentials are sent over https only; remove credentialsSecretRef or use an https:// server"
// +kubebuilder:validation:XValidation:rule="!has(self.clientCertificateSecretRef) || !self.server.startsWith('http://')",message="a client certificate is shown over https only; remove clientCertificateSecretRef or use an https:// server"
// +kubebuilder:validation:XValidation:rule=`!has(self.caBundle) || !self.caBundle.contains("PRIVATE KEY")`,fieldPath=".caBundle",message="this holds a private key; give certificates only"
// +kubebuilder:validation:XValidation:rule=`!self.server.contains("PRIVATE KEY")`,fieldPath=".server",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`self.server.contains("PRIVATE KEY") || !self.server.contains("@")`,fieldPath=".server",message="server takes no user, password or '@': put user and password into a Secret, and name it in credentialsSecretRef"
// +kubebuilder:validation:XValidation:rule=`self.server.contains("PRIVATE KEY") || self.server.contains("@") || !self.server.matches("[?#]")`,fieldPath=".server",message="server takes no query or fragment: remove what begins with '?' or '#'"
type NotarySpec struct {
	// Server is the base URL of the Notary server, without the /v2 path.
	// +required
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") || self.matches("[@?#]") ? "" : self == "" ? "server cannot be empty: write a URL such as https://notary.example.com" : self.matches("\\s") ? "server has no white space: remove it" : !self.contains("://") ? "write https:// before the host, as in https://notary.example.com" : self.matches("^[hH][tT][tT][pP][sS]?://") && !self.matches("^https?://") ? "write https:// in lower case" : !(isURL(self) && self.matches("^https?://[^/]+(/.*)?$")) ? "server must be an http(s) URL such as https://notary.example.com" : self.matches("/v2/*$") ? "server is the base URL, below which /v2 lies: drop /v2 from its end" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") || self.matches("[@?#]") ? "" : self == "" ? "server cannot be empty: write a URL such as https://notary.example.com" : self.matches("\\s") ? "server has no white space: remove it" : !self.contains("://") ? "write https:// before the host, as in https://notary.example.com" : self.matches("^[hH][tT][tT][pP][sS]?://") && !self.matches("^https?://") ? "write https:// in lower case" : !(isURL(self) && self.matches("^https?://[^/]+(/.*)?$")) ? "server must be an http(s) URL such as https://notary.example.com" : self.matches("/v2/*$") ? "server is the base URL, below which /v2 lies: drop /v2 from its end" : ""`
	Server string `json:"server,omitempty"`

	// PlainHTTP says whether the operator may connect to the server without TLS: Forbid, or Allow
	// to accept http. Metadata is signed, but over http an attacker on the network can see which
	// images are used and can suppress answers. Default Forbid.
	// +optional
	// +default="Forbid"
	PlainHTTP PlainHTTP `json:"plainHTTP,omitempty"`

	// CABundle are PEM certificates. The server's TLS certificate must chain to one of them.
	// Without a bundle, the operator uses the CAs of its system. It skips a certificate that it
	// cannot parse, and condition Ready names it.
	// +optional
	CABundle PEMBundle `json:"caBundle,omitempty"`

	// CABundleFrom reads the bundle from an object in the operator's namespace instead.
	// +optional
	CABundleFrom *KeySource `json:"caBundleFrom,omitempty"`

	// CredentialsSecretRef names a Secret in the operator's namespace with the keys "username" and
	// "password" (type kubernetes.io/basic-auth). The operator sends them to the server. If the
	// server uses a token service, it sends them there too, provided that the service is on the
	// same host or that TokenServices lists its host.
	// +optional
	CredentialsSecretRef *SecretReference `json:"credentialsSecretRef,omitempty"`

	// ClientCertificateSecretRef names a Secret in the operator's namespace with the keys "tls.crt"
	// and "tls.key" (type kubernetes.io/tls). The operator presents this client certificate if the
	// server requests one. It presents it only to the server's own host and port, never to a token
	// service elsewhere.
	// +optional
	ClientCertificateSecretRef *SecretReference `json:"clientCertificateSecretRef,omitempty"`

	// TokenServices are hosts, other than the server's own, from which the operator may request a
	// token, with or without credentials. Each is a host with its port; 443 may be left out. The
	// server sees the answer of a token service. So the operator requests no token from a host that
	// is not listed, and reports Unauthorized instead.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=255
	// +kubebuilder:validation:items:XValidation:rule=`(self.matches("PRIVATE KEY|@") ? "" : self == "" ? "a token service cannot be empty: write its host, or remove the entry" : self.matches("\\s") ? "a token service has no white space: remove it" : self.contains("://") ? "drop https://: a token service is a host name, with its port if it has one, as in auth.example.com:5001" : self.contains("/") ? "drop the '/' and what follows: a token service is a host name, with its port if it has one" : self.matches("[A-Z]") ? "write the host of a token service in lower case" : !self.matches("^([a-z0-9]([a-z0-9.-]*[a-z0-9])?|[[][0-9a-f:.]+[]])(:[0-9]{1,5})?$") ? "a token service is a host name, with its port if it has one, as in auth.example.com:5001" : "") == ""`,messageExpression=`self.matches("PRIVATE KEY|@") ? "" : self == "" ? "a token service cannot be empty: write its host, or remove the entry" : self.matches("\\s") ? "a token service has no white space: remove it" : self.contains("://") ? "drop https://: a token service is a host name, with its port if it has one, as in auth.example.com:5001" : self.contains("/") ? "drop the '/' and what follows: a token service is a host name, with its port if it has one" : self.matches("[A-Z]") ? "write the host of a token service in lower case" : !self.matches("^([a-z0-9]([a-z0-9.-]*[a-z0-9])?|[[][0-9a-f:.]+[]])(:[0-9]{1,5})?$") ? "a token service is a host name, with its port if it has one, as in auth.example.com:5001" : ""`
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	// +kubebuilder:validation:XValidation:rule=`self.all(x, x.contains("PRIVATE KEY") || !x.contains("@"))`,message="a token service takes no user, password or '@': put user and password into a Secret, and name it in credentialsSecretRef"
	TokenServices []string `json:"tokenServices,omitempty"`

	// Root pins the root of trust. There is no trust on first use, so at least one field must be
	// set. A root is accepted if any of the fields accepts it.
	// +required
	Root NotaryRoot `json:"root,omitzero"`

	// Roles maps a role of a policy to the delegations that sign for it. A role r that is not
	// listed is mapped to the delegation targets/r. By default neither targets nor targets/releases
	// ever counts for a role.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Roles []NotaryRole `json:"roles,omitempty"`
}

// PlainHTTP says whether connections without TLS are allowed.
//
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule=`self in ["Forbid", "Allow"]`,message="plainHTTP must be Forbid or Allow"
type PlainHTTP string

// The values of PlainHTTP.
const (
	PlainHTTPForbid PlainHTTP = "Forbid"
	PlainHTTPAllow  PlainHTTP = "Allow"
)

// NotaryRoot pins the root of trust of the repositories of a Notary server.
//
// +kubebuilder:validation:XValidation:rule="has(self.keys) || has(self.keyIDs) || has(self.keysFrom) || has(self.caBundle) || has(self.caBundleFrom)",message="pin the root with at least one of keys, keysFrom, keyIDs, caBundle and caBundleFrom; there is no trust on first use"
// +kubebuilder:validation:XValidation:rule="!has(self.caBundle) || !has(self.caBundleFrom)",message="at most one of caBundle and caBundleFrom may be set"
// +kubebuilder:validation:XValidation:rule=`!has(self.caBundle) || !self.caBundle.contains("PRIVATE KEY")`,fieldPath=".caBundle",message="this holds a private key; give certificates only"
// +kubebuilder:validation:XValidation:rule="!has(self.keyIDs) || self.keyIDs.all(x, size(x) != 40)",fieldPath=".keyIDs",message="a canonical key ID has 64 digits: one of 40 is the fingerprint of an OpenPGP key"
type NotaryRoot struct {
	// Keys are public keys of the root role, or certificates with such keys. The CA certificates of
	// a chain may follow a certificate and are ignored.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="this is a private key; give the public key or the certificate, and keep the private key out of the cluster"
	Keys []PEM `json:"keys,omitempty"`

	// KeysFrom reads such public keys or certificates from objects in the operator's namespace.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	KeysFrom []KeySource `json:"keysFrom,omitempty"`

	// KeyIDs are canonical IDs of keys of the root role.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	KeyIDs []KeyID `json:"keyIDs,omitempty"`

	// CABundle are PEM certificates. The certificate of a root key must chain to one of them. The
	// operator skips a certificate that it cannot parse or that is not a CA certificate, and
	// condition Ready names it.
	// +optional
	CABundle PEMBundle `json:"caBundle,omitempty"`

	// CABundleFrom reads the bundle from an object in the operator's namespace instead.
	// +optional
	CABundleFrom *KeySource `json:"caBundleFrom,omitempty"`
}

// NotaryRole says which delegations sign for a role, and how many keys must have signed.
//
// +kubebuilder:validation:XValidation:rule="self.name != 'releases' || has(self.delegations)",message="role 'releases' needs delegations: targets/releases is signed by any one of all signers and proves no role"
// +kubebuilder:validation:XValidation:rule=`!self.name.contains("PRIVATE KEY")`,fieldPath=".name",message="there is a private key in this field: remove it, and keep it out of the cluster"
type NotaryRole struct {
	// Name is the name of the role in policies.
	// +required
	Name RoleName `json:"name,omitempty"`

	// Delegations are the Notary roles whose signatures count for this role: delegations such as
	// targets/qa, or "targets" itself if a repository has no delegations. Without them, the
	// delegation is targets/<name>.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	Delegations []DelegationName `json:"delegations,omitempty"`

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

// DelegationName is the name of a Notary role that signs targets.
//
// +kubebuilder:validation:MaxLength=255
// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self == "" ? "a delegation cannot be empty: write targets/ci for the delegation ci, or remove the entry" : self.matches("\\s") ? "a delegation has no white space: remove it" : self == "targets/releases" ? "targets/releases is signed by any one of all signers and proves no role; name the signer's own delegation" : !self.matches("^targets(/[-a-z0-9_]+)*$") ? "a delegation is targets/<name>, in lower-case letters, digits, '-' and '_', or targets itself" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self == "" ? "a delegation cannot be empty: write targets/ci for the delegation ci, or remove the entry" : self.matches("\\s") ? "a delegation has no white space: remove it" : self == "targets/releases" ? "targets/releases is signed by any one of all signers and proves no role; name the signer's own delegation" : !self.matches("^targets(/[-a-z0-9_]+)*$") ? "a delegation is targets/<name>, in lower-case letters, digits, '-' and '_', or targets itself" : ""`
type DelegationName string

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
	// IDs of the root keys. For sigstore and notation they are the SHA-256 of each role's keys, and
	// for simpleSigning the fingerprints of each role's primary keys.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	RootFingerprints []string `json:"rootFingerprints,omitempty"`

	// Repositories counts the repositories that the operator tracks under this trust root.
	// +optional
	Repositories *RepositoryStatus `json:"repositories,omitempty"`

	// Expires is the earliest expiry among the evidence in use, in RFC 3339: of metadata, of a
	// trusted root, or for notation of a signature, a certificate or an answer about revocation.
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
