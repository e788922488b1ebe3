package v1alpha1_test

import "maps"

// inlineRoot is a trusted root of a ConfigMap.
func inlineRoot() map[string]any {
	return map[string]any{"from": source(map[string]any{"kind": "ConfigMap", "key": "trusted_root.json"})}
}

// signerIdentity returns an identity with these fields; nil removes one.
func signerIdentity(fields map[string]any) map[string]any {
	return edited(map[string]any{"issuer": "https://accounts.example.com", "subject": "ci@example.com"}, fields)
}

// identities returns an edit that sets the identities of a single role, and a trusted root.
func identities(all ...any) func(spec) {
	return func(s spec) {
		sigstoreRole(map[string]any{"identities": append([]any{}, all...)})(s)
		s.set("sigstore.trustedRoot", inlineRoot())
	}
}

func addSigstoreIdentityRules(rules map[string]rule) {
	const field = "spec.sigstore.roles[].identities"
	many := func(n int) func(spec) {
		return identities(list(n, func(i int) any {
			return signerIdentity(map[string]any{"subject": numbered("ci-%d@example.com")(i)})
		})...)
	}
	one := func(fields map[string]any) func(spec) { return identities(signerIdentity(fields)) }
	rules[field+" minItems"] = rule{identities(), many(1)}
	rules[field+" maxItems"] = rule{many(17), many(16)}
	for name, example := range map[string]string{
		"issuer": "the URL of the OpenID Connect provider", "subject": "the URI or email address in the certificate",
	} {
		expression := name + "RegExp"
		rules[field+"[] exactly one of "+name+" and "+expression+" must be set"] = rule{
			one(map[string]any{expression: "https://.+"}), one(map[string]any{name: nil, expression: "https://.+"}),
		}
		for set, example := range map[string]string{
			name: example, expression: "an expression that matches the whole " + name,
		} {
			with := func(value string) func(spec) { return one(map[string]any{name: nil, set: value}) }
			at := field + "[]." + set
			rules[at+" maxLength"] = rule{with(text("", 1025, "")), with(text("", 1024, ""))}
			rules[at+" "+set+" cannot be empty: write "+example] = rule{with(""), with("a")}
			rules[at+" "+set+" begins or ends with white space: remove it"] = rule{with("a\n"), with("a b")}
			rules[at+" "+privateKeyMessage] = rule{with(privateKeyPEM), with("a")}
		}
	}
}

func addAttestationRules(rules map[string]rule) {
	const field = "spec.sigstore.roles[].attestation"
	with := func(fields map[string]any) func(spec) {
		return sigstoreRole(map[string]any{
			"attestation": edited(map[string]any{"predicateType": "https://slsa.dev/provenance/v1"}, fields),
		})
	}
	predicate := func(v any) func(spec) { return with(map[string]any{"predicateType": v}) }
	conditions := func(v ...any) func(spec) { return with(map[string]any{"conditions": append([]any{}, v...)}) }
	aged := func(v any) func(spec) { return with(map[string]any{"maxAge": v}) }
	age := func(v any) func(spec) {
		return all(aged(v), set("sigstore.trustedRoot", map[string]any{"from": source(nil)}))
	}
	maps.Copy(rules, map[string]rule{
		field + ".predicateType required": {predicate(nil), with(nil)},
		field + ".predicateType maxLength": {
			predicate(text("https://example.com/", 1025, "")), predicate(text("https://example.com/", 1024, "")),
		},
		field + ".predicateType predicateType cannot be empty: write the type of the predicate, as in " +
			"https://slsa.dev/provenance/v1": {predicate(""), with(nil)},
		field + ".predicateType predicateType has no white space: remove it": {
			predicate("https://slsa.dev/provenance/v1\n"), with(nil),
		},
		field + ".predicateType " + privateKeyMessage: {predicate(privateKeyPEM), with(nil)},
		field + ".conditions minItems":                {conditions(), conditions("true")},
		field + ".conditions maxItems": {
			conditions(list(17, func(int) any { return "true" })...),
			conditions(list(16, func(int) any { return "true" })...),
		},
		field + ".conditions[] maxLength": {
			conditions(text("", 2049, "")), conditions(text("", 2048, "")),
		},
		field + ".conditions[] a condition cannot be empty: write an expression, or remove the entry": {
			conditions(" "), conditions("true"),
		},
		field + ".conditions " + privateKeyMessage: {conditions(privateKeyPEM), conditions("true")},
		field + ".maxAge maxLength":                {age("0h0m0h0m0h0m0h60s"), age("0h0m0h0m0h0m060s")},
		field + ".maxAge maxAge must be a duration such as 12h or 720h, from 1m to 87600h": {
			age("59s"), age("1m"),
		},
		"spec.sigstore.trustedRoot trustedRoot is required where an attestation has maxAge: it says which logs and " +
			"timestamp authorities are trusted; set from or tuf": {aged("1m"), age("1m")},
	})
}

