package convert

// Field is a field of a source, and what becomes of it.
type Field struct {
	Name   string
	Effect Effect
	Text   string
}

// Fields lists the fields of a source that are known, as docs/convert.md has them.
func Fields(s Source) []Field {
	switch s {
	case Connaisseur:
		return connaisseurFields()
	case Portieris:
		return portierisFields()
	case PolicyController:
		return policyControllerFields()
	case OpenShift:
		return openshiftFields()
	case Containers:
		return containersFields()
	}
	return nil
}

func connaisseurFields() []Field { //nolint:funlen // it is a table
	return []Field{
		{
			"policy[].pattern", Carried,
			"`images`, and `exceptImages` of rules that are more general. A tag or digest narrows it.",
		},
		{"policy[].validator", Carried, "The TrustRoot of the policy. Without it, the validator `default`."},
		{
			"policy[].with.trustRoot", Carried,
			"The role, or with `\"*\"` all roles of the validator. Of `notaryv1`, the root key.",
		},
		{
			"policy[].with.delegations", Carried,
			"`requiredRoles`, one for each delegation. Without it, see `--signers`.",
		},
		{
			"policy[].with.threshold", Carried,
			"`anyOf` with `threshold`. It counts roles, where the source counted signatures.",
		},
		{"policy[].with.required", Carried, "`requiredRoles`."},
		{"policy[].with.mode", Carried, "`insecureValidateOnly` is `pinDigests: None`."},
		{
			"policy[].with.verifyInTransparencyLog", Carried,
			"`transparencyLog: Require`, or a TrustRoot without it. An identity needs it.",
		},
		{"policy[].with.verifySCT", Narrowed, "The SCT is verified where the trusted root lists a log for it."},
		{
			"policy[].with.verificationLevel", Narrowed,
			"`permissive` and `audit` are `revocation: Skip`. All else is verified.",
		},
		{
			"policy[].with.verifyTimestamp", Carried,
			"`afterCertExpiry`. With `always`, a signature must have a timestamp: such a rule denies.",
		},
		{"validators[].name", Carried, "The name of the TrustRoot."},
		{"validators[].type", Carried, "`notaryv1`, `cosign`, `notation` and `static`. Others deny."},
		{"validators[].approve", Carried, "`true` is `allowUnsigned`. `false` is a policy that denies."},
		{"validators[].host", Carried, "Of `notaryv1`, `notary.server`. Of `cosign` 2.x, the log."},
		{
			"validators[].host.rekor", Carried,
			"The public instance is `trustedRoot.tuf: {}`. Others need `host.rekorPubkey`.",
		},
		{"validators[].host.rekorPubkey", Carried, "The log of a `trusted_root.json` in a ConfigMap."},
		{"validators[].host.fulcioCert", Carried, "The CA of that file."},
		{"validators[].host.ctLogPubkey", Carried, "The certificate transparency log of that file."},
		{"validators[].trustRoots[].name", Carried, "The role. Of `notaryv1`, a part of the TrustRoot's name."},
		{
			"validators[].trustRoots[].key", Carried,
			"`keys`, `keysFrom` of a Secret or a ConfigMap to fill in, or `notary.root.keys`.",
		},
		{"validators[].trustRoots[].cert", Carried, "`certificates`, with `identities: [\"*\"]`."},
		{"validators[].trustRoots[].tsCert", Carried, "`timestampAuthorities`."},
		{"validators[].trustRoots[].keyless.issuer", Carried, "`identities[].issuer`."},
		{
			"validators[].trustRoots[].keyless.issuerRegex", Carried,
			"`identities[].issuerRegExp`, which matches any part as before.",
		},
		{"validators[].trustRoots[].keyless.subject", Carried, "`identities[].subject`."},
		{
			"validators[].trustRoots[].keyless.subjectRegex", Carried,
			"`identities[].subjectRegExp`, which matches any part as before.",
		},
		{
			"validators[].auth.secretName", Narrowed,
			"`credentialsSecretRef`. Create the Secret in the operator's namespace.",
		},
		{
			"validators[].auth.username", Narrowed,
			"`credentialsSecretRef`. Create the Secret: it is never written.",
		},
		{"validators[].auth.password", Narrowed, "As `auth.username`."},
		{
			"validators[].auth.useKeychain", Dropped,
			"Name a Secret in `registries`, or let the operator read pull secrets.",
		},
		{
			"validators[].cert", Carried,
			"`caBundle` of the server, or of the registries that the patterns name.",
		},
		{"validators[].isAcr", Carried, "Nothing is needed for it."},
		{"features.namespacedValidation.mode", Carried, "`namespaceSelector` on the same label."},
		{"features.namespacedValidation.enabled", Carried, "As `mode`. 2.x alone has it."},
		{"features.detectionMode", Carried, "`mode: Warn`."},
		{"features.automaticChildApproval", Narrowed, "Pods are checked, whatever created them."},
		{
			"features.automaticUnchangedApproval", Narrowed,
			"An update is checked for the images that it changes.",
		},
		{"features.resourceValidationMode", Narrowed, "Templates are checked too."},
		{"features.cache", Outside, ""},
		{"alerting", Outside, ""},
		{"logLevel", Outside, ""},
		{"logFormat", Outside, ""},
		{"debug", Outside, ""},
		{"kubernetes", Outside, "3.x. See [the values of the chart](helm.md)."},
		{"deployment", Outside, "2.x."},
		{"service", Outside, "2.x."},
	}
}

