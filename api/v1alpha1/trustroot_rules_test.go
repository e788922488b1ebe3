package v1alpha1_test

import (
	"maps"
	"strings"
	"testing"
)

const (
	publicKeyPEM   = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
	certificatePEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
	privateKeyPEM  = "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n"

	pemMessage     = "expected PEM, beginning with '-----BEGIN PUBLIC KEY-----' or '-----BEGIN CERTIFICATE-----'"
	privateMessage = "this is a private key; give the public key or the certificate, and keep the private key out of " +
		"the cluster"
	bundleMessage = "expected PEM certificates, each beginning with '-----BEGIN CERTIFICATE-----'"
	bundlePrivate = "this holds a private key; give certificates only"
	oneBundle     = "at most one of caBundle and caBundleFrom may be set"
	nameMessage   = "an object name consists of lower-case letters, digits, '-' and '.'"
)

// rootSpec returns a valid spec of a TrustRoot.
func rootSpec() spec {
	return spec{
		"notary": map[string]any{
			"server": "https://notary.example.com",
			"root":   map[string]any{"keyIDs": []any{keyID(0)}},
		},
	}
}

// keyID returns a valid key ID, different for each i.
func keyID(i int) any { return numbered("%064x")(i) }

// bundle returns a text of n bytes that the CRD accepts as PEM certificates.
func bundle(n int) string { return text(certificatePEM, n, "") }

func source(fields map[string]any) map[string]any {
	s := map[string]any{"kind": "Secret", "name": "keys", "key": "ca.crt"}
	for name, value := range fields {
		if value == nil {
			delete(s, name)
			continue
		}
		s[name] = value
	}
	return s
}

// notaryRole returns an edit that sets a single role with a name and these fields.
func notaryRole(fields map[string]any) func(spec) {
	role := map[string]any{"name": "qa"}
	for name, value := range fields {
		role[name] = value
		if value == nil {
			delete(role, name)
		}
	}
	return set("notary.roles", []any{role})
}

func delegations(names ...any) func(spec) {
	return notaryRole(map[string]any{"delegations": names})
}