func addTrustedRootRules(rules map[string]rule) {
	const field = "spec.sigstore.trustedRoot"
	root := func(v any) func(spec) { return set("sigstore.trustedRoot", v) }
	tuf := func(fields map[string]any) func(spec) {
		return root(map[string]any{"tuf": edited(map[string]any{}, fields)})
	}
	mirror := func(v any) func(spec) { return tuf(map[string]any{"mirror": v}) }
	required := set("sigstore.transparencyLog", "Require")
	maps.Copy(rules, map[string]rule{
		field + " trustedRoot is required where a role has identities: it says which certificate authorities, logs " +
			"and timestamp authorities are trusted; set from or tuf": {
			all(identities(signerIdentity(nil)), root(nil)), identities(signerIdentity(nil)),
		},
		field + " trustedRoot is required with transparencyLog: Require: it says which logs are trusted; set from or " +
			"tuf": {
			required, all(required, tuf(nil)),
		},
		field + " exactly one of from and tuf must be set": {root(map[string]any{}), tuf(nil)},
		field + ".tuf " + oneBundle: {
			tuf(map[string]any{"caBundle": certificatePEM, "caBundleFrom": source(nil)}),
			tuf(map[string]any{"caBundleFrom": source(nil)}),
		},
		field + ".tuf.caBundle maxLength": {
			tuf(map[string]any{"caBundle": bundle(131073)}), tuf(map[string]any{"caBundle": bundle(131072)}),
		},
		field + ".tuf.caBundle " + bundleMessage: {
			tuf(map[string]any{"caBundle": publicKeyPEM}), tuf(map[string]any{"caBundle": certificatePEM}),
		},
		field + ".tuf.caBundle " + bundlePrivate: {
			tuf(map[string]any{"caBundle": certificatePEM + privateKeyPEM}),
			tuf(map[string]any{"caBundle": certificatePEM}),
		},
		field + ".tuf.mirror maxLength": {
			mirror(text("https://tuf.example.com/", 513, "")), mirror(text("https://tuf.example.com/", 512, "")),
		},
		"spec.sigstore.transparencyLog maxLength": {
			set("sigstore.transparencyLog", text("", 33, "")), set("sigstore.transparencyLog", "Ignore"),
		},
		"spec.sigstore.transparencyLog transparencyLog must be Require or Ignore": {
			set("sigstore.transparencyLog", "ignore"), set("sigstore.transparencyLog", "Ignore"),
		},
	})
	for message, value := range map[string]string{
		"mirror cannot be empty: write a URL such as https://tuf.example.com, or remove the field": "",
		"mirror has no white space: remove it":                                                     "https://tuf.example.com\n",
		"mirror must be an https:// URL such as https://tuf.example.com":                           "http://tuf.example.com",
		"mirror takes no user, query, fragment or '@': write the base URL of the TUF repository":   "https://a:b@tuf.example.com",
		privateKeyMessage: privateKeyPEM,
	} {
		rules[field+".tuf.mirror "+message] = rule{mirror(value), mirror("https://tuf.example.com/acme")}
	}
	addSourceRules(rules, field+".from", func(s any) func(spec) { return root(map[string]any{"from": s}) })
	addSourceRules(rules, field+".tuf.caBundleFrom", func(s any) func(spec) {
		return tuf(map[string]any{"caBundleFrom": s})
	})
	addSourceRules(rules, field+".tuf.rootFrom", func(s any) func(spec) { return tuf(map[string]any{"rootFrom": s}) })
}