func portierisFields() []Field { //nolint:funlen // it is a table
	return []Field{
		{
			"repositories[].name", Carried,
			"`images`, and `exceptImages` of names that are more general. A tag narrows it.",
		},
		{
			"repositories[].policy", Carried,
			"Without `trust`, `simple` and `vulnerability` it is `allowUnsigned`.",
		},
		{"repositories[].policy.mutateImage", Carried, "`false` is `pinDigests: None`."},
		{
			"repositories[].policy.trust.enabled", Carried,
			"A TrustRoot with `notary`. Fill in its root key: Portieris trusted the first.",
		},
		{
			"repositories[].policy.trust.trustServer", Carried,
			"`notary.server`. Without it, those of docker.io and quay.io are known.",
		},
		{
			"repositories[].policy.trust.signerSecrets[].name", Carried,
			"A role with the key of the Secret, if it is converted along. " +
				"Without any, see `--signers`.",
		},
		{
			"repositories[].policy.simple.requirements[].type", Carried,
			"`signedBy` is a role of a TrustRoot with `simpleSigning`.",
		},
		{
			"repositories[].policy.simple.requirements[].keySecret", Carried,
			"`keys` of the role, or `keysFrom` the Secret.",
		},
		{
			"repositories[].policy.simple.requirements[].keySecretNamespace", Narrowed,
			"The operator reads its own namespace alone.",
		},
		{"repositories[].policy.simple.requirements[].signedIdentity.type", Carried, "`signedIdentity.type`."},
		{
			"repositories[].policy.simple.requirements[].signedIdentity.dockerReference", Carried,
			"`signedIdentity.reference`.",
		},
		{
			"repositories[].policy.simple.requirements[].signedIdentity.dockerRepository", Carried,
			"`signedIdentity.repository`.",
		},
		{
			"repositories[].policy.simple.requirements[].signedIdentity.prefix", Carried,
			"`signedIdentity.prefix`.",
		},
		{
			"repositories[].policy.simple.requirements[].signedIdentity.signedPrefix", Carried,
			"`signedIdentity.signedPrefix`.",
		},
		{"repositories[].policy.simple.storeURL", Carried, "`lookaside`, if it is https and has no user."},
		{
			"repositories[].policy.simple.storeSecret", Dropped,
			"The lookaside server is read without credentials.",
		},
		{
			"repositories[].policy.vulnerability.ICCRVA.enabled", Dropped,
			"A further policy, which ends in `-not-converted`, denies.",
		},
		{"repositories[].policy.vulnerability.ICCRVA.account", Dropped, "As `enabled`."},
		{"repositories[].policy.va", Dropped, "As `vulnerability`."},
	}
}

