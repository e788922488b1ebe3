package sigstore

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/cosign"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/trust"
)

// predicate returns the predicate of an example of the package attestation.
func predicate(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("attestation", "testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var s struct{ Predicate json.RawMessage }
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return string(s.Predicate)
}

// example is one example of docs/attestations.md.
type example struct {
	root    *v1alpha1.TrustRoot
	command []string // without the image
	denial  string
}

// examples reads the page: each TrustRoot is followed by a command and a denial.
func examples(t *testing.T) []example {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "attestations.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)\n```([a-z]*)\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	var all []example
	for _, b := range blocks {
		switch text := strings.TrimSpace(b[2]); {
		case b[1] == "yaml" && strings.HasPrefix(text, "apiVersion:"):
			root := &v1alpha1.TrustRoot{}
			if err := yaml.UnmarshalStrict([]byte(text), root); err != nil {
				t.Fatal(err)
			}
			all = append(all, example{root: root})
		case b[1] == "console":
			command := strings.Fields(strings.TrimPrefix(text, "$ cosign "))
			all[len(all)-1].command = command[:len(command)-1]
		case b[1] == "":
			all[len(all)-1].denial = text
		}
	}
	return all
}

// keyID finds the ID of a key in messages.
var keyID = regexp.MustCompile(`key [0-9a-f]{12}`)

// The examples of docs/attestations.md: what the real cosign attests with the command of the page
// proves the role of its TrustRoot, in both layouts, and a predicate that does not meet a condition
// is denied with the text of the page.
func TestRealAttestations(t *testing.T) {
	t.Parallel()
	server := distribution.Run(t, distribution.Options{})
	client := cosign.NewClient(t, server.CA)
	predicates := map[string]struct{ file, from, to string }{
		"load-test":  {"custom", `"p99Milliseconds": 180`, `"p99Milliseconds": 300`},
		"provenance": {"provenance", "https://example.com/builders/hosted", "https://example.com/builders/laptop"},
		"sbom":       {"sbom", `"name": "zlib"`, `"name": "log4j-core"`},
		"scanned":    {"vulnerabilities", "MEDIUM", "CRITICAL"},
	}
	keys := map[string]string{}
	for _, name := range []string{"ci", "qa", "scanner"} {
		public, err := client.GenerateKey(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		keys[name+".pub"] = public
	}
	all := examples(t)
	if len(all) != len(predicates) {
		t.Fatalf("got %d examples, want %d", len(all), len(predicates))
	}
	for _, e := range all {
		role := e.root.Spec.Sigstore.Roles[0]
		one := predicates[string(role.Name)]
		material := trust.Material{role.KeysFrom[0]: keys[role.KeysFrom[0].Key]}
		e.root.Spec.Registries = registryOf(server)
		root, err := Format{}.Build(e.root, material)
		if err != nil {
			t.Fatalf("%s: %v", role.Name, err)
		}
		for _, layout := range cosign.Layouts() {
			image := pushImage(t, server, fmt.Sprintf("app:%s-%s", role.Name, layout))
			attest := func(content string) trust.Evidence {
				t.Helper()
				file := e.command[slices.Index(e.command, "--predicate")+1]
				if err := os.WriteFile(filepath.Join(client.Dir, file), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
				args := append(slices.Clone(e.command), fmt.Sprintf("--new-bundle-format=%t",
					layout == cosign.BundleLayout), image)
				if _, err := client.Run(t.Context(), args...); err != nil {
					t.Fatal(err)
				}
				got, err := fetch(t, root, image, nil)
				if err != nil {
					t.Fatalf("%s, %s: %v", role.Name, layout, err)
				}
				return got
			}
			good := predicate(t, one.file)
			if e := attest(good); rolesOf(e) != string(role.Name) {
				t.Errorf("%s, %s: got %q, want the role:\n%s", role.Name, layout, rolesOf(e),
					whys(e, string(role.Name)))
			}
			bad := strings.ReplaceAll(good, one.from, one.to)
			got := attest(bad)
			if bad == good || rolesOf(got) != "" {
				t.Errorf("%s, %s, beside a bad one: got %q, want no role", role.Name, layout, rolesOf(got))
			}
			want := keyID.ReplaceAllString(e.denial, "key")
			if layout == cosign.TagLayout {
				want = strings.ReplaceAll(want, "a Sigstore bundle", "a layer of cosign's tag")
			}
			if said := keyID.ReplaceAllString(whys(got, string(role.Name)), "key"); !strings.Contains(
				strings.ReplaceAll(said, " | ", " "), want) {
				t.Errorf("%s, %s: got %q, want %q", role.Name, layout, said, want)
			}
		}
	}
}
