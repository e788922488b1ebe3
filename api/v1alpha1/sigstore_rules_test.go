package v1alpha1_test

import "maps"

// sigstoreSpec returns a valid spec of a TrustRoot with sigstore and a registry.
func sigstoreSpec() spec {
	return spec{
		"registries": []any{map[string]any{"host": "registry.example.com:5000"}},
		"sigstore": map[string]any{
			"roles": []any{map[string]any{"name": "qa", "keys": []any{publicKeyPEM}}},
		},
	}
}

// sigstoreRole returns an edit that sets a single role with a name, a key and these fields.
func sigstoreRole(fields map[string]any) func(spec) {
	return set("sigstore.roles", []any{edited(map[string]any{"name": "qa", "keys": []any{publicKeyPEM}}, fields)})
}

// ofRegistry returns an edit that sets a single registry with a host and these fields.
func ofRegistry(fields map[string]any) func(spec) {
	return set("registries", []any{edited(map[string]any{"host": "registry.example.com:5000"}, fields)})
}

// edited returns an object with these fields; nil removes one.
func edited(object, fields map[string]any) map[string]any {
	maps.Copy(object, fields)
	maps.DeleteFunc(object, func(_ string, v any) bool { return v == nil })
	return object
}

// addSigstoreRules adds the rules of sigstore and registries, whose objects are those of
// sigstoreSpec.
func addSigstoreRules(rules map[string]rule) {
	own := sigstoreRules()
	addSignatureRepositoryRules(own)
	addSigstoreIdentityRules(own)
	addAttestationRules(own)
	addTrustedRootRules(own)
	addRegistryRules(own)
	addRoleRules(own, "spec.sigstore.roles[].name",
		func(v any) func(spec) { return sigstoreRole(map[string]any{"name": v}) })
	addKeyRules(own, "spec.sigstore.roles[].keys", func(keys []any) func(spec) {
		return sigstoreRole(map[string]any{"keys": keys})
	})
	addSourceRules(own, "spec.sigstore.roles[].keysFrom[]", func(s any) func(spec) {
		return sigstoreRole(map[string]any{"keysFrom": []any{s}})
	})
	replaced := func(s spec) {
		clear(s)
		maps.Copy(s, sigstoreSpec())
	}
	for name, r := range own {
		rules[name] = rule{all(replaced, r.refused), all(replaced, r.accepted)}
	}
}

