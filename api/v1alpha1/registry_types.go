package v1alpha1

// Registry says how the operator reads one image registry.
//
// +kubebuilder:validation:XValidation:rule="!has(self.caBundle) || !has(self.caBundleFrom)",message="at most one of caBundle and caBundleFrom may be set"
// +kubebuilder:validation:XValidation:rule="!has(self.credentialsSecretRef) || !has(self.plainHTTP) || self.plainHTTP != 'Allow'",message="credentials are sent over https only; remove credentialsSecretRef or plainHTTP: Allow"
// +kubebuilder:validation:XValidation:rule="!(has(self.caBundle) || has(self.caBundleFrom)) || !has(self.plainHTTP) || self.plainHTTP != 'Allow'",message="plainHTTP: Allow reads the registry without TLS, which needs no CA; remove plainHTTP or the CA bundle"
// +kubebuilder:validation:XValidation:rule=`!self.host.contains("PRIVATE KEY")`,fieldPath=".host",message="there is a private key in this field: remove it, and keep it out of the cluster"
// +kubebuilder:validation:XValidation:rule=`self.host.contains("PRIVATE KEY") || !self.host.contains("@")`,fieldPath=".host",message="host takes no user, password or '@': put user and password into a Secret, and name it in credentialsSecretRef"
// +kubebuilder:validation:XValidation:rule=`!has(self.caBundle) || !self.caBundle.contains("PRIVATE KEY")`,fieldPath=".caBundle",message="this holds a private key; give certificates only"
type Registry struct {
	// Host is the registry as images are pulled from it, with its port: registry.example.com:5000.
	// Docker Hub is docker.io.
	// +required
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule=`(self.matches("PRIVATE KEY|@") ? "" : self == "" ? "host cannot be empty: write the host of a registry, as in registry.example.com:5000" : self.matches("\\s") ? "host has no white space: remove it" : self.contains("://") ? "drop https://: host is a host name, with its port if it has one, as in registry.example.com:5000" : self.contains("/") ? "drop the '/' and what follows: host is a host name, with its port if it has one" : self.matches("[A-Z]") ? "write host in lower case" : !self.matches("^([a-z0-9]([a-z0-9.-]*[a-z0-9])?|[[][0-9a-f:.]+[]])(:[0-9]{1,5})?$") ? "host is a host name, with its port if it has one, as in registry.example.com:5000" : "") == ""`,messageExpression=`self.matches("PRIVATE KEY|@") ? "" : self == "" ? "host cannot be empty: write the host of a registry, as in registry.example.com:5000" : self.matches("\\s") ? "host has no white space: remove it" : self.contains("://") ? "drop https://: host is a host name, with its port if it has one, as in registry.example.com:5000" : self.contains("/") ? "drop the '/' and what follows: host is a host name, with its port if it has one" : self.matches("[A-Z]") ? "write host in lower case" : !self.matches("^([a-z0-9]([a-z0-9.-]*[a-z0-9])?|[[][0-9a-f:.]+[]])(:[0-9]{1,5})?$") ? "host is a host name, with its port if it has one, as in registry.example.com:5000" : ""`
	Host string `json:"host,omitempty"`

	// CABundle are PEM certificates. The registry's TLS certificate must chain to one of them.
	// Without a bundle, the operator uses the CAs of its system. It skips a certificate that it
	// cannot parse, and condition Ready names it.
	// +optional
	CABundle RegistryCABundle `json:"caBundle,omitempty"`

	// CABundleFrom reads the bundle from an object in the operator's namespace instead.
	// +optional
	CABundleFrom *KeySource `json:"caBundleFrom,omitempty"`

	// PlainHTTP says whether the operator connects to the registry without TLS: Forbid, or Allow
	// for a registry that serves http. An attacker on the network can then suppress signatures, and
	// can choose among the signed digests that a tag may mean. Default Forbid.
	// +optional
	// +default="Forbid"
	PlainHTTP PlainHTTP `json:"plainHTTP,omitempty"`

	// CredentialsSecretRef names a Secret in the operator's namespace: of type
	// kubernetes.io/basic-auth with the keys "username" and "password", or of type
	// kubernetes.io/dockerconfigjson with an entry for the host. The operator sends the credentials
	// to the registry, and to its token service if that is on the same host or TokenServices lists
	// it.
	// +optional
	CredentialsSecretRef *SecretReference `json:"credentialsSecretRef,omitempty"`

	// TokenServices are hosts, other than the registry's own, from which the operator may request a
	// token, with or without credentials. Each is a host with its port; 443 may be left out. The
	// registry sees the answer of a token service. So the operator requests no token from a host
	// that is not listed, and reports Unauthorized instead. The token service of Docker Hub needs
	// no entry.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=255
	// +kubebuilder:validation:items:XValidation:rule=`(self.matches("PRIVATE KEY|@") ? "" : self == "" ? "a token service cannot be empty: write its host, or remove the entry" : self.matches("\\s") ? "a token service has no white space: remove it" : self.contains("://") ? "drop https://: a token service is a host name, with its port if it has one, as in auth.example.com:5001" : self.contains("/") ? "drop the '/' and what follows: a token service is a host name, with its port if it has one" : self.matches("[A-Z]") ? "write the host of a token service in lower case" : !self.matches("^([a-z0-9]([a-z0-9.-]*[a-z0-9])?|[[][0-9a-f:.]+[]])(:[0-9]{1,5})?$") ? "a token service is a host name, with its port if it has one, as in auth.example.com:5001" : "") == ""`,messageExpression=`self.matches("PRIVATE KEY|@") ? "" : self == "" ? "a token service cannot be empty: write its host, or remove the entry" : self.matches("\\s") ? "a token service has no white space: remove it" : self.contains("://") ? "drop https://: a token service is a host name, with its port if it has one, as in auth.example.com:5001" : self.contains("/") ? "drop the '/' and what follows: a token service is a host name, with its port if it has one" : self.matches("[A-Z]") ? "write the host of a token service in lower case" : !self.matches("^([a-z0-9]([a-z0-9.-]*[a-z0-9])?|[[][0-9a-f:.]+[]])(:[0-9]{1,5})?$") ? "a token service is a host name, with its port if it has one, as in auth.example.com:5001" : ""`
	// +kubebuilder:validation:XValidation:rule=`self.all(x, !x.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	// +kubebuilder:validation:XValidation:rule=`self.all(x, x.contains("PRIVATE KEY") || !x.contains("@"))`,message="a token service takes no user, password or '@': put user and password into a Secret, and name it in credentialsSecretRef"
	TokenServices []string `json:"tokenServices,omitempty"`
}

// RegistryCABundle is a sequence of PEM certificates of at most 128 KiB. CABundleFrom takes more.
//
// +kubebuilder:validation:MaxLength=131072
// +kubebuilder:validation:XValidation:rule="self.contains('-----BEGIN CERTIFICATE-----') || self.contains('PRIVATE KEY')",message="expected PEM certificates, each beginning with '-----BEGIN CERTIFICATE-----'"
type RegistryCABundle string