func TestTrustRootRules(t *testing.T) {
	rules := map[string]rule{
		"spec exactly one format must be set: notary, sigstore, notation, simpleSigning or tuf": {
			set("notary", nil), unchanged,
		},

		"spec.refreshInterval maxLength": {
			set("refreshInterval", "0h0m0h0m0h0m0h30s"),
			set("refreshInterval", "0h0m0h0m0h0m030s"),
		},
		"spec.refreshInterval refreshInterval must be a duration such as 90s, 5m or 1h30m, from 30s to 24h": {
			set("refreshInterval", "29s"), set("refreshInterval", "30s"),
		},
		"spec.expiredGrace maxLength": {
			set("expiredGrace", "0h0m0h0m0h0m0h30s"),
			set("expiredGrace", "0h0m0h0m0h0m030s"),
		},
		"spec.expiredGrace expiredGrace must be a duration such as 12h or 72h, up to 720h": {
			set("expiredGrace", "720h1s"), set("expiredGrace", "720h"),
		},
		"spec.revokedKeys a key ID of 40 digits is the fingerprint of an OpenPGP key, which applies to simpleSigning " +
			"alone; write the 64 digits of the format's own key ID": {
			set("revokedKeys", []any{strings.Repeat("a", 40)}),
			all(func(s spec) { clear(s); maps.Copy(s, simpleSigningSpec()) },
				set("revokedKeys", []any{strings.Repeat("a", 40), keyID(1)})),
		},
		"spec.notary.root.keyIDs a canonical key ID has 64 digits: one of 40 is the fingerprint of an OpenPGP key": {
			set("notary.root.keyIDs", []any{strings.Repeat("a", 40)}), unchanged,
		},
		"spec.revokedKeys maxItems": {
			set("revokedKeys", list(257, keyID)), set("revokedKeys", list(256, keyID)),
		},
		"spec.notary.roles maxItems": {
			set("notary.roles", list(65, func(i int) any { return map[string]any{"name": numbered("r%d")(i)} })),
			set("notary.roles", list(64, func(i int) any { return map[string]any{"name": numbered("r%d")(i)} })),
		},
		"spec.notary.roles[] map": {
			set("notary.roles", []any{map[string]any{"name": "ci"}, map[string]any{"name": "ci"}}),
			set("notary.roles", []any{map[string]any{"name": "ci"}, map[string]any{"name": "qa"}}),
		},
		"spec.notary.roles[] role 'releases' needs delegations: targets/releases is signed by any one of all signers " +
			"and proves no role": {
			notaryRole(map[string]any{"name": "releases"}),
			notaryRole(map[string]any{"name": "releases", "delegations": []any{"targets/qa"}}),
		},
		"spec.notary.roles[].name required":           {notaryRole(map[string]any{"name": nil}), notaryRole(nil)},
		"spec.notary.roles[].name " + roleNameMessage: {notaryRole(map[string]any{"name": "QA"}), notaryRole(nil)},
		"spec.notary.roles[].name " + delegationMessage: {
			notaryRole(map[string]any{"name": "targets/qa"}), notaryRole(nil),
		},
		"spec.notary.roles[].name maxLength": {
			notaryRole(map[string]any{"name": text("", 129, "")}),
			notaryRole(map[string]any{"name": text("", 128, "")}),
		},
		"spec.notary.roles[].threshold minimum": {
			notaryRole(map[string]any{"threshold": 0}), notaryRole(map[string]any{"threshold": 1}),
		},
		"spec.notary.roles[].threshold maximum": {
			notaryRole(map[string]any{"threshold": 33}), notaryRole(map[string]any{"threshold": 32}),
		},
		"spec.notary.roles[].delegations minItems": {delegations([]any{}...), delegations("targets/qa")},
		"spec.notary.roles[].delegations maxItems": {
			delegations(list(33, numbered("targets/%d"))...), delegations(list(32, numbered("targets/%d"))...),
		},
		"spec.notary.roles[].delegations[] set": {
			delegations("targets/a", "targets/a"), delegations("targets/a", "targets/b"),
		},
		"spec.notary.roles[].delegations[] maxLength": {
			delegations(text("targets/", 256, "")), delegations(text("targets/", 255, "")),
		},
		"spec.notary.roles[].delegations[] a delegation is targets/<name>, in lower-case letters, digits, '-' and " +
			"'_', or targets itself": {
			delegations("qa"), delegations("targets"),
		},
		"spec.notary.roles[].delegations[] targets/releases is signed by any one of all signers and proves no role; " +
			"name the signer's own delegation": {
			delegations("targets/releases"), delegations("targets/qa"),
		},
		"spec.notary.server required": {set("notary.server", nil), unchanged},
		"spec.notary.server maxLength": {
			set("notary.server", text("https://notary.example.com/", 513, "")),
			set("notary.server", text("https://notary.example.com/", 512, "")),
		},
		"spec.notary.server server takes no user, password or '@': put user and password into a Secret, and name it " +
			"in credentialsSecretRef": {
			set("notary.server", "https://reader:secret@notary.example.com"), unchanged,
		},
		"spec.notary.server server takes no query or fragment: remove what begins with '?' or '#'": {
			set("notary.server", "https://notary.example.com?token=secret"), unchanged,
		},
		"spec.notary.server write https:// in lower case": {
			set("notary.server", "HTTPS://notary.example.com"), set("notary.server", "https://NOTARY.example.com"),
		},
		"spec.notary.server server must be an http(s) URL such as https://notary.example.com": {
			set("notary.server", "ftp://notary.example.com"),
			set("notary.server", "https://notary.example.com:4443/trust"),
		},
		"spec.notary server must be an https:// URL; set plainHTTP: Allow to accept http": {
			set("notary.server", "http://notary.example.com"),
			all(set("notary.server", "http://notary.example.com"), set("notary.plainHTTP", "Allow")),
		},
		"spec.notary credentials are sent over https only; remove credentialsSecretRef or use an https:// server": {
			all(set("notary.server", "http://notary.example.com"), set("notary.plainHTTP", "Allow"),
				set("notary.credentialsSecretRef.name", "reader")),
			set("notary.credentialsSecretRef.name", "reader"),
		},
		"spec.notary a client certificate is shown over https only; remove clientCertificateSecretRef or use an " +
			"https:// server": {
			all(set("notary.server", "http://notary.example.com"), set("notary.plainHTTP", "Allow"),
				set("notary.clientCertificateSecretRef.name", "reader")),
			set("notary.clientCertificateSecretRef.name", "reader"),
		},
		"spec.notary.clientCertificateSecretRef.name maxLength": {
			set("notary.clientCertificateSecretRef.name", text("", 254, "")),
			set("notary.clientCertificateSecretRef.name", text("", 253, "")),
		},
		"spec.notary.clientCertificateSecretRef.name " + nameMessage: {
			set("notary.clientCertificateSecretRef.name", "Reader"),
			set("notary.clientCertificateSecretRef.name", "reader"),
		},
		"spec.notary.clientCertificateSecretRef.name required": {
			set("notary.clientCertificateSecretRef", map[string]any{}),
			set("notary.clientCertificateSecretRef.name", "reader"),
		},
		"spec.notary.server server is the base URL, below which /v2 lies: drop /v2 from its end": {
			set("notary.server", "https://notary.example.com/v2/"),
			set("notary.server", "https://notary.example.com/trust"),
		},
		"spec.notary.plainHTTP maxLength": {
			set("notary.plainHTTP", text("", 33, "")), set("notary.plainHTTP", "Forbid"),
		},
		"spec.notary.plainHTTP plainHTTP must be Forbid or Allow": {
			set("notary.plainHTTP", "allow"), set("notary.plainHTTP", "Allow"),
		},
		"spec.notary.credentialsSecretRef.name required": {
			set("notary.credentialsSecretRef", map[string]any{}), set("notary.credentialsSecretRef.name", "reader"),
		},
		"spec.notary.credentialsSecretRef.name maxLength": {
			set("notary.credentialsSecretRef.name", text("", 254, "")),
			set("notary.credentialsSecretRef.name", text("", 253, "")),
		},
		"spec.notary.credentialsSecretRef.name " + nameMessage: {
			set("notary.credentialsSecretRef.name", "Reader"), set("notary.credentialsSecretRef.name", "reader"),
		},
		"spec.notary.root required": {set("notary.root", nil), unchanged},
		"spec.notary.root pin the root with at least one of keys, keysFrom, keyIDs, caBundle and caBundleFrom; there " +
			"is no trust on first use": {
			set("notary.root", map[string]any{}), unchanged,
		},
		"spec.notary.root.keyIDs minItems": {set("notary.root.keyIDs", []any{}), unchanged},
		"spec.notary.root.keyIDs maxItems": {
			set("notary.root.keyIDs", list(33, keyID)), set("notary.root.keyIDs", list(32, keyID)),
		},
		"spec.notary.root.keysFrom minItems": {
			set("notary.root.keysFrom", []any{}), set("notary.root.keysFrom", []any{source(nil)}),
		},
		"spec.notary.root.keysFrom maxItems": {
			set("notary.root.keysFrom", list(33, func(int) any { return source(nil) })),
			set("notary.root.keysFrom", list(32, func(int) any { return source(nil) })),
		},
		"spec.notary.root.keys maxItems": {
			set("notary.root.keys", list(33, numbered(publicKeyPEM+"%d"))),
			set("notary.root.keys", list(32, numbered(publicKeyPEM+"%d"))),
		},
		"spec.notary.roles[].keysFrom minItems": {
			notaryRole(map[string]any{"keysFrom": []any{}}),
			notaryRole(map[string]any{"keysFrom": []any{source(nil)}}),
		},
		"spec.notary.roles[].keysFrom maxItems": {
			notaryRole(map[string]any{"keysFrom": list(17, func(int) any { return source(nil) })}),
			notaryRole(map[string]any{"keysFrom": list(16, func(int) any { return source(nil) })}),
		},
		"spec.notary.roles[].keys maxItems": {
			notaryRole(map[string]any{"keys": list(17, numbered(publicKeyPEM+"%d"))}),
			notaryRole(map[string]any{"keys": list(16, numbered(publicKeyPEM+"%d"))}),
		},
	}
	addRemapRules(rules)
	addServerRules(rules)
	addTokenServiceRules(rules, "spec.notary.tokenServices",
		func(v ...any) func(spec) { return set("notary.tokenServices", v) })
	addSigstoreRules(rules)
	addNotationRules(rules)
	addSimpleSigningRules(rules)
	addTUFRules(rules)
	for _, ref := range []string{"notary.credentialsSecretRef.name", "notary.clientCertificateSecretRef.name"} {
		addNameRules(rules, "spec."+ref, func(v any) func(spec) { return set(ref, v) })
		rules["spec."+ref+" "+privateKeyMessage] = rule{set(ref, privateKeyPEM), unchanged}
	}
	addRoleRules(rules, "spec.notary.roles[].name",
		func(v any) func(spec) { return notaryRole(map[string]any{"name": v}) })
	rules["spec.notary.roles[].name "+privateKeyMessage] = rule{
		notaryRole(map[string]any{"name": privateKeyPEM}), notaryRole(nil),
	}
	rules["spec.notary.roles[].delegations "+privateKeyMessage] = rule{
		delegations(privateKeyPEM), delegations("targets/qa"),
	}
	for message, value := range map[string]string{
		"a delegation cannot be empty: write targets/ci for the delegation ci, or remove the entry": "",
		"a delegation has no white space: remove it":                                                "targets/qa ",
	} {
		rules["spec.notary.roles[].delegations[] "+message] = rule{delegations(value), delegations("targets/qa")}
	}
	addKeyIDRules(rules, "spec.revokedKeys[]", func(ids ...any) func(spec) { return set("revokedKeys", ids) })
	addKeyIDRules(rules, "spec.notary.root.keyIDs[]",
		func(ids ...any) func(spec) { return set("notary.root.keyIDs", ids) })
	addKeyRules(rules, "spec.notary.root.keys", func(keys []any) func(spec) { return set("notary.root.keys", keys) })
	addKeyRules(rules, "spec.notary.roles[].keys", func(keys []any) func(spec) {
		return notaryRole(map[string]any{"keys": keys})
	})
	addSourceRules(rules, "spec.notary.root.keysFrom[]", func(s any) func(spec) {
		return set("notary.root.keysFrom", []any{s})
	})
	addSourceRules(rules, "spec.notary.roles[].keysFrom[]", func(s any) func(spec) {
		return notaryRole(map[string]any{"keysFrom": []any{s}})
	})
	for _, at := range []string{"notary", "notary.root"} {
		addBundleRules(rules, at)
		addSourceRules(rules, "spec."+at+".caBundleFrom", func(s any) func(spec) { return set(at+".caBundleFrom", s) })
	}
	testRules(t, "TrustRoot", rootSpec, rules)
}

