package v1alpha1_test

import "maps"

// tufSpec returns a valid spec of a TrustRoot with tuf.
func tufSpec() spec {
	return spec{"tuf": map[string]any{
		"server": "https://tuf.example.com/metadata", "root": `{"signed": {}}`,
		"roles": []any{map[string]any{"name": "qa"}},
	}}
}

// tufRole returns an edit that sets a single role with a name and these fields.
func tufRole(fields map[string]any) func(spec) {
	return set("tuf.roles", []any{edited(map[string]any{"name": "qa"}, fields)})
}

// addTUFRules adds the rules of tuf, whose objects are those of tufSpec.
func addTUFRules(rules map[string]rule) {
	own := tufRules()
	addTUFServerRules(own)
	addTUFPathRules(own)
	addTUFRoleRules(own)
	addRoleRules(own, "spec.tuf.roles[].name", func(v any) func(spec) { return tufRole(map[string]any{"name": v}) })
	addKeyRules(own, "spec.tuf.roles[].keys", func(keys []any) func(spec) {
		return tufRole(map[string]any{"keys": keys})
	})
	addSourceRules(own, "spec.tuf.roles[].keysFrom[]", func(s any) func(spec) {
		return tufRole(map[string]any{"keysFrom": []any{s}})
	})
	addSourceRules(own, "spec.tuf.caBundleFrom", func(s any) func(spec) { return set("tuf.caBundleFrom", s) })
	addSourceRules(own, "spec.tuf.rootFrom", func(s any) func(spec) {
		return all(set("tuf.root", nil), set("tuf.rootFrom", s))
	})
	replaced := func(s spec) {
		clear(s)
		maps.Copy(s, tufSpec())
	}
	for name, r := range own {
		rules[name] = rule{all(replaced, r.refused), all(replaced, r.accepted)}
	}
}

func tufRules() map[string]rule {
	secretName := func(v any) func(spec) { return set("tuf.credentialsSecretRef", map[string]any{"name": v}) }
	rules := map[string]rule{
		"spec.tuf " + oneBundle: {
			all(set("tuf.caBundle", certificatePEM), set("tuf.caBundleFrom", source(nil))),
			set("tuf.caBundle", certificatePEM),
		},
		"spec.tuf exactly one of root and rootFrom must be set; there is no trust on first use": {
			set("tuf.root", nil), all(set("tuf.root", nil), set("tuf.rootFrom", source(nil))),
		},
		"spec.tuf.caBundle maxLength": {
			set("tuf.caBundle", bundle(262145)), set("tuf.caBundle", bundle(262144)),
		},
		"spec.tuf.caBundle " + bundleMessage: {set("tuf.caBundle", publicKeyPEM), set("tuf.caBundle", certificatePEM)},
		"spec.tuf.caBundle " + bundlePrivate: {set("tuf.caBundle", certificatePEM+privateKeyPEM), unchanged},
		"spec.tuf.root maxLength": {
			set("tuf.root", text("{", 131073, "")), set("tuf.root", text("{", 131072, "")),
		},
		"spec.tuf.root " + privateKeyMessage: {set("tuf.root", privateKeyPEM), unchanged},
		"spec.tuf.credentialsSecretRef.name required": {
			set("tuf.credentialsSecretRef", map[string]any{}), secretName("reader"),
		},
		"spec.tuf.credentialsSecretRef.name maxLength": {
			secretName(text("", 254, "")), secretName(text("", 253, "")),
		},
		"spec.tuf.credentialsSecretRef.name " + nameMessage:       {secretName("Reader"), secretName("reader")},
		"spec.tuf.credentialsSecretRef.name " + privateKeyMessage: {secretName(privateKeyPEM), unchanged},
		"spec.tuf.root root is the content of a root.json, which begins with '{'": {
			set("tuf.root", "https://tuf.example.com/root.json"), set("tuf.root", "\n{}"),
		},
	}
	addNameRules(rules, "spec.tuf.credentialsSecretRef.name", secretName)
	return rules
}

func addTUFServerRules(rules map[string]rule) {
	const field = "spec.tuf.server "
	server := func(v any) func(spec) { return set("tuf.server", v) }
	rules["spec.tuf.server required"] = rule{set("tuf.server", nil), unchanged}
	rules[field+"maxLength"] = rule{
		server(text("https://tuf.example.com/", 513, "")), server(text("https://tuf.example.com/", 512, "")),
	}
	for message, value := range map[string]string{
		"server cannot be empty: write a URL such as https://tuf.example.com/metadata":           "",
		"server has no white space: remove it":                                                   "https://tuf.example.com/\n",
		"write https:// before the host, as in https://tuf.example.com/metadata":                 "tuf.example.com",
		"write https:// in lower case":                                                           "HTTPS://tuf.example.com",
		"server must be an https:// URL: a file server without TLS is not read":                  "http://tuf.example.com",
		"write {repository} in server once, as a whole element of the path, and no other braces": "https://tuf.example.com/x-{repository}",
		"server must be an https URL such as https://tuf.example.com/metadata":                   "https://tuf.example.com:port/",
		"server is the folder of the metadata: drop the name of the file from its end":           "https://tuf.example.com/timestamp.json",
		"server takes no user, password or '@': put user and password into a Secret, and name it in " +
			"credentialsSecretRef": "https://reader:secret@tuf.example.com",
		"server takes no query or fragment: remove what begins with '?' or '#'": "https://tuf.example.com/?a=b",
		privateKeyMessage: privateKeyPEM,
	} {
		rules[field+message] = rule{server(value), server("https://tuf.example.com/a/{repository}/metadata")}
	}
}