func sigstoreRules() map[string]rule {
	roles := func(n int) func(spec) {
		return set("sigstore.roles", list(n, func(i int) any {
			return map[string]any{"name": numbered("r%d")(i), "keys": []any{publicKeyPEM}}
		}))
	}
	return map[string]rule{
		"spec expiredGrace applies to notary and tuf: other signatures end by themselves, or not at all; remove " +
			"expiredGrace": {
			set("expiredGrace", "12h"), unchanged,
		},
		"spec registries applies to sigstore, notation and simpleSigning: notary and tuf read no image registry; " +
			"remove registries": {
			all(set("sigstore", nil), set("notary", rootSpec()["notary"])), unchanged,
		},
		"spec resolveInterval applies to sigstore, notation and simpleSigning: notary and tuf read no image registry; " +
			"remove resolveInterval": {
			all(set("sigstore", nil), set("registries", nil), set("resolveInterval", "10s"),
				set("notary", rootSpec()["notary"])),
			set("resolveInterval", "10s"),
		},
		"spec.resolveInterval maxLength": {
			set("resolveInterval", "0h0m0h0m0h0m0h30s"), set("resolveInterval", "0h0m0h0m0h0m030s"),
		},
		"spec.resolveInterval resolveInterval must be a duration such as 0s, 10s or 5m, up to 1h": {
			set("resolveInterval", "61m"), set("resolveInterval", "0s"),
		},
		"spec.sigstore.roles required": {set("sigstore", map[string]any{}), unchanged},
		"spec.sigstore.roles minItems": {roles(0), roles(1)},
		"spec.sigstore.roles maxItems": {roles(33), roles(32)},
		"spec.sigstore.roles[] map": {
			set("sigstore.roles", []any{
				map[string]any{"name": "ci", "keys": []any{publicKeyPEM}},
				map[string]any{"name": "ci", "keys": []any{publicKeyPEM}},
			}),
			roles(2),
		},
		"spec.sigstore.roles[] a role needs at least one of keys, keysFrom and identities": {
			sigstoreRole(map[string]any{"keys": nil}),
			sigstoreRole(map[string]any{"keys": nil, "keysFrom": []any{source(nil)}}),
		},
		"spec.sigstore.roles[].name required": {sigstoreRole(map[string]any{"name": nil}), sigstoreRole(nil)},
		"spec.sigstore.roles[].name " + roleNameMessage: {
			sigstoreRole(map[string]any{"name": "QA"}), sigstoreRole(nil),
		},
		"spec.sigstore.roles[].name " + delegationMessage: {
			sigstoreRole(map[string]any{"name": "targets/qa"}), sigstoreRole(nil),
		},
		"spec.sigstore.roles[].name maxLength": {
			sigstoreRole(map[string]any{"name": text("", 129, "")}),
			sigstoreRole(map[string]any{"name": text("", 128, "")}),
		},
		"spec.sigstore.roles[].name " + privateKeyMessage: {
			sigstoreRole(map[string]any{"name": privateKeyPEM}), sigstoreRole(nil),
		},
		"spec.sigstore.roles[].threshold minimum": {
			sigstoreRole(map[string]any{"threshold": 0}), sigstoreRole(map[string]any{"threshold": 1}),
		},
		"spec.sigstore.roles[].threshold maximum": {
			sigstoreRole(map[string]any{"threshold": 33}), sigstoreRole(map[string]any{"threshold": 32}),
		},
		"spec.sigstore.roles[].keys maxItems": {
			sigstoreRole(map[string]any{"keys": list(17, numbered(publicKeyPEM+"%d"))}),
			sigstoreRole(map[string]any{"keys": list(16, numbered(publicKeyPEM+"%d"))}),
		},
		"spec.sigstore.roles[].keysFrom minItems": {
			sigstoreRole(map[string]any{"keysFrom": []any{}}),
			sigstoreRole(map[string]any{"keysFrom": []any{source(nil)}}),
		},
		"spec.sigstore.roles[].keysFrom maxItems": {
			sigstoreRole(map[string]any{"keysFrom": list(33, func(int) any { return source(nil) })}),
			sigstoreRole(map[string]any{"keysFrom": list(32, func(int) any { return source(nil) })}),
		},
		"spec.sigstore.signedRepository maxLength": {
			set("sigstore.signedRepository", text("", 33, "")), set("sigstore.signedRepository", "Ignore"),
		},
		"spec.sigstore.signedRepository signedRepository must be Ignore or Match": {
			set("sigstore.signedRepository", "match"), set("sigstore.signedRepository", "Match"),
		},
	}
}

func addSignatureRepositoryRules(rules map[string]rule) {
	const field = "spec.sigstore.signatureRepository "
	repository := func(v any) func(spec) { return set("sigstore.signatureRepository", v) }
	accepted := repository("registry.example.com:5000/acme/signatures")
	rules[field+"maxLength"] = rule{
		repository(text("registry.example.com/", 513, "")), repository(text("registry.example.com/", 512, "")),
	}
	for message, value := range map[string]string{
		"signatureRepository cannot be empty: write a repository such as registry.example.com/acme/signatures": "",
		"signatureRepository has no white space: remove it":                                                    "registry.example.com/acme\n",
		"drop https:// or what else ends in '://': signatureRepository begins with the registry host, as in " +
			"registry.example.com/acme/signatures": "https://registry.example.com/acme",
		"write signatureRepository in lower case": "registry.example.com/Acme",
		"signatureRepository is a registry host and a path, without a tag, as in " +
			"registry.example.com/acme/signatures": "registry.example.com/acme:v1",
		"signatureRepository takes no digest, user or '@': write a registry host and a path, as in " +
			"registry.example.com/acme/signatures": "registry.example.com/acme@sha256:00",
		privateKeyMessage: privateKeyPEM,
	} {
		rules[field+message] = rule{repository(value), accepted}
	}
}