func addServerRules(rules map[string]rule) {
	server := func(v any) func(spec) { return set("notary.server", v) }
	for message, value := range map[string]string{
		"server cannot be empty: write a URL such as https://notary.example.com": "",
		"server has no white space: remove it":                                   "https://notary.example.com\n",
		"write https:// before the host, as in https://notary.example.com":       "notary.example.com:4443",
		privateKeyMessage: privateKeyPEM,
	} {
		rules["spec.notary.server "+message] = rule{server(value), unchanged}
	}
}

func addTokenServiceRules(rules map[string]rule, field string, services func(...any) func(spec)) {
	accepted := services("auth.example.com:5001", "[2001:db8::1]:5001")
	rules[field+" maxItems"] = rule{
		services(list(9, numbered("%d.example.com"))...), services(list(8, numbered("%d.example.com"))...),
	}
	rules[field+"[] set"] = rule{services("a.example.com", "a.example.com"), services("a.example.com", "b.example.com")}
	rules[field+"[] maxLength"] = rule{services(text("", 256, "")), services(text("", 255, ""))}
	for message, value := range map[string]string{
		"a token service is a host name, with its port if it has one, as in auth.example.com:5001":                "auth.example.com:port",
		"a token service cannot be empty: write its host, or remove the entry":                                    "",
		"a token service has no white space: remove it":                                                           " auth.example.com",
		"drop https://: a token service is a host name, with its port if it has one, as in auth.example.com:5001": "https://auth.example.com",
		"drop the '/' and what follows: a token service is a host name, with its port if it has one":              "auth.example.com/token",
		"write the host of a token service in lower case":                                                         "Auth.example.com",
	} {
		rules[field+"[] "+message] = rule{services(value), accepted}
	}
	rules[field+" "+privateKeyMessage] = rule{services(privateKeyPEM), accepted}
	rules[field+" a token service takes no user, password or '@': put user and password into a Secret, and name it in "+
		"credentialsSecretRef"] = rule{services("https://reader:secret@auth.example.com"), accepted}
}