func policyControllerFields() []Field { //nolint:funlen // it is a table
	return []Field{
		{
			"images[].glob", Carried,
			"`images`. A glob with a tag, or without any, is narrowed: it holds along with the denial of all " +
				"other images.",
		},
		{"mode", Carried, "`warn` is `mode: Warn`."},
		{"match", Narrowed, "The policy holds for every workload."},
		{"policy", Dropped, "A further policy, which ends in `-not-converted`, denies."},
		{"authorities[].name", Carried, "The role, or the beginning of the names of its attestations' roles."},
		{"authorities[].key.data", Carried, "`keys`."},
		{
			"authorities[].key.secretRef.name", Narrowed,
			"`keysFrom`, entry `cosign.pub`. Copy the Secret to the operator's namespace.",
		},
		{"authorities[].key.secretRef.namespace", Narrowed, "As `name`."},
		{"authorities[].key.kms", Narrowed, "`keysFrom` of a ConfigMap. Fill in the public key."},
		{
			"authorities[].key.hashAlgorithm", Dropped,
			"With another hash than `sha256` the authority admits nothing.",
		},
		{
			"authorities[].keyless.url", Carried,
			"The public instance is `trustedRoot.tuf: {}`. Fill in the trusted root of others.",
		},
		{"authorities[].keyless.ca-cert", Narrowed, "Fill in the trusted root."},
		{
			"authorities[].keyless.trustRootRef", Carried,
			"`trustedRoot.tuf`, if the TrustRoot is converted along and has `remote`.",
		},
		{
			"authorities[].keyless.insecureIgnoreSCT", Narrowed,
			"The SCT is verified where the trusted root lists a log for it.",
		},
		{"authorities[].keyless.identities[].issuer", Carried, "`identities[].issuer`."},
		{
			"authorities[].keyless.identities[].issuerRegExp", Carried,
			"`identities[].issuerRegExp`, which matches any part as before.",
		},
		{"authorities[].keyless.identities[].subject", Carried, "`identities[].subject`."},
		{
			"authorities[].keyless.identities[].subjectRegExp", Carried,
			"`identities[].subjectRegExp`, which matches any part as before.",
		},
		{"authorities[].static.action", Carried, "`pass` is `allowUnsigned`. `fail` admits nothing."},
		{"authorities[].static.message", Dropped, "Write it into `help`."},
		{"authorities[].ctlog.url", Carried, "`transparencyLog: Require`."},
		{"authorities[].ctlog.trustRootRef", Carried, "As that of `keyless`."},
		{
			"authorities[].rfc3161timestamp.trustRootRef", Carried,
			"`transparencyLog: Ignore`, for identities. A key with it admits nothing.",
		},
		{
			"authorities[].attestations[].name", Carried,
			"The end of the role's name. All attestations of an authority are required.",
		},
		{
			"authorities[].attestations[].predicateType", Carried,
			"`attestation.predicateType`. Short names become URIs.",
		},
		{
			"authorities[].attestations[].policy", Dropped,
			"The condition `false`, until you write the policy in CEL.",
		},
		{"authorities[].source[].oci", Carried, "`signatureRepository`, of the first source."},
		{"authorities[].source[].signaturePullSecrets", Dropped, "Name a Secret in `registries`."},
		{"authorities[].source[].tagPrefix", Dropped, "The authority admits nothing."},
		{
			"authorities[].signatureFormat", Carried,
			"Both are read. A key with `bundle` admits nothing, as before.",
		},
		{"TrustRoot.remote.mirror", Carried, "`trustedRoot.tuf.mirror`."},
		{"TrustRoot.remote.root", Carried, "`trustedRoot.tuf.rootFrom`, of a new ConfigMap."},
		{"TrustRoot.remote.targets", Carried, "Only `targets`. Fill in the trusted root of others."},
		{
			"TrustRoot.remote.trustedRootTarget", Carried,
			"Only `trusted_root.json`. Fill in the trusted root of others.",
		},
	}
}

