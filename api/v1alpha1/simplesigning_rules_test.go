package v1alpha1_test

import (
	"maps"
	"strings"
)

const (
	openPGPKey = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEaVW4ABYJKwYBBAHaRw8BAQdA\n" +
		"-----END PGP PUBLIC KEY BLOCK-----\n"
	someApp = "registry.example.com/acme/app"
)

// simpleSigningSpec returns a valid spec of a TrustRoot with simpleSigning.
func simpleSigningSpec() spec {
	return spec{
		"simpleSigning": map[string]any{
			"lookaside": "https://sigs.example.com/containers",
			"roles":     []any{map[string]any{"name": "qa", "keys": []any{openPGPKey}}},
		},
	}
}

// gpgRole returns an edit that sets a single role with a name, a key and these fields.
func gpgRole(fields map[string]any) func(spec) {
	return set("simpleSigning.roles", []any{edited(map[string]any{"name": "qa", "keys": []any{openPGPKey}}, fields)})
}

// identity returns an edit that sets the rule for the name in a signature.
func identity(kind string, fields map[string]any) func(spec) {
	return set("simpleSigning.signedIdentity", edited(map[string]any{"type": kind}, fields))
}

// addSimpleSigningRules adds the rules of simpleSigning, whose objects are those of
// simpleSigningSpec.
func addSimpleSigningRules(rules map[string]rule) {
	own := simpleSigningRules()
	addLookasideRules(own)
	addSignedIdentityRules(own)
	addRoleRules(own, "spec.simpleSigning.roles[].name",
		func(v any) func(spec) { return gpgRole(map[string]any{"name": v}) })
	addSourceRules(own, "spec.simpleSigning.roles[].keysFrom[]", func(s any) func(spec) {
		return gpgRole(map[string]any{"keysFrom": []any{s}})
	})
	replaced := func(s spec) {
		clear(s)
		maps.Copy(s, simpleSigningSpec())
	}
	for name, r := range own {
		rules[name] = rule{all(replaced, r.refused), all(replaced, r.accepted)}
	}
}

func simpleSigningRules() map[string]rule {
	const roles = "spec.simpleSigning.roles"
	many := func(n int) func(spec) {
		return set("simpleSigning.roles", list(n, func(i int) any {
			return map[string]any{"name": numbered("r%d")(i), "keys": []any{openPGPKey}}
		}))
	}
	keys := func(keys []any) func(spec) { return gpgRole(map[string]any{"keys": keys}) }
	sources := func(n int) func(spec) {
		return gpgRole(map[string]any{"keysFrom": list(n, func(int) any { return source(nil) })})
	}
	return map[string]rule{
		"spec identityRemap and simpleSigning.signedIdentity of type RemapIdentity both map names; remove one of " +
			"them": {
			all(identity("RemapIdentity", map[string]any{"prefix": "a.example.com", "signedPrefix": "b.example.com"}),
				set("identityRemap", []any{map[string]any{"prefix": "a/", "signedPrefix": "b/"}})),
			set("identityRemap", []any{map[string]any{"prefix": "a/", "signedPrefix": "b/"}}),
		},
		roles + " required": {set("simpleSigning", map[string]any{}), unchanged},
		roles + " minItems": {many(0), many(1)},
		roles + " maxItems": {many(33), many(32)},
		roles + "[] map": {
			set("simpleSigning.roles", []any{
				map[string]any{"name": "ci", "keys": []any{openPGPKey}},
				map[string]any{"name": "ci", "keys": []any{openPGPKey}},
			}),
			many(2),
		},
		roles + "[] a role needs at least one of keys and keysFrom": {
			gpgRole(map[string]any{"keys": nil}),
			gpgRole(map[string]any{"keys": nil, "keysFrom": []any{source(nil)}}),
		},
		roles + "[].name required": {gpgRole(map[string]any{"name": nil}), gpgRole(nil)},
		roles + "[].name " + roleNameMessage: {
			gpgRole(map[string]any{"name": "QA"}), gpgRole(nil),
		},
		roles + "[].name " + delegationMessage: {
			gpgRole(map[string]any{"name": "targets/qa"}), gpgRole(nil),
		},
		roles + "[].name maxLength": {
			gpgRole(map[string]any{"name": text("", 129, "")}), gpgRole(map[string]any{"name": text("", 128, "")}),
		},
		roles + "[].name " + privateKeyMessage: {gpgRole(map[string]any{"name": privateKeyPEM}), gpgRole(nil)},
		roles + "[].threshold minimum": {
			gpgRole(map[string]any{"threshold": 0}), gpgRole(map[string]any{"threshold": 1}),
		},
		roles + "[].threshold maximum": {
			gpgRole(map[string]any{"threshold": 33}), gpgRole(map[string]any{"threshold": 32}),
		},
		roles + "[].keys minItems": {keys([]any{}), keys([]any{openPGPKey})},
		roles + "[].keys maxItems": {
			keys(list(9, numbered(openPGPKey+"%d"))), keys(list(8, numbered(openPGPKey+"%d"))),
		},
		roles + "[].keys[] maxLength": {
			keys([]any{text(openPGPKey, 8193, "")}), keys([]any{text(openPGPKey, 8192, "")}),
		},
		roles + "[].keys expected armored OpenPGP keys, each beginning with '-----BEGIN PGP PUBLIC KEY BLOCK-----', " +
			"as 'gpg --armor --export' prints them": {keys([]any{publicKeyPEM}), keys([]any{openPGPKey})},
		roles + "[].keys this is a private key; give the public key, as 'gpg --armor --export' prints it, and keep " +
			"the private key out of the cluster": {
			keys([]any{openPGPKey + "-----BEGIN PGP PRIVATE KEY BLOCK-----"}), keys([]any{openPGPKey}),
		},
		roles + "[].keysFrom minItems": {sources(0), sources(1)},
		roles + "[].keysFrom maxItems": {sources(17), sources(16)},
	}
}