func addRemapRules(rules map[string]rule) {
	remap := func(prefix, signedPrefix any) any {
		return map[string]any{"prefix": prefix, "signedPrefix": signedPrefix}
	}
	remaps := func(remaps ...any) func(spec) { return set("identityRemap", remaps) }
	many := func(n int) func(spec) {
		return remaps(list(n, func(i int) any { return remap(numbered("m%d.example.com/")(i), "docker.io/") })...)
	}
	rules["spec.identityRemap maxItems"] = rule{many(65), many(64)}
	rules["spec.identityRemap[] map"] = rule{
		remaps(remap("a.example.com/", "docker.io/"), remap("a.example.com/", "quay.io/")),
		remaps(remap("a.example.com/", "docker.io/"), remap("b.example.com/", "docker.io/")),
	}
	rules["spec.identityRemap[].prefix required"] = rule{
		remaps(map[string]any{"signedPrefix": "docker.io/"}), remaps(remap("m.example.com/", "docker.io/")),
	}
	rules["spec.identityRemap[].signedPrefix required"] = rule{
		remaps(map[string]any{"prefix": "m.example.com/"}), remaps(remap("m.example.com/", "docker.io/")),
	}
	long := func(n int) string { return text("m.example.com/", n, "/") }
	rules["spec.identityRemap[].prefix maxLength"] = rule{
		remaps(remap(long(513), "docker.io/")), remaps(remap(long(512), "docker.io/")),
	}
	rules["spec.identityRemap[].signedPrefix maxLength"] = rule{
		remaps(remap("m.example.com/", long(513))), remaps(remap("m.example.com/", long(512))),
	}
	rules["spec.identityRemap[].prefix prefix is a registry host, perhaps with path segments, and ends in '/', as in "+
		"mirror.example.com/"] = rule{
		remaps(remap("m.example.com//", "docker.io/")), remaps(remap("m.example.com:5000/hub/", "docker.io/")),
	}
	rules["spec.identityRemap[].signedPrefix signedPrefix is a registry host, perhaps with path segments, and ends "+
		"in '/', as in docker.io/"] = rule{
		remaps(remap("m.example.com/", "docker.io//")), remaps(remap("m.example.com/", "docker.io/library/")),
	}
	for name, c := range map[string]struct {
		example string
		of      func(any) func(spec)
	}{
		"prefix":       {"mirror.example.com/", func(v any) func(spec) { return remaps(remap(v, "docker.io/")) }},
		"signedPrefix": {"docker.io/", func(v any) func(spec) { return remaps(remap("m.example.com/", v)) }},
	} {
		for message, value := range map[string]string{
			"cannot be empty: write a registry host that ends in '/', as in " + c.example: "",
			"has no white space: remove it":                                               c.example + " ",
		} {
			rules["spec.identityRemap[]."+name+" "+name+" "+message] = rule{c.of(value), c.of(c.example)}
		}
		for message, value := range map[string]string{
			"drop https:// or what else ends in '://': " + name + " begins with the registry host, as in " +
				c.example: "https://" + c.example,
			"write " + name + " in lower case":                "Docker.io/",
			"end " + name + " with a '/', as in " + c.example: "docker.io/library",
			privateKeyMessage:                                 privateKeyPEM,
		} {
			rules["spec.identityRemap[]."+name+" "+message] = rule{c.of(value), c.of(c.example)}
		}
	}
}

