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

// A private key that is pasted into any string of a spec is refused, and the API server prints no
// line of it: its message goes to terminals and into logs.
func TestThreatPrivateKeyInSpec(t *testing.T) {
	c := server(t)
	for kind, base := range map[string]func() spec{"ImagePolicy": policySpec, "TrustRoot": rootSpec} {
		places := map[string]func(any) any{}
		collectStrings(specSchema(t, kind), func(v any) any { return v }, "spec", places)
		if len(places) < 8 {
			t.Fatalf("found only %d strings in %s", len(places), kind)
		}
		for place, wrap := range places {
			for name, key := range privateKeys(t) {
				edited := wrap(key).(map[string]any)
				s := base()
				merge(s, edited)
				err := submit(t, c, kind, s)
				if err == nil {
					t.Errorf("%s: %s takes a private key (%s)", kind, place, name)
					continue
				}
				for _, line := range strings.Split(strings.TrimSpace(key), "\n")[1:] {
					if len(line) >= 8 && !strings.HasPrefix(line, "-----") && !strings.Contains(line, ":") &&
						strings.Contains(err.Error(), line[:8]) {
						t.Errorf("%s: %s prints the private key (%s): %v", kind, place, name, err)
						break
					}
				}
			}
		}
	}
}

// collectStrings puts every free string below schema into places, with a function that makes the
// spec that holds a value there alone.
func collectStrings(schema *apiextensionsv1.JSONSchemaProps, wrap func(any) any, at string,
	places map[string]func(any) any) {
	if schema.Type == "string" {
		places[at] = wrap
	}
	if schema.Items != nil {
		collectStrings(schema.Items.Schema, func(v any) any { return wrap([]any{v}) }, at+"[]", places)
	}
	if schema.AdditionalProperties != nil {
		collectStrings(schema.AdditionalProperties.Schema, func(v any) any { return wrap(map[string]any{"env": v}) },
			at+".*", places)
		places[at+", as a key"] = func(v any) any { return wrap(map[string]any{v.(string): "a"}) }
	}
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		property := schema.Properties[name]
		collectStrings(&property, func(v any) any { return wrap(map[string]any{name: v}) }, at+"."+name, places)
	}
}

// merge puts edit into s; maps are merged, and everything else is replaced.
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

// privateKeys returns private keys in the forms that tools write, the shortest one too.
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
