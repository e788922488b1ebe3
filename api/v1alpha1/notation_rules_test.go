package v1alpha1_test

import "maps"

// notationSpec returns a valid spec of a TrustRoot with notation and a registry.
func notationSpec() spec {
	return spec{
		"registries": []any{map[string]any{"host": "registry.example.com:5000"}},
		"notation":   map[string]any{"roles": []any{notationRoleObject(nil)}},
	}
}

// notationRoleObject returns a role with these fields; nil removes one.
func notationRoleObject(fields map[string]any) map[string]any {
	return edited(map[string]any{
		"name": "qa", "certificates": []any{certificatePEM}, "identities": []any{"C=US,ST=WA,O=acme,CN=qa"},
	}, fields)
}

// notationRole returns an edit that sets a single role with these fields.
func notationRole(fields map[string]any) func(spec) {
	return set("notation.roles", []any{notationRoleObject(fields)})
}

// addNotationRules adds the rules of notation, whose objects are those of notationSpec.
func addNotationRules(rules map[string]rule) {
	own := notationRules()
	addNotationIdentityRules(own)
	addTimestampRules(own)
	addRoleRules(own, "spec.notation.roles[].name",
		func(v any) func(spec) { return notationRole(map[string]any{"name": v}) })
	addKeyRules(own, "spec.notation.roles[].certificates", func(all []any) func(spec) {
		return notationRole(map[string]any{"certificates": all})
	})
	delete(own, "spec.notation.roles[].certificates "+privateMessage)
	addSourceRules(own, "spec.notation.roles[].certificatesFrom[]", func(s any) func(spec) {
		return notationRole(map[string]any{"certificatesFrom": []any{s}})
	})
	addSourceRules(own, "spec.notation.timestampAuthoritiesFrom", func(s any) func(spec) {
		return set("notation.timestampAuthoritiesFrom", s)
	})
	replaced := func(s spec) {
		clear(s)
		maps.Copy(s, notationSpec())
	}
	for name, r := range own {
		rules[name] = rule{all(replaced, r.refused), all(replaced, r.accepted)}
	}
}

func notationRules() map[string]rule {
	roles := func(n int) func(spec) {
		return set("notation.roles", list(n, func(i int) any {
			return notationRoleObject(map[string]any{"name": numbered("r%d")(i)})
		}))
	}
	revocation := func(v any) func(spec) { return set("notation.revocation", v) }
	return map[string]rule{
		"spec.notation.roles required": {set("notation", map[string]any{}), unchanged},
		"spec.notation.roles minItems": {roles(0), roles(1)},
		"spec.notation.roles maxItems": {roles(33), roles(32)},
		"spec.notation.roles[] map": {
			set("notation.roles", []any{notationRoleObject(nil), notationRoleObject(nil)}), roles(2),
		},
		"spec.notation.roles[] a role needs at least one of certificates and certificatesFrom": {
			notationRole(map[string]any{"certificates": nil}),
			notationRole(map[string]any{"certificates": nil, "certificatesFrom": []any{source(nil)}}),
		},
		"spec.notation.roles[].name required": {notationRole(map[string]any{"name": nil}), unchanged},
		"spec.notation.roles[].name " + roleNameMessage: {
			notationRole(map[string]any{"name": "QA"}), unchanged,
		},
		"spec.notation.roles[].name " + delegationMessage: {
			notationRole(map[string]any{"name": "targets/qa"}), unchanged,
		},
		"spec.notation.roles[].name maxLength": {
			notationRole(map[string]any{"name": text("", 129, "")}),
			notationRole(map[string]any{"name": text("", 128, "")}),
		},
		"spec.notation.roles[].name " + privateKeyMessage: {
			notationRole(map[string]any{"name": privateKeyPEM}), unchanged,
		},
		"spec.notation.roles[].threshold minimum": {
			notationRole(map[string]any{"threshold": 0}), notationRole(map[string]any{"threshold": 1}),
		},
		"spec.notation.roles[].threshold maximum": {
			notationRole(map[string]any{"threshold": 33}), notationRole(map[string]any{"threshold": 32}),
		},
		"spec.notation.roles[].certificates maxItems": {
			notationRole(map[string]any{"certificates": list(17, numbered(certificatePEM+"%d"))}),
			notationRole(map[string]any{"certificates": list(16, numbered(certificatePEM+"%d"))}),
		},
		"spec.notation.roles[].certificates this is a private key; give the certificate, and keep the private key out of " +
			"the cluster": {
			notationRole(map[string]any{"certificates": []any{privateKeyPEM}}),
			unchanged,
		},
		"spec.notation.roles[].certificatesFrom minItems": {
			notationRole(map[string]any{"certificatesFrom": []any{}}),
			notationRole(map[string]any{"certificatesFrom": []any{source(nil)}}),
		},
		"spec.notation.roles[].certificatesFrom maxItems": {
			notationRole(map[string]any{"certificatesFrom": list(33, func(int) any { return source(nil) })}),
			notationRole(map[string]any{"certificatesFrom": list(32, func(int) any { return source(nil) })}),
		},
		"spec.notation.revocation maxLength": {
			revocation(text("", 33, "")),
			revocation("Enforce"),
		},
		"spec.notation.revocation revocation must be Enforce or Skip": {revocation("skip"), revocation("Skip")},
	}
}

