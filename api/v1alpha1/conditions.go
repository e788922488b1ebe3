package v1alpha1

// Condition types.
const (
	// ConditionReady of both kinds says that the spec is valid and in force. An ImagePolicy that is
	// not Ready denies its scope. The exception is a policy that is not Ready only because Gated is
	// not True: then the API server may not call the webhook at all.
	ConditionReady = "Ready"
	// ConditionFresh of a TrustRoot says that the last refresh of every tracked repository
	// succeeded. While it is False, decisions use the verified metadata until it expires.
	ConditionFresh = "Fresh"
	// ConditionExpiring of a TrustRoot warns, when True, that metadata in use has expired or
	// expires soon and that no refresh will renew it.
	ConditionExpiring = "Expiring"
	// ConditionCompliant of an ImagePolicy says that every running workload that the policy covers
	// meets it. It does not say what may start: the webhook decides that.
	ConditionCompliant = "Compliant"
)

// ConditionGated of an ImagePolicy says that both webhook configurations are in the cluster and
// correct, so that the API server calls the webhook. It is the same for every policy, whatever its
// mode.
const ConditionGated = "Gated"

// Reasons of the Gated condition of an ImagePolicy. While Gated is False, Ready is False too. It
// then has the same reason, unless the policy has a fault of its own.
const (
	// ReasonConfigurationsInPlace says that both webhook configurations are correct.
	ReasonConfigurationsInPlace = "ConfigurationsInPlace"
	// ReasonGateNotObserved says that the leader has not compared the configurations yet; the
	// condition is Unknown.
	ReasonGateNotObserved = "GateNotObserved"
	// ReasonWebhookOwnerMissing says that the ClusterRole that owns the configurations is missing,
	// so that the operator creates none and the garbage collector deletes those that exist.
	ReasonWebhookOwnerMissing = "WebhookOwnerMissing"
	// ReasonPoliciesNotLoaded says that a configuration is missing and that the leader is still
	// loading policies and signatures.
	ReasonPoliciesNotLoaded = "PoliciesNotLoaded"
	// ReasonWaitingForEndpoints says that a configuration is missing and that the operator creates
	// it once the Service has a ready endpoint.
	ReasonWaitingForEndpoints = "WaitingForEndpoints"
	// ReasonCertificateUnavailable says that a configuration is missing and that its CA bundle is
	// not available.
	ReasonCertificateUnavailable = "CertificateUnavailable"
	// ReasonConfigurationRefused says that a configuration is missing or covers too little and that
	// the API server rejects the write that would restore it.
	ReasonConfigurationRefused = "ConfigurationRefused"
	// ReasonConfigurationContested says that another client keeps changing or deleting a
	// configuration, so that the operator restores it with a growing backoff; the condition stays
	// False until the changes stop.
	ReasonConfigurationContested = "ConfigurationContested"
)

// Reasons of the Ready condition of an ImagePolicy, besides those of Gated.
const (
	// ReasonInForce says that the policy is compiled and that every TrustRoot it names is Ready.
	ReasonInForce = "InForce"
	// ReasonInvalidSpec says that the spec of the object is invalid; the message names the field.
	ReasonInvalidSpec = "InvalidSpec"
	// ReasonTrustRootNotFound says that the policy names a TrustRoot that does not exist.
	ReasonTrustRootNotFound = "TrustRootNotFound"
	// ReasonTrustRootNotReady says that the policy names a TrustRoot that exists and is not Ready.
	ReasonTrustRootNotReady = "TrustRootNotReady"
)

// Reasons of the Ready condition of a TrustRoot, besides ReasonInvalidSpec.
const (
	// ReasonPinned says that the operator has read the keys of the trust root and verifies
	// signatures with them.
	ReasonPinned = "Pinned"
	// ReasonInvalidKey says that a key, a certificate or a key ID cannot be parsed; the message
	// names the field.
	ReasonInvalidKey = "InvalidKey"
	// ReasonReferenceNotFound says that a Secret or ConfigMap that the trust root refers to, or an
	// entry in it, does not exist.
	ReasonReferenceNotFound = "ReferenceNotFound"
)

