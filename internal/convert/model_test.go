package convert

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
)

// roles of the models: a rule n requires signer sn, or it is one of these.
const (
	ruleAllow = "allow"
	ruleDeny  = "deny"
)

// covering returns the policies that cover an image.
func covering(t *testing.T, r *Result, image string) []v1alpha1.ImagePolicySpec {
	t.Helper()
	ref, err := imageref.Parse(image)
	if err != nil {
		t.Fatal(err)
	}
	matches := func(patterns []v1alpha1.ImagePattern) bool {
		return slices.ContainsFunc(patterns, func(p v1alpha1.ImagePattern) bool {
			parsed, err := imageref.ParsePattern(string(p))
			if err != nil {
				t.Fatalf("pattern %q: %v", p, err)
			}
			return parsed.Match(ref)
		})
	}
	var all []v1alpha1.ImagePolicySpec
	for _, p := range r.Policies {
		if matches(p.Spec.Images) && !matches(p.Spec.ExceptImages) {
			all = append(all, p.Spec)
		}
	}
	return all
}

// admits reports whether policies admit an image that the signers have signed. Without any policy
// it is admitted, as the manager's default does.
func admits(policies []v1alpha1.ImagePolicySpec, signers map[string]bool) bool {
	for _, p := range policies {
		for _, q := range p.RequiredRoles {
			need, have := 1, 0
			if q.Threshold != nil {
				need = int(*q.Threshold)
			}
			for _, role := range append(slices.Clone(q.AnyOf), q.Role) {
				if signers[string(role)] {
					have++
				}
			}
			if have < need {
				return false
			}
		}
	}
	return true
}

// pick returns one of the choices.
func pick(r *rand.Rand, choices ...string) string { return choices[r.IntN(len(choices))] }

func outcome(r *rand.Rand, n int) string {
	return pick(r, ruleAllow, ruleDeny, fmt.Sprintf("s%d", n), fmt.Sprintf("s%d", n))
}

func randomImage(r *rand.Rand) string {
	parts := []string{pick(r, "registry.example.com", "sub.example.com", "other.example.com:5000")}
	for range 1 + r.IntN(3) {
		parts = append(parts, pick(r, "a", "b", "ab", "abc"))
	}
	return strings.Join(parts, "/") + ":" + pick(r, "v1", "v2", "latest")
}

// checkModel converts an input, and compares what it admits with what the source admitted. The
// source's outcome for an image is allow, deny or the signer that it requires.
func checkModel(t *testing.T, seed uint64, file string, input string, source func(image string) string) (carried int) {
	t.Helper()
	result, err := Convert([]File{{file, []byte(input)}}, Options{})
	if err != nil {
		t.Fatalf("seed %d: %v\n%s", seed, err, input)
	}
	r := rand.New(rand.NewPCG(seed, 2))
	for range 40 {
		image := randomImage(r)
		want := source(image)
		policies := covering(t, result, image)
		for n := -1; n < 6; n++ {
			signers := map[string]bool{}
			if n >= 0 {
				signers[fmt.Sprintf("s%d", n)] = true
			}
			before := want == ruleAllow || signers[want]
			after := admits(policies, signers)
			if after && !before {
				t.Fatalf("seed %d: image %s signed by %v: got admitted, want denied: the source has %s\n%s\n%v", seed,
					image, slices.Collect(maps.Keys(signers)), want, input, result.Policies)
			}
			if after && before {
				carried++
			}
		}
	}
	return carried
}

// glob returns the regular expression of a pattern in which "*" matches everything.
func glob(pattern string) *regexp.Regexp {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$")
}

