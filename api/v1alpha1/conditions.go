package v1alpha1

// Condition types.
const (
	// ConditionReady is on both kinds: the spec is understood and in force. A policy that is not
	// Ready denies its scope, unless ConditionGated is what it lacks: then nothing is checked at
	// admission at all.
	ConditionReady = "Ready"
	// ConditionFresh is on TrustRoot: the last refresh of every tracked repository succeeded. While
	// it is False, decisions go on from the metadata held, until that expires.
	ConditionFresh = "Fresh"
	// ConditionExpiring is on TrustRoot: metadata in use has expired or is about to, and no refresh
	// is going to mend that by itself. True is the warning.
	ConditionExpiring = "Expiring"
	// ConditionCompliant is on ImagePolicy: every running workload that the policy covers meets it.
	// It says nothing about what may start; the gate sees to that.
	ConditionCompliant = "Compliant"
)

// ConditionGated is on ImagePolicy: both webhook configurations are in the cluster as they must be,
// so that the API server calls the webhook for what the policy covers. It is the same for every
// policy, whatever its mode.
const ConditionGated = "Gated"

// Reasons of the Gated condition of an ImagePolicy. While it is False, Ready is False too, with the
// same reason unless the policy has a fault of its own.
const (
	// ReasonConfigurationsInPlace says that both webhook configurations are as they must be.
	ReasonConfigurationsInPlace = "ConfigurationsInPlace"
	// ReasonGateNotObserved says that the leader has not compared the configurations yet; the
	// condition is Unknown.
	ReasonGateNotObserved = "GateNotObserved"
	// ReasonWebhookOwnerMissing says that the ClusterRole that owns the configurations is missing,
	// so that none is created. While the condition is still True they are in place, and the garbage
	// collector is about to delete them.
	ReasonWebhookOwnerMissing = "WebhookOwnerMissing"
	// ReasonPoliciesNotLoaded says that a configuration is missing, and the leader still loads
	// policies and signatures.
	ReasonPoliciesNotLoaded = "PoliciesNotLoaded"
	// ReasonWaitingForEndpoints says that a configuration is missing, and is created once the
	// Service has a ready endpoint.
	ReasonWaitingForEndpoints = "WaitingForEndpoints"
	// ReasonCertificateUnavailable says that a configuration is missing, and its CA bundle cannot
	// be had.
	ReasonCertificateUnavailable = "CertificateUnavailable"
	// ReasonConfigurationRefused says that a configuration is missing or narrower than it must be,
	// and that the API server does not take the write that would restore it.
	ReasonConfigurationRefused = "ConfigurationRefused"
	// ReasonConfigurationContested says that something keeps changing or deleting a configuration,
	// so that the operator restores it at growing intervals. The condition stays False until the
	// configuration has been left alone.
	ReasonConfigurationContested = "ConfigurationContested"
)

// Reasons of the Ready condition of an ImagePolicy, besides those of Gated.
const (
	// ReasonInForce says that the policy is compiled and every trust root it names is Ready.
	ReasonInForce = "InForce"
	// ReasonInvalidSpec says that the spec of the object cannot be used; the message names the
	// field.
	ReasonInvalidSpec = "InvalidSpec"
	// ReasonTrustRootNotFound says that the policy names a TrustRoot that does not exist.
	ReasonTrustRootNotFound = "TrustRootNotFound"
	// ReasonTrustRootNotReady says that the policy names a TrustRoot that exists and is not Ready.
	ReasonTrustRootNotReady = "TrustRootNotReady"
)

// Reasons of the Ready condition of a TrustRoot, besides ReasonInvalidSpec.
const (
	// ReasonPinned says that the keys of the trust root are read and signatures are checked against
	// them.
	ReasonPinned = "Pinned"
	// ReasonInvalidKey says that a key, a certificate or a key ID cannot be read; the message names
	// the field.
	ReasonInvalidKey = "InvalidKey"
	// ReasonReferenceNotFound says that a Secret or ConfigMap the trust root refers to, or an entry
	// in it, is missing.
	ReasonReferenceNotFound = "ReferenceNotFound"
)

