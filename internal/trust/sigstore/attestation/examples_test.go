package attestation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/trust/sigstore/identity"
)

const (
	image = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	other = "sha256:b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c"
	third = "sha256:7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730"

	provenance = "https://slsa.dev/provenance/v1"
	sbom       = "https://spdx.dev/Document"
	vulns      = "https://cosign.sigstore.dev/attestation/vuln/v1"
	loadTest   = "https://example.com/load-test/v1"
)

var now = time.Date(2026, 11, 30, 13, 0, 0, 0, time.UTC)

// example returns an example of this package's testdata.
func example(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// rule compiles a Spec that must be valid.
func rule(t *testing.T, spec Spec) *Rule {
	t.Helper()
	r, err := Compile("spec.sigstore.roles[0].attestation", spec)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// envelope returns an attestation that CI has signed.
func envelope(payload []byte) Verified {
	return Verified{Name: "bundle 1", Signer: identity.Signer{Entry: "identities[0]", Key: "1"},
		PayloadType: PayloadType,
		Payload:     payload}
}

// reasons returns the reasons of a verdict, one a line.
func reasons(v *Verdict, at time.Time) string {
	var all []string
	for _, r := range v.Rejected(at) {
		all = append(all, r.By+" "+r.Why)
	}
	return strings.Join(all, "\n")
}

// signed reports whether one signer proves the role.
func signed(v *Verdict, at time.Time) bool {
	_, _, ok := v.Signed(1, at)
	return ok
}

// The examples of the documentation: what an administrator demands of a kind of attestation, and
// one demand that the example does not meet.
func TestExamples(t *testing.T) {
	cases := map[string]struct {
		predicateType string
		meets         []string
		fails         []string
	}{
		"provenance": {provenance, []string{
			`predicate.buildDefinition.buildType == 'https://example.com/build/v1'`,
			`predicate.runDetails.builder.id.startsWith('https://example.com/builders/')`,
			`predicate.buildDefinition.externalParameters.workflow.ref == 'refs/heads/main'`,
			`predicate.buildDefinition.resolvedDependencies.exists(d, d.uri.startsWith('git+https://github.com/acme/app@'))`,
			`statement.subject.all(s, s.name == 'registry.example.com/acme/app')`,
			`timestamp(predicate.runDetails.metadata.finishedOn) - timestamp(predicate.runDetails.metadata.startedOn) < duration('1h')`,
		}, []string{
			`predicate.buildDefinition.buildType == 'https://example.com/build/v2'`,
			`predicate.runDetails.builder.id.matches('^https://example\\.com/builders/trusted$')`,
			`predicate.buildDefinition.resolvedDependencies.all(d, has(d.name))`,
		}},
		"sbom": {sbom, []string{
			`predicate.spdxVersion == 'SPDX-2.3'`,
			`predicate.packages.all(p, p.licenseConcluded in ['Apache-2.0', 'MIT', 'Zlib'])`,
			`!predicate.packages.exists(p, p.name == 'log4j-core')`,
			`'Organization: ACME' in predicate.creationInfo.creators`,
		}, []string{
			`predicate.packages.all(p, p.licenseConcluded in ['Apache-2.0', 'MIT'])`,
			`!predicate.packages.exists(p, p.name == 'zlib' && p.versionInfo.startsWith('1.3.'))`,
			`size(predicate.packages) > 100`,
		}},
		"vulnerabilities": {vulns, []string{
			`!predicate.scanner.result.vulnerabilities.exists(v, v.severity in ['HIGH', 'CRITICAL'])`,
			`predicate.scanner.result.vulnerabilities.all(v, v.score < 7.0)`,
			`predicate.scanner.uri.startsWith('pkg:example/scanner@')`,
			`predicate.invocation['builder.id'] == 'https://example.com/scanner'`,
			`timestamp(predicate.metadata.scanFinishedOn) > timestamp('2026-11-01T00:00:00Z')`,
			`predicate.scanner.result.vulnerabilities.all(v, v.severity.lowerAscii() != 'critical')`,
		}, []string{
			`predicate.scanner.result.vulnerabilities.all(v, v.score < 5)`,
			`size(predicate.scanner.result.vulnerabilities) == 0`,
			`predicate.scanner.result.findings.all(v, v.score < 7.0)`,
		}},
		"custom": {loadTest, []string{
			`predicate.passed == true`,
			`predicate.p99Milliseconds < 200 && predicate.errors == 0`,
			`predicate.environment == 'staging'`,
			`size(statement.subject) == 2 && statement.predicateType.endsWith('/v1')`,
			`predicate.p99Milliseconds * 2 == 360`,
		}, []string{
			`predicate.p99Milliseconds < 180`,
			`predicate.environment == 'production'`,
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			all := []Verified{envelope(example(t, name))}
			v := rule(t, Spec{PredicateType: c.predicateType, Conditions: c.meets}).Judge(image, nil, all)
			if !signed(v, now) {
				t.Errorf("got not met, want met:\n%s", reasons(v, now))
			}
			for _, condition := range c.fails {
				v := rule(t, Spec{PredicateType: c.predicateType, Conditions: append(c.meets[:1:1], condition)}).Judge(
					image, nil, all)
				if signed(v, now) {
					t.Errorf("%s: got met, want not met", condition)
				}
				want := "an attestation (" + c.predicateType + ") in bundle 1 does not meet conditions[1] (" +
					condition + ")"
				if got := reasons(v, now); !strings.HasPrefix(got, want) {
					t.Errorf("got %s\nwant %s", got, want)
				}
			}
		})
	}
}