func addKeyIDRules(rules map[string]rule, field string, ids func(...any) func(spec)) {
	rules[field+" set"] = rule{ids(keyID(1), keyID(1)), ids(keyID(1), keyID(2))}
	rules[field+" maxLength"] = rule{ids(text("", 101, "")), ids(keyID(1))}
	rules[field+" an empty key ID names no key: remove it"] = rule{ids(""), ids(keyID(1))}
	rules[field+" a key ID has no white space: remove it"] = rule{ids(keyID(1).(string) + "\n"), ids(keyID(1))}
	rules[field+" drop the prefix sha256: before the key ID"] = rule{ids("SHA256:" + keyID(1).(string)), ids(keyID(1))}
	rules[field+" write the key ID in lower case"] = rule{ids(strings.Repeat("A", 64)), ids(strings.Repeat("a", 64))}
	rules[field+" a key ID is 64 lower-case hexadecimal digits, or for simpleSigning the 40 of a fingerprint"] = rule{
		ids(keyID(1).(string) + "0"), ids(keyID(1)),
	}
}

func addKeyRules(rules map[string]rule, field string, keys func([]any) func(spec)) {
	rules[field+" minItems"] = rule{keys([]any{}), keys([]any{publicKeyPEM})}
	rules[field+"[] maxLength"] = rule{
		keys([]any{text(publicKeyPEM, 8193, "")}), keys([]any{text(publicKeyPEM, 8192, "")}),
	}
	rules[field+"[] "+pemMessage] = rule{keys([]any{"MFkw"}), keys([]any{certificatePEM})}
	rules[field+" "+privateMessage] = rule{keys([]any{privateKeyPEM}), keys([]any{publicKeyPEM})}
}