// A policy of Connaisseur admits nothing more once it is converted: of the rules that match an
// image, Connaisseur applies the closest, and denies where none matches.
func TestThreatConvertedConnaisseurAdmitsNoMore(t *testing.T) {
	carried := 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		var patterns, outcomes []string
		for n := range 1 + r.IntN(5) {
			pattern := "*:*"
			if r.IntN(4) > 0 {
				parts := []string{
					pick(r, "registry.example.com", "*.example.com", "*", "other.example.com:5000", "registry.*"),
				}
				for range r.IntN(4) {
					parts = append(parts, pick(r, "a", "b", "*", "a*", "*b", "ab", "*b*", "a*b*"))
				}
				if len(parts) == 1 {
					parts = append(parts, "*")
				}
				pattern = strings.Join(parts, "/") + pick(r, "", ":*", ":*", ":v1", ":v*")
			}
			patterns, outcomes = append(patterns, pattern), append(outcomes, outcome(r, n))
		}
		carried += checkModel(t, seed, "values.yaml", connaisseurInput(patterns, outcomes), func(image string) string {
			return connaisseurModel(patterns, outcomes, image)
		})
	}
	if carried < 300 {
		t.Errorf("got %d images admitted before and after, want more: the models prove little", carried)
	}
}

func connaisseurInput(patterns, outcomes []string) string {
	var b strings.Builder
	b.WriteString("application:\n  validators:\n  - {name: allow, type: static, approve: true}\n" +
		"  - {name: deny, type: static, approve: false}\n")
	for n := range 6 {
		fmt.Fprintf(&b, "  - name: v%d\n    type: cosign\n    trustRoots: [{name: s%d, key: %q}]\n", n, n, nobodysKey)
	}
	b.WriteString("  policy:\n")
	for i, p := range patterns {
		switch o := outcomes[i]; o {
		case ruleAllow, ruleDeny:
			fmt.Fprintf(&b, "  - {pattern: %q, validator: %s}\n", p, o)
		default:
			fmt.Fprintf(&b, "  - {pattern: %q, validator: v%s, with: {trustRoot: %s}}\n", p, o[1:], o)
		}
	}
	return b.String()
}

// connaisseurModel says which rule holds: that with more parts, else with the longer common prefix
// of a part, else with the longer part, from the left, else the later one.
func connaisseurModel(patterns, outcomes []string, image string) string {
	best := -1
	key := func(i int) []int {
		parts, names := strings.Split(patterns[i], "/"), strings.Split(image, "/")
		values := []int{len(parts)}
		for k, part := range parts {
			n := 0
			for k < len(names) && n < min(len(part), len(names[k])) && part[n] == names[k][n] {
				n++
			}
			values = append(values, n)
		}
		for _, part := range parts {
			values = append(values, len(part))
		}
		return append(values, i)
	}
	for i, p := range patterns {
		if !strings.HasPrefix(p, "*") {
			p = "*" + p
		}
		if !strings.HasSuffix(p, "*") {
			p += "*"
		}
		if glob(p).MatchString(image) && len(strings.Split(patterns[i], "/")) <= len(strings.Split(image, "/")) &&
			(best < 0 || slices.Compare(key(i), key(best)) > 0) {
			best = i
		}
	}
	if best < 0 {
		return ruleDeny
	}
	return outcomes[best]
}

// A policy of Portieris admits nothing more once it is converted: of the repositories that match an
// image, the one with the most characters beside its wildcards holds, and the first of several.
func TestThreatConvertedPortierisAdmitsNoMore(t *testing.T) {
	carried := 0
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var patterns, outcomes []string
		var b strings.Builder
		b.WriteString("apiVersion: portieris.cloud.ibm.com/v1\nkind: ClusterImagePolicy\nmetadata: {name: p}\n" +
			"spec:\n  repositories:\n")
		for n := range 1 + r.IntN(5) {
			pattern := "*"
			if r.IntN(4) > 0 {
				parts := []string{pick(r, "registry.example.com", "*.example.com", "*", "registry.*")}
				for range 1 + r.IntN(3) {
					parts = append(parts, pick(r, "a", "b", "*", "a*", "*b", "ab", "*b*", "a*b*"))
				}
				pattern = strings.Join(parts, "/") + pick(r, "", "", ":*", ":v1", ":v*")
			}
			o := outcome(r, n)
			patterns, outcomes = append(patterns, pattern), append(outcomes, o)
			fmt.Fprintf(&b, "  - name: %q\n", pattern)
			switch o {
			case ruleAllow:
			case ruleDeny:
				b.WriteString("    policy: {simple: {requirements: [{type: reject}]}}\n")
			default:
				fmt.Fprintf(&b, "    policy: {simple: {requirements: [{type: signedBy, keySecret: %s}]}}\n", o)
			}
		}
		carried += checkModel(t, seed, "policy.yaml", b.String(), func(image string) string {
			return portierisModel(patterns, outcomes, image)
		})
	}
	if carried < 150 {
		t.Errorf("got %d images admitted before and after, want more: the models prove little", carried)
	}
}

