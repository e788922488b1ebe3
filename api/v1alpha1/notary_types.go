package v1alpha1

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