func addBundleRules(rules map[string]rule, at string) {
	field := "spec." + at
	rules[field+" "+oneBundle] = rule{
		all(set(at+".caBundle", certificatePEM), set(at+".caBundleFrom", source(nil))),
		set(at+".caBundleFrom", source(nil)),
	}
	rules[field+".caBundle maxLength"] = rule{set(at+".caBundle", bundle(262145)), set(at+".caBundle", bundle(262144))}
	rules[field+".caBundle "+bundleMessage] = rule{
		set(at+".caBundle", publicKeyPEM), set(at+".caBundle", certificatePEM),
	}
	rules[field+".caBundle "+bundlePrivate] = rule{
		set(at+".caBundle", certificatePEM+privateKeyPEM), set(at+".caBundle", certificatePEM+certificatePEM),
	}
}

func addSourceRules(rules map[string]rule, field string, from func(any) func(spec)) {
	accepted := from(source(nil))
	for _, name := range []string{"kind", "name", "key"} {
		rules[field+"."+name+" required"] = rule{from(source(map[string]any{name: nil})), accepted}
	}
	for _, name := range []string{"name", "key"} {
		rules[field+"."+name+" maxLength"] = rule{
			from(source(map[string]any{name: text("", 254, "")})),
			from(source(map[string]any{name: text("", 253, "")})),
		}
	}
	rules[field+".kind maxLength"] = rule{from(source(map[string]any{"kind": text("", 33, "")})), accepted}
	rules[field+".kind kind must be Secret or ConfigMap"] = rule{
		from(source(map[string]any{"kind": "Pod"})), from(source(map[string]any{"kind": "ConfigMap"})),
	}
	rules[field+".key minLength"] = rule{from(source(map[string]any{"key": ""})), accepted}
	rules[field+".name "+nameMessage] = rule{from(source(map[string]any{"name": "Keys"})), accepted}
	addNameRules(rules, field+".name", func(v any) func(spec) { return from(source(map[string]any{"name": v})) })
	for _, name := range []string{"name", "key"} {
		rules[field+"."+name+" "+privateKeyMessage] = rule{from(source(map[string]any{name: privateKeyPEM})), accepted}
	}
}