func openshiftFields() []Field {
	return []Field{
		{
			"scopes", Carried,
			"`images`, and `exceptImages` of scopes that are more general. A tag or digest narrows it.",
		},
		{"policy.rootOfTrust.policyType", Carried, "`PublicKey` and `FulcioCAWithRekor`."},
		{"policy.rootOfTrust.publicKey.keyData", Carried, "`keys`."},
		{
			"policy.rootOfTrust.publicKey.rekorKeyData", Carried,
			"`transparencyLog: Require`, with a `trusted_root.json` in a ConfigMap.",
		},
		{"policy.rootOfTrust.fulcioCAWithRekor.fulcioCAData", Carried, "The CA of that file."},
		{"policy.rootOfTrust.fulcioCAWithRekor.rekorKeyData", Carried, "The log of that file."},
		{"policy.rootOfTrust.fulcioCAWithRekor.fulcioSubject.oidcIssuer", Carried, "`identities[].issuer`."},
		{"policy.rootOfTrust.fulcioCAWithRekor.fulcioSubject.signedEmail", Carried, "`identities[].subject`."},
		{"policy.rootOfTrust.pki", Dropped, "The policy denies."},
		{
			"policy.signedIdentity.matchPolicy", Carried,
			"`MatchRepository` and `ExactRepository`. The others compare tags: they deny.",
		},
		{
			"policy.signedIdentity.exactRepository.repository", Carried,
			"`identityRemap`, for one scope that ends as the repository does.",
		},
		{"policy.signedIdentity.remapIdentity.prefix", Dropped, "The policy denies."},
		{"policy.signedIdentity.remapIdentity.signedPrefix", Dropped, "As `prefix`."},
	}
}

func containersFields() []Field {
	return []Field{
		{"default", Carried, "A policy for all other images, if the transport docker has no default."},
		{"transports.*", Outside, "Of transports other than docker."},
		{
			"transports.docker.*", Carried,
			"`images`, and `exceptImages` of scopes that are more general. A tag or digest narrows it.",
		},
		{
			"transports.docker.*[].type", Carried,
			"`insecureAcceptAnything` alone is `allowUnsigned`. `reject` denies.",
		},
		{"transports.docker.*[].keyType", Carried, "`GPGKeys`. Nothing meets the others."},
		{"transports.docker.*[].keyPath", Narrowed, "`keysFrom` of a ConfigMap. Fill in the file."},
		{"transports.docker.*[].keyPaths", Narrowed, "As `keyPath`."},
		{"transports.docker.*[].keyData", Carried, "`keys`, or a ConfigMap with a binary key."},
		{"transports.docker.*[].keyDatas", Carried, "`keys`."},
		{"transports.docker.*[].baseLayerIdentity", Dropped, "Nothing meets `signedBaseLayer`, as before."},
		{
			"transports.docker.*[].signedIdentity.type", Carried,
			"Of `signedBy`, `signedIdentity.type`. Of `sigstoreSigned`, " +
				"`matchRepository` and `exactRepository`: the others compare tags, and deny.",
		},
		{"transports.docker.*[].signedIdentity.dockerReference", Carried, "`signedIdentity.reference`."},
		{
			"transports.docker.*[].signedIdentity.dockerRepository", Carried,
			"`signedIdentity.repository`, or `identityRemap`.",
		},
		{"transports.docker.*[].signedIdentity.prefix", Carried, "`signedIdentity.prefix`."},
		{"transports.docker.*[].signedIdentity.signedPrefix", Carried, "`signedIdentity.signedPrefix`."},
		{"transports.docker.*[].fulcio.caData", Carried, "The CA of a `trusted_root.json` in a ConfigMap."},
		{"transports.docker.*[].fulcio.caPath", Narrowed, "Fill in the trusted root."},
		{"transports.docker.*[].fulcio.oidcIssuer", Carried, "`identities[].issuer`."},
		{"transports.docker.*[].fulcio.subjectEmail", Carried, "`identities[].subject`."},
		{
			"transports.docker.*[].rekorPublicKeyData", Carried,
			"`transparencyLog: Require`, with the log of that file.",
		},
		{"transports.docker.*[].rekorPublicKeyDatas", Carried, "As `rekorPublicKeyData`."},
		{"transports.docker.*[].rekorPublicKeyPath", Narrowed, "Fill in the trusted root."},
		{"transports.docker.*[].rekorPublicKeyPaths", Narrowed, "As `rekorPublicKeyPath`."},
		{"transports.docker.*[].pki", Dropped, "The policy denies."},
		{
			"registries.d.default-docker.lookaside-staging", Carried,
			"It is for writing. Nothing is needed for it.",
		},
		{
			"registries.d.docker.*.lookaside", Carried,
			"`lookaside`, if it is https, and no section is for a part of the scope. " +
				"Also under its old name `sigstore`.",
		},
		{
			"registries.d.docker.*.use-sigstore-attachments", Carried,
			"Without it, `sigstoreSigned` denies. Without `--registries-d`, it is " +
				"taken to be set.",
		},
	}
}