func addLookasideRules(rules map[string]rule) {
	const field = "spec.simpleSigning.lookaside"
	lookaside := func(v any) func(spec) { return set("simpleSigning.lookaside", v) }
	bundled := func(v any) func(spec) { return set("simpleSigning.lookasideCABundle", v) }
	from := func(v any) func(spec) { return set("simpleSigning.lookasideCABundleFrom", v) }
	rules["spec.simpleSigning at most one of lookasideCABundle and lookasideCABundleFrom may be set"] = rule{
		all(bundled(certificatePEM), from(source(nil))), from(source(nil)),
	}
	rules["spec.simpleSigning lookasideCABundle and lookasideCABundleFrom apply to lookaside: set it, or remove the "+
		"CA bundle. The CAs of a registry are in spec.registries"] = rule{
		all(lookaside(nil), bundled(certificatePEM)), lookaside(nil),
	}
	rules[field+" maxLength"] = rule{
		lookaside(text("https://sigs.example.com/", 513, "")), lookaside(text("https://sigs.example.com/", 512, "")),
	}
	for message, value := range map[string]string{
		"lookaside cannot be empty: write a URL such as https://sigs.example.com/containers": "",
		"lookaside has no white space: remove it":                                            "https://sigs.example.com\n",
		"lookaside takes no query or fragment: remove what begins with '?' or '#'":           "https://sigs.example.com/?a=b",
		"write https:// before the host, as in https://sigs.example.com/containers":          "sigs.example.com/containers",
		"lookaside must be an https:// URL such as https://sigs.example.com/containers":      "http://sigs.example.com",
		"lookaside takes no user, password or '@': the operator reads it without credentials": "https://reader:secret@" +
			"sigs.example.com",
		privateKeyMessage: privateKeyPEM,
	} {
		rules[field+" "+message] = rule{lookaside(value), lookaside("https://sigs.example.com:8443")}
	}
	rules[field+"CABundle maxLength"] = rule{bundled(bundle(131073)), bundled(bundle(131072))}
	rules[field+"CABundle "+bundleMessage] = rule{bundled(publicKeyPEM), bundled(certificatePEM)}
	rules[field+"CABundle "+bundlePrivate] = rule{bundled(certificatePEM + privateKeyPEM), bundled(certificatePEM)}
	addSourceRules(rules, field+"CABundleFrom", from)
}

func addSignedIdentityRules(rules map[string]rule) {
	const field = "spec.simpleSigning.signedIdentity"
	reference := func(v any) func(spec) { return identity("ExactReference", map[string]any{"reference": v}) }
	repository := func(v any) func(spec) { return identity("ExactRepository", map[string]any{"repository": v}) }
	remap := func(name string) func(any) func(spec) {
		return func(v any) func(spec) {
			prefixes := map[string]any{"prefix": "mirror.example.com", "signedPrefix": "registry.example.com"}
			prefixes[name] = v
			return identity("RemapIdentity", prefixes)
		}
	}
	rules[field+" reference must be set for type ExactReference, and for no other type"] = rule{
		identity("MatchExact", map[string]any{"reference": someApp + ":v1"}), reference(someApp + ":v1"),
	}
	rules[field+" repository must be set for type ExactRepository, and for no other type"] = rule{
		identity("ExactRepository", nil), repository(someApp),
	}
	rules[field+" prefix and signedPrefix must be set for type RemapIdentity, and for no other type"] = rule{
		remap("signedPrefix")(nil), remap("prefix")("mirror.example.com"),
	}
	rules[field+".type maxLength"] = rule{identity(text("", 33, ""), nil), identity("MatchExact", nil)}
	rules[field+".type type must be MatchRepoDigestOrExact, MatchExact, MatchRepository, ExactReference, "+
		"ExactRepository or RemapIdentity"] = rule{identity("matchExact", nil), identity("MatchRepository", nil)}
	for name, of := range map[string]struct {
		length int
		edit   func(any) func(spec)
	}{
		"reference": {1024, reference}, "repository": {512, repository},
		"prefix": {512, remap("prefix")}, "signedPrefix": {512, remap("signedPrefix")},
	} {
		at := field + "." + name
		rules[at+" minLength"] = rule{of.edit(""), of.edit("a")}
		rules[at+" maxLength"] = rule{
			of.edit(strings.Repeat("a", of.length+1)), of.edit(strings.Repeat("a", of.length)),
		}
		rules[at+" "+privateKeyMessage] = rule{of.edit(privateKeyPEM), of.edit("a")}
	}
}