func addNotationIdentityRules(rules map[string]rule) {
	const field = "spec.notation.roles[].identities"
	identities := func(v ...any) func(spec) { return notationRole(map[string]any{"identities": v}) }
	many := func(n int) func(spec) { return identities(list(n, numbered("CN=r%d"))...) }
	rules[field+" required"] = rule{notationRole(map[string]any{"identities": nil}), unchanged}
	rules[field+" minItems"] = rule{many(0), many(1)}
	rules[field+" maxItems"] = rule{many(33), many(32)}
	rules[field+"[] set"] = rule{identities("CN=qa", "CN=qa"), identities("CN=qa", "CN=ci")}
	rules[field+" * accepts every certificate of these CAs: let it stand alone, or remove it"] = rule{
		identities("*", "CN=qa"), identities("*"),
	}
	rules[field+" "+privateKeyMessage] = rule{identities(privateKeyPEM), unchanged}
	rules[field+"[] maxLength"] = rule{identities(text("CN=", 513, "")), identities(text("CN=", 512, ""))}
	for message, value := range map[string]string{
		"an identity cannot be empty: write attributes of the subject, such as C=US,ST=WA,O=acme,CN=qa, or * for every " +
			"certificate": "",
		"drop the prefix x509.subject: and write C=US,ST=WA,O=acme,CN=qa":                     "x509.subject: C=US",
		"an identity is a list of attributes of the subject, such as C=US,ST=WA,O=acme,CN=qa": "qa",
	} {
		rules[field+"[] "+message] = rule{identities(value), identities("2.5.4.3=qa")}
	}
}

func addTimestampRules(rules map[string]rule) {
	const field = "spec.notation"
	bundleOf := func(v string) func(spec) { return set("notation.timestampAuthorities", v) }
	rules[field+" at most one of timestampAuthorities and timestampAuthoritiesFrom may be set"] = rule{
		all(bundleOf(certificatePEM), set("notation.timestampAuthoritiesFrom", source(nil))),
		set("notation.timestampAuthoritiesFrom", source(nil)),
	}
	rules[field+".timestampAuthorities maxLength"] = rule{bundleOf(bundle(65537)), bundleOf(bundle(65536))}
	rules[field+".timestampAuthorities "+bundleMessage] = rule{bundleOf(publicKeyPEM), bundleOf(certificatePEM)}
	rules[field+".timestampAuthorities "+bundlePrivate] = rule{
		bundleOf(certificatePEM + privateKeyPEM), bundleOf(certificatePEM),
	}
}