// Reasons of the Fresh condition of a TrustRoot. The trust packages report the same constants as
// the class of a fault.
const (
	// ReasonRefreshed says that the last refresh of every tracked repository succeeded.
	ReasonRefreshed = "Refreshed"
	// ReasonNotAskedYet says that the operator has no answer from a server yet; the condition is
	// Unknown.
	ReasonNotAskedYet = "NotAskedYet"
	// ReasonNothingTracked says that no image under this trust root has been checked yet.
	ReasonNothingTracked = "NothingTracked"
	// ReasonUnreachable says that the connection to the server failed or broke.
	ReasonUnreachable = "Unreachable"
	// ReasonTimeout says that the server did not answer in time.
	ReasonTimeout = "Timeout"
	// ReasonTLSNotTrusted says that the server's certificate does not chain to caBundle, has
	// expired, or is for another name.
	ReasonTLSNotTrusted = "TLSNotTrusted"
	// ReasonUnauthorized says that the server or its token service refused the credentials, or that
	// tokenServices does not list the host of the token service.
	ReasonUnauthorized = "Unauthorized"
	// ReasonPullSecretsUnreadable says that the operator could not read the pull secrets of a
	// namespace from the API server.
	ReasonPullSecretsUnreadable = "PullSecretsUnreadable"
	// ReasonServerError says that the server or its token service answered with a status that is
	// neither success nor "not found".
	ReasonServerError = "ServerError"
	// ReasonUnexpectedAnswer says that the answer does not follow the protocol of the format: it is
	// HTML, for example.
	ReasonUnexpectedAnswer = "UnexpectedAnswer"
	// ReasonAddressRefused says that the operator never connects to this address, such as a
	// link-local one.
	ReasonAddressRefused = "AddressRefused"
	// ReasonRootNotPinned says that no key or CA that the TrustRoot pins has signed the
	// repository's root metadata.
	ReasonRootNotPinned = "RootNotPinned"
	// ReasonMetadataInvalid says that the verification of signed metadata failed; the message names
	// the file and the rule.
	ReasonMetadataInvalid = "MetadataInvalid"
	// ReasonMetadataMissing says that the server lacks a file that the signed metadata lists.
	ReasonMetadataMissing = "MetadataMissing"
	// ReasonMetadataExpired says that signed metadata has expired, or that no answer about the
	// revocation of a certificate counts any more.
	ReasonMetadataExpired = "MetadataExpired"
	// ReasonRollback says that the server offered an older version than the operator has seen.
	ReasonRollback = "Rollback"
	// ReasonKeyRevoked says that signed metadata depends on a key that spec.revokedKeys lists; the
	// message names the key.
	ReasonKeyRevoked = "KeyRevoked"
	// ReasonTooLarge says that an answer is longer than its signed length or its limit, or that no
	// memory is left for the verified evidence.
	ReasonTooLarge = "TooLarge"
)

// Reasons of the Expiring condition of a TrustRoot, besides ReasonMetadataExpired.
const (
	// ReasonExpiresSoon says that a file expires within the warning time; the message names it.
	ReasonExpiresSoon = "ExpiresSoon"
	// ReasonNothingExpiresSoon says that no file expires within the warning time, or that the
	// server renews those that do.
	ReasonNothingExpiresSoon = "NothingExpiresSoon"
)

// ReasonVersionsForgotten is the reason of the event on a TrustRoot when the operator forgets the
// versions that it has seen, as AnnotationForgetVersions requests.
const ReasonVersionsForgotten = "VersionsForgotten"

// Reasons of the Compliant condition of an ImagePolicy.
const (
	// ReasonAllSigned says that every running workload that the policy covers meets it.
	ReasonAllSigned = "AllSigned"
	// ReasonNothingRuns says that the policy covers no running workload.
	ReasonNothingRuns = "NothingRuns"
	// ReasonViolations says that running workloads violate the policy; status.violations lists the
	// first of them.
	ReasonViolations = "Violations"
	// ReasonNotAllChecked says that no violation is known and that some running images could not be
	// checked; the condition is Unknown.
	ReasonNotAllChecked = "NotAllChecked"
)

// Reasons of a decision about one image under one policy, in metrics, events and reports. A
// decision that could not be made has the reason of the fault instead.
const (
	// ReasonSigned says that every role that the policy requires has signed.
	ReasonSigned = "Signed"
	// ReasonAllowedUnsigned says that the policy requires nothing.
	ReasonAllowedUnsigned = "AllowedUnsigned"
	// ReasonNotSigned says that a role that the policy requires has not signed.
	ReasonNotSigned = "NotSigned"
	// ReasonAmbiguous says that two digests of the tag have every required signature.
	ReasonAmbiguous = "Ambiguous"
	// ReasonDigestsDiffer says that each covering policy accepts a digest of the tag, and that no
	// digest is accepted by all of them.
	ReasonDigestsDiffer = "DigestsDiffer"
	// ReasonNotLoaded says that the signatures of the repository are not fetched yet, or not yet
	// verified again after an edit.
	ReasonNotLoaded = "NotLoaded"
	// ReasonNotCovered says that no policy covers the image.
	ReasonNotCovered = "NotCovered"
	// ReasonInvalidImage says that the image reference cannot be parsed, which is Denied at
	// admission and CouldNotCheck for a running image.
	ReasonInvalidImage = "InvalidImage"
	// ReasonShortName says that --short-names=Deny is in force and that the image reference names
	// no registry, which fails every policy that holds in the namespace.
	ReasonShortName = "ShortName"
	// ReasonBreakGlass is the reason of the event on a workload that break-glass admitted against a
	// denial; metrics of decisions have the reason of the denial.
	ReasonBreakGlass = "BreakGlass"
)
