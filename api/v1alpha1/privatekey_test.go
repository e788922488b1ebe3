package v1alpha1_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// A private key in any string of a spec is refused. The API server prints no line of it, because
// its message is shown in terminals and written to logs.
func TestThreatPrivateKeyInSpec(t *testing.T) {
	c := server(t)
	for kind, base := range map[string]func(path string) spec{
		"ImagePolicy": func(string) spec { return policySpec() }, "TrustRoot": rootSpecFor,
	} {
		fields := map[string]func(any) any{}
		collectStrings(specSchema(t, kind), func(v any) any { return v }, "spec", fields)
		if len(fields) < 8 {
			t.Fatalf("%s: got %d strings, want at least 8", kind, len(fields))
		}
		for path, wrap := range fields {
			for name, key := range privateKeys(t) {
				edited := wrap(key).(map[string]any)
				s := base(path)
				merge(s, edited)
				err := submit(t, c, kind, s)
				if err == nil {
					t.Errorf("%s: %s accepts a private key (%s), want it refused", kind, path, name)
					continue
				}
				for _, line := range strings.Split(strings.TrimSpace(key), "\n")[1:] {
					if len(line) >= 8 && !strings.HasPrefix(line, "-----") && !strings.Contains(line, ":") &&
						strings.Contains(err.Error(), line[:8]) {
						t.Errorf("%s: %s prints the private key (%s), want no line of it: %v", kind, path, name, err)
						break
					}
				}
			}
		}
	}
}

// rootSpecFor returns a valid TrustRoot of the format that has a field: else it would be refused
// for that, whatever the value of the field.
func rootSpecFor(path string) spec {
	if strings.HasPrefix(path, "spec.notation") {
		return notationSpec()
	}
	for _, field := range []string{"sigstore", "registries", "resolveInterval"} {
		if strings.HasPrefix(path, "spec."+field) {
			return sigstoreSpec()
		}
	}
	if strings.HasPrefix(path, "spec.simpleSigning") {
		s := simpleSigningSpec()
		kinds := map[string]string{
			"reference": "ExactReference", "repository": "ExactRepository", "prefix": "RemapIdentity",
			"signedPrefix": "RemapIdentity",
		}
		if field, ok := strings.CutPrefix(path, "spec.simpleSigning.signedIdentity."); ok && kinds[field] != "" {
			of := map[string]any{"type": kinds[field]}
			if strings.HasSuffix(strings.ToLower(field), "prefix") {
				of["prefix"], of["signedPrefix"] = "mirror.example.com", "registry.example.com"
			}
			set("simpleSigning.signedIdentity", of)(s)
		}
		return s
	}
	return rootSpec()
}

// collectStrings adds every string below schema to fields, by its path. The value is a function
// that returns a spec with only that string set.
func collectStrings(schema *apiextensionsv1.JSONSchemaProps, wrap func(any) any, path string,
	fields map[string]func(any) any) {
	if schema.Type == "string" {
		fields[path] = wrap
	}
	if schema.Items != nil {
		collectStrings(schema.Items.Schema, func(v any) any { return wrap([]any{v}) }, path+"[]", fields)
	}
	if schema.AdditionalProperties != nil {
		collectStrings(schema.AdditionalProperties.Schema, func(v any) any { return wrap(map[string]any{"env": v}) },
			path+".*", fields)
		fields[path+", as a key"] = func(v any) any { return wrap(map[string]any{v.(string): "a"}) }
	}
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		property := schema.Properties[name]
		collectStrings(&property, func(v any) any { return wrap(map[string]any{name: v}) }, path+"."+name, fields)
	}
}

// merge merges the maps of edit into s, and replaces every other value.
func merge(s, edit map[string]any) {
	for name, value := range edit {
		into, ok := s[name].(map[string]any)
		if from, both := value.(map[string]any); ok && both {
			merge(into, from)
			continue
		}
		s[name] = value
	}
}

// privateKeys returns private keys in the formats that tools write, from the shortest to RSA.
func privateKeys(t *testing.T) map[string]string {
	t.Helper()
	_, short, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{
		"PKCS #1": string(
			pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(long)})),
	}
	for name, key := range map[string]any{"Ed25519": short, "P-256": curve, "RSA": long} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		keys["encrypted "+name] = string(
			pem.EncodeToMemory(&pem.Block{
				Type: "ENCRYPTED PRIVATE KEY", Headers: map[string]string{"role": "root"}, Bytes: der,
			}))
		keys["certificate and "+name] = certificatePEM + keys[name]
	}
	return keys
}