// Reasons of the Fresh condition of a TrustRoot. Those that stand for a fault are also the classes
// of faults that the trust packages report.
const (
	// ReasonRefreshed says that every tracked repository was brought up to date by its last
	// refresh.
	ReasonRefreshed = "Refreshed"
	// ReasonNotAskedYet says that the server was not heard of since the trust root was made; the
	// condition is Unknown.
	ReasonNotAskedYet = "NotAskedYet"
	// ReasonNothingTracked says that no image under this trust root has been asked for yet.
	ReasonNothingTracked = "NothingTracked"
	// ReasonUnreachable says that no connection to the server could be made, or it broke off.
	ReasonUnreachable = "Unreachable"
	// ReasonTimeout says that the server did not answer in time.
	ReasonTimeout = "Timeout"
	// ReasonTLSNotTrusted says that the server's certificate does not chain to caBundle, has
	// expired, or is for another name.
	ReasonTLSNotTrusted = "TLSNotTrusted"
	// ReasonUnauthorized says that the server or its token service refused the credentials, or that
	// the token service is on a host that tokenServices does not list.
	ReasonUnauthorized = "Unauthorized"
	// ReasonServerError says that the server or its token service answered with a status that is
	// neither success nor "not found".
	ReasonServerError = "ServerError"
	// ReasonUnexpectedAnswer says that what answered does not speak the protocol of the format:
	// HTML, for example.
	ReasonUnexpectedAnswer = "UnexpectedAnswer"
	// ReasonAddressRefused says that the address is one the operator never connects to, such as a
	// link-local one.
	ReasonAddressRefused = "AddressRefused"
	// ReasonRootNotPinned says that the repository's root metadata is not signed by anything the
	// TrustRoot pins.
	ReasonRootNotPinned = "RootNotPinned"
	// ReasonMetadataInvalid says that signed metadata failed verification; the message names the
	// file and the rule.
	ReasonMetadataInvalid = "MetadataInvalid"
	// ReasonMetadataMissing says that the server lacks a file that the signed metadata lists.
	ReasonMetadataMissing = "MetadataMissing"
	// ReasonMetadataExpired says that signed metadata is past its expiry.
	ReasonMetadataExpired = "MetadataExpired"
	// ReasonRollback says that the server offered an older version than the one last seen.
	ReasonRollback = "Rollback"
	// ReasonKeyRevoked says that signed metadata hangs on a key that spec.revokedKeys lists; the
	// message names it.
	ReasonKeyRevoked = "KeyRevoked"
	// ReasonTooLarge says that an answer exceeded its signed length or the bound of its kind, or
	// that there is no memory left for what was verified.
	ReasonTooLarge = "TooLarge"
)

// Reasons of the Expiring condition of a TrustRoot, besides ReasonMetadataExpired.
const (
	// ReasonExpiresSoon says that a file expires within the warning time; the message names it.
	ReasonExpiresSoon = "ExpiresSoon"
	// ReasonNothingExpiresSoon says that no file does, or that the server will sign it anew by
	// itself.
	ReasonNothingExpiresSoon = "NothingExpiresSoon"
)

// ReasonVersionsForgotten is the reason of the event on a TrustRoot when the versions seen start
// anew because AnnotationForgetVersions asked for it.
const ReasonVersionsForgotten = "VersionsForgotten"

// Reasons of the Compliant condition of an ImagePolicy.
const (
	// ReasonAllSigned says that every running workload that the policy covers meets it.
	ReasonAllSigned = "AllSigned"
	// ReasonNothingRuns says that no running workload is covered.
	ReasonNothingRuns = "NothingRuns"
	// ReasonViolations says that running workloads violate the policy; status.violations lists the
	// first of them.
	ReasonViolations = "Violations"
	// ReasonNotAllChecked says that no violation is known, and some of what runs could not be
	// checked; the condition is Unknown.
	ReasonNotAllChecked = "NotAllChecked"
)

// Reasons of a decision about one image under one policy: in metrics, events and reports. A
// decision that could not be made has the reason of the fault instead.
const (
	// ReasonSigned says that every role which the policy requires has signed.
	ReasonSigned = "Signed"
	// ReasonAllowedUnsigned says that the policy requires nothing.
	ReasonAllowedUnsigned = "AllowedUnsigned"
	// ReasonNotSigned says that a role which the policy requires has not signed.
	ReasonNotSigned = "NotSigned"
	// ReasonAmbiguous says that two digests of the tag have every signature they need.
	ReasonAmbiguous = "Ambiguous"
	// ReasonDigestsDiffer says that each covering policy holds for some digest of the tag, and no
	// digest does for all.
	ReasonDigestsDiffer = "DigestsDiffer"
	// ReasonNotLoaded says that the signatures of the repository are still to be fetched, or to be
	// verified anew after an edit.
	ReasonNotLoaded = "NotLoaded"
	// ReasonNotCovered says that no policy covers the image.
	ReasonNotCovered = "NotCovered"
	// ReasonInvalidImage says that the image reference cannot be parsed. At admission that is
	// Denied, of what runs CouldNotCheck.
	ReasonInvalidImage = "InvalidImage"
	// ReasonShortName says that the image reference names no registry, which nodes may read each in
	// their own way, and that --short-names=Deny is in force. It fails every policy that holds in
	// the namespace.
	ReasonShortName = "ShortName"
	// ReasonBreakGlass is the reason of an event alone: the workload would be denied, and was
	// admitted because break-glass is on in its namespace. Metrics of decisions have the reason of
	// the denial.
	ReasonBreakGlass = "BreakGlass"
)