func addTUFPathRules(rules map[string]rule) {
	const field = "spec.tuf.targetPath "
	path := func(v any) func(spec) { return set("tuf.targetPath", v) }
	rules[field+"maxLength"] = rule{
		path(text("{repository}:{tag}", 257, "")), path(text("{repository}:{tag}", 256, "")),
	}
	rules[field+"targetPath must contain {repository} where server does not: otherwise a signature on one image would "+
		"count for the same tag of every other"] = rule{
		path("{tag}"), all(path("{tag}"), set("tuf.server", "https://tuf.example.com/{repository}")),
	}
	for message, value := range map[string]string{
		"write {tag} in targetPath, as in {repository}:{tag}":                          "{repository}",
		"targetPath has no white space: remove it":                                     "{repository}: {tag}",
		"the only braces that targetPath may have are those of {repository} and {tag}": "{repository}:{tag}{arch}",
		"write {tag} and {repository} once each in targetPath":                         "{repository}:{tag}-{tag}",
		"targetPath has an empty path element, one of dots, or a backslash: remove it": "{repository}/../{tag}",
		"write a ':' or '/' between {repository} and {tag} in targetPath: otherwise a path could be of two " +
			"images": "{repository}-{tag}",
		privateKeyMessage: "{repository}{tag}" + privateKeyPEM,
	} {
		rules[field+message] = rule{path(value), path("images/{repository}/{tag}.sig")}
	}
}

func addTUFRoleRules(rules map[string]rule) {
	const at = "spec.tuf.roles"
	many := func(n int) func(spec) {
		return set("tuf.roles", list(n, func(i int) any { return map[string]any{"name": numbered("r%d")(i)} }))
	}
	with := func(name string, v any) func(spec) { return tufRole(map[string]any{name: v}) }
	rules[at+" maxItems"] = rule{many(33), many(32)}
	rules[at+"[] map"] = rule{
		set("tuf.roles", []any{map[string]any{"name": "ci"}, map[string]any{"name": "ci"}}), many(2),
	}
	rules[at+"[].name required"] = rule{with("name", nil), unchanged}
	rules[at+"[].name maxLength"] = rule{with("name", text("", 129, "")), with("name", text("", 128, ""))}
	rules[at+"[].name "+roleNameMessage] = rule{with("name", "QA"), unchanged}
	rules[at+"[].name "+delegationMessage] = rule{with("name", "targets/qa"), unchanged}
	rules[at+"[].name "+privateKeyMessage] = rule{with("name", privateKeyPEM), unchanged}
	rules[at+"[].threshold minimum"] = rule{with("threshold", 0), with("threshold", 1)}
	rules[at+"[].threshold maximum"] = rule{with("threshold", 33), with("threshold", 32)}
	rules[at+"[].keys maxItems"] = rule{
		with("keys", list(17, numbered(publicKeyPEM+"%d"))), with("keys", list(16, numbered(publicKeyPEM+"%d"))),
	}
	rules[at+"[].keysFrom minItems"] = rule{with("keysFrom", []any{}), with("keysFrom", []any{source(nil)})}
	rules[at+"[].keysFrom maxItems"] = rule{
		with("keysFrom", list(17, func(int) any { return source(nil) })),
		with("keysFrom", list(16, func(int) any { return source(nil) })),
	}
	names := func(v ...any) func(spec) { return with("delegations", v) }
	rules[at+"[].delegations minItems"] = rule{with("delegations", []any{}), names("qa-team")}
	rules[at+"[].delegations maxItems"] = rule{
		with("delegations", list(33, numbered("d%d"))), with("delegations", list(32, numbered("d%d"))),
	}
	rules[at+"[].delegations[] set"] = rule{names("a", "a"), names("a", "b")}
	rules[at+"[].delegations "+privateKeyMessage] = rule{names(privateKeyPEM), names("a")}
	rules[at+"[].delegations[] maxLength"] = rule{names(text("", 256, "")), names(text("", 255, ""))}
	for message, value := range map[string]string{
		"a delegation cannot be empty: write its name, or remove the entry":                  "",
		"a delegation begins and ends without white space: remove it":                        "qa ",
		"root, timestamp and snapshot sign no targets: name a delegation, or targets itself": "snapshot",
		"the name of a delegation has an empty path element, one of dots, or a backslash: such a delegation is never " +
			"read": "qa/../ci",
	} {
		rules[at+"[].delegations[] "+message] = rule{names(value), names("targets", "qa/emea")}
	}
}