func addRegistryRules(rules map[string]rule) {
	const field = "spec.registries"
	host := func(v any) func(spec) { return ofRegistry(map[string]any{"host": v}) }
	with := func(name string) func(any) func(spec) {
		return func(v any) func(spec) { return ofRegistry(map[string]any{name: v}) }
	}
	many := func(n int) func(spec) {
		return set("registries",
			list(n, func(i int) any { return map[string]any{"host": numbered("r%d.example.com")(i)} }))
	}
	secret := map[string]any{"name": "pull"}
	rules[field+" maxItems"] = rule{many(33), many(32)}
	rules[field+"[] map"] = rule{
		set("registries", []any{map[string]any{"host": "r.example.com"}, map[string]any{"host": "r.example.com"}}),
		many(2),
	}
	rules[field+"[] credentials are sent over https only; remove credentialsSecretRef or plainHTTP: Allow"] = rule{
		ofRegistry(map[string]any{"plainHTTP": "Allow", "credentialsSecretRef": secret}),
		ofRegistry(map[string]any{"plainHTTP": "Forbid", "credentialsSecretRef": secret}),
	}
	rules[field+"[] plainHTTP: Allow reads the registry without TLS, which needs no CA; remove plainHTTP or the CA "+
		"bundle"] = rule{
		ofRegistry(map[string]any{"plainHTTP": "Allow", "caBundle": certificatePEM}),
		ofRegistry(map[string]any{"plainHTTP": "Allow"}),
	}
	rules[field+"[].host required"] = rule{host(nil), unchanged}
	rules[field+"[].host maxLength"] = rule{host(text("", 256, "")), host(text("", 255, ""))}
	for message, value := range map[string]string{
		"host cannot be empty: write the host of a registry, as in registry.example.com:5000": "",
		"host has no white space: remove it":                                                  " registry.example.com",
		"drop https://: host is a host name, with its port if it has one, as in " +
			"registry.example.com:5000": "https://registry.example.com",
		"drop the '/' and what follows: host is a host name, with its port if it has one": "registry.example.com/acme",
		"write host in lower case": "Registry.example.com",
		"host is a host name, with its port if it has one, as in registry.example.com:5000": "registry.example.com:port",
		"host takes no user, password or '@': put user and password into a Secret, and name it in " +
			"credentialsSecretRef": "reader:secret@registry.example.com",
		privateKeyMessage: privateKeyPEM,
	} {
		rules[field+"[].host "+message] = rule{host(value), host("registry.example.com")}
	}
	rules[field+"[].plainHTTP maxLength"] = rule{with("plainHTTP")(text("", 33, "")), with("plainHTTP")("Forbid")}
	rules[field+"[].plainHTTP plainHTTP must be Forbid or Allow"] = rule{
		with("plainHTTP")("allow"), with("plainHTTP")("Allow"),
	}
	addRegistryBundleRules(rules, field+"[]")
	secretName := func(v any) func(spec) { return with("credentialsSecretRef")(map[string]any{"name": v}) }
	rules[field+"[].credentialsSecretRef.name required"] = rule{
		with("credentialsSecretRef")(map[string]any{}), secretName("pull"),
	}
	rules[field+"[].credentialsSecretRef.name maxLength"] = rule{
		secretName(text("", 254, "")), secretName(text("", 253, "")),
	}
	rules[field+"[].credentialsSecretRef.name "+nameMessage] = rule{secretName("Pull"), secretName("pull")}
	rules[field+"[].credentialsSecretRef.name "+privateKeyMessage] = rule{secretName(privateKeyPEM), unchanged}
	addNameRules(rules, field+"[].credentialsSecretRef.name", secretName)
	addTokenServiceRules(rules, field+"[].tokenServices",
		func(v ...any) func(spec) { return with("tokenServices")(v) })
}

func addRegistryBundleRules(rules map[string]rule, at string) {
	with := func(fields map[string]any) func(spec) { return ofRegistry(fields) }
	pem := func(v string) func(spec) { return with(map[string]any{"caBundle": v}) }
	rules[at+" "+oneBundle] = rule{
		with(map[string]any{"caBundle": certificatePEM, "caBundleFrom": source(nil)}),
		with(map[string]any{"caBundleFrom": source(nil)}),
	}
	rules[at+".caBundle maxLength"] = rule{pem(bundle(131073)), pem(bundle(131072))}
	rules[at+".caBundle "+bundleMessage] = rule{pem(publicKeyPEM), pem(certificatePEM)}
	rules[at+".caBundle "+bundlePrivate] = rule{pem(certificatePEM + privateKeyPEM), pem(certificatePEM)}
	addSourceRules(rules, at+".caBundleFrom", func(s any) func(spec) { return with(map[string]any{"caBundleFrom": s}) })
}