func portierisModel(patterns, outcomes []string, image string) string {
	host, path, _ := strings.Cut(image, "/")
	best, quality := -1, -1
	for i, p := range patterns {
		patternHost, patternPath, hasPath := strings.Cut(p, "/")
		matches := glob(p).MatchString(image) || glob(p+":*").MatchString(image)
		if hasPath {
			matches = glob(patternHost).MatchString(host) &&
				(glob(patternPath).MatchString(path) || glob(patternPath+":*").MatchString(path))
		}
		if q := len(p) - strings.Count(p, "*"); matches && q > quality {
			best, quality = i, q
		}
	}
	if best < 0 {
		return ruleDeny
	}
	return outcomes[best]
}

// A policy.json admits nothing more once it is converted: the closest scope alone holds.
func TestThreatConvertedContainersAdmitsNoMore(t *testing.T) {
	carried := 0
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		scopes := map[string]string{}
		for n := range 1 + r.IntN(5) {
			scope := pick(r, "registry.example.com", "*.example.com", "other.example.com:5000", "*.com")
			if !strings.HasPrefix(scope, "*") {
				for range r.IntN(3) {
					scope += "/" + pick(r, "a", "b", "ab")
				}
				if strings.Contains(scope, "/") {
					scope += pick(r, "", "", ":v1")
				}
			}
			scopes[scope] = outcome(r, n)
		}
		scopes[""] = outcome(r, 5)
		requirement := func(o string) []map[string]any {
			switch o {
			case ruleAllow:
				return []map[string]any{{"type": "insecureAcceptAnything"}}
			case ruleDeny:
				return []map[string]any{{"type": "reject"}}
			}
			return []map[string]any{{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/keys/" + o + ".gpg"}}
		}
		docker := map[string]any{}
		for scope, o := range scopes {
			if scope != "" {
				docker[scope] = requirement(o)
			}
		}
		input, err := json.MarshalIndent(map[string]any{
			"default": requirement(scopes[""]), "transports": map[string]any{"docker": docker},
		}, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		carried += checkModel(t, seed, "policy.json", string(input), func(image string) string {
			return containersModel(scopes, image)
		})
	}
	if carried < 150 {
		t.Errorf("got %d images admitted before and after, want more: the models prove little", carried)
	}
}

// containersModel looks an image up, then its parents, then the domains of its host.
func containersModel(scopes map[string]string, image string) string {
	names := []string{image, image[:strings.LastIndexByte(image, ':')]}
	for name := names[1]; strings.Contains(name, "/"); {
		name = name[:strings.LastIndexByte(name, '/')]
		names = append(names, name)
	}
	host, _, _ := strings.Cut(image, "/")
	host, _, hasPort := strings.Cut(host, ":")
	for domain := host; !hasPort; {
		_, rest, more := strings.Cut(domain, ".")
		if !more {
			break
		}
		names = append(names, "*."+rest)
		domain = rest
	}
	for _, name := range append(names, "") {
		if o, ok := scopes[name]; ok {
			return o
		}
	}
	return ruleDeny
}

// The key of TrustRoot no-signer is the hash of a text, so that nobody has its private key.
func TestNobodysKey(t *testing.T) {
	if got, want := nobodysKey, derivedKey(t); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
