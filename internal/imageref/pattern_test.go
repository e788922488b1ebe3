package imageref_test

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/imageref"
)

func mustPattern(tb testing.TB, s string) imageref.Pattern {
	tb.Helper()
	p, err := imageref.ParsePattern(s)
	if err != nil {
		tb.Fatalf("ParsePattern(%q): %v", s, err)
	}
	return p
}

func mustRef(tb testing.TB, s string) imageref.Ref {
	tb.Helper()
	r, err := imageref.Parse(s)
	if err != nil {
		tb.Fatalf("Parse(%q): %v", s, err)
	}
	return r
}

// index returns an index of one pattern, to compare it with Match.
func index(p imageref.Pattern) *imageref.Index {
	var x imageref.Index
	x.Add(p, 0)
	return &x
}

func TestThreatPatternMatchesMoreThanItSays(t *testing.T) {
	tests := map[string]struct {
		pattern string
		match   []string
		not     []string
	}{
		"literal, anchored": {
			"registry.example.com/acme/app",
			[]string{"registry.example.com/acme/app:v1", "registry.example.com/acme/app@" + digestA},
			[]string{"registry.example.com/acme/app2", "registry.example.com/acme/app/x",
				"registry.example.com/x/acme/app", "registry.example.com/acme",
				"evil.com/registry.example.com/acme/app", "xregistry.example.com/acme/app",
				"registry.example.com.evil.com/acme/app"},
		},
		"dots are dots": {"registry.example.com/a", nil, []string{"registryxexample.com/a"}},
		"docker.io shorthand": {
			"nginx",
			[]string{
				"nginx", "nginx:1.27", "docker.io/nginx", "docker.io/library/nginx", "index.docker.io/library/nginx",
				"DOCKER.io:443/nginx",
			},
			[]string{
				"acme/nginx", "registry.example.com/nginx", "registry.example.com/library/nginx",
				"docker.io:5000/library/nginx",
			},
		},
		"docker.io shorthand with a wildcard": {
			"nginx*", []string{"nginx", "nginx-unprivileged"}, []string{"acme/nginx"},
		},
		"user on docker.io": {
			"acme/*", []string{"acme/app", "docker.io/acme/app"}, []string{"acme.example.com/app", "nginx"},
		},
		"official images": {"docker.io/*", []string{"nginx"}, []string{"acme/app"}},
		"all of docker.io": {
			"index.docker.io/**", []string{"nginx", "acme/app"}, []string{"registry.example.com/nginx"},
		},
		"upper-case host": {
			"Registry.Example.COM/acme/*",
			[]string{"registry.example.com/acme/app", "REGISTRY.example.com/acme/app"},
			[]string{"registry.example.org/acme/app"},
		},
		"default port": {
			"registry.example.com:443/acme/*",
			[]string{
				"registry.example.com/acme/app", "registry.example.com:443/acme/app",
				"registry.example.com:0443/acme/app",
			},
			[]string{"registry.example.com:5000/acme/app"},
		},
		"port": {
			"registry.example.com:5000/acme/*",
			[]string{"registry.example.com:5000/acme/app", "registry.example.com:05000/acme/app"},
			[]string{"registry.example.com/acme/app", "registry.example.com:50000/acme/app"},
		},
		"no port covers no port": {
			"registry.example.com/**", nil, []string{"registry.example.com:5000/app", "registry.example.com:80/app"},
		},
		"one segment": {
			"registry.example.com/acme/*",
			[]string{"registry.example.com/acme/app"},
			[]string{"registry.example.com/acme", "registry.example.com/acme/team/app"},
		},
		"part of a segment": {
			"registry.example.com/acme/app-*-x*",
			[]string{"registry.example.com/acme/app-1-x", "registry.example.com/acme/app-1-2-x86"},
			[]string{
				"registry.example.com/acme/app-1", "registry.example.com/acme/app-1/a-x",
				"registry.example.com/acme/xapp-1-x",
			},
		},
		"pieces do not overlap": {
			"registry.example.com/aba*aba", []string{"registry.example.com/abaaba"},
			[]string{"registry.example.com/aba", "registry.example.com/ababa"},
		},
		"any number of segments": {
			"registry.example.com/acme/**",
			[]string{"registry.example.com/acme", "registry.example.com/acme/app", "registry.example.com/acme/a/b/c"},
			[]string{"registry.example.com/acmex", "registry.example.com/acmex/app", "registry.example.com/x/acme/app"},
		},
		"segments in the middle": {
			"registry.example.com/acme/**/prod/*",
			[]string{"registry.example.com/acme/prod/app", "registry.example.com/acme/a/prod/b/prod/app"},
			[]string{
				"registry.example.com/acme/prod", "registry.example.com/acme/a/prod/b/c",
				"registry.example.com/prod/app",
			},
		},
		"segments at the start": {
			"registry.example.com/**/app", []string{"registry.example.com/app", "registry.example.com/a/b/app"},
			[]string{"registry.example.com/a/b/apple"},
		},
		"twice any number": {
			"registry.example.com/**/a/**/b", []string{"registry.example.com/a/b", "registry.example.com/x/a/y/a/z/b"},
			[]string{"registry.example.com/b/a"},
		},
		"label of a host": {
			"*.example.com/**",
			[]string{"registry.example.com/x", "a-b.example.com/x"},
			[]string{"evil.com/x.example.com", "evil.com/x.example.com/x", "a.b.example.com/x", "example.com/x",
				"registry.example.com:5000/x",
				"registry.example.com.evil.com/x", "registryxexample.com/x"},
		},
		"part of a label": {
			"reg*.example.com/x", []string{"reg.example.com/x", "reg-2.example.com/x"},
			[]string{"x.reg.example.com/x", "reg.eu.example.com/x"},
		},
		"label of a host with port": {
			"*.example.com:5000/**", []string{"registry.example.com:5000/x"},
			[]string{"registry.example.com/x", "registry.example.com:5001/x"},
		},
		"last label": {
			"registry.*/x", []string{"registry.com/x"}, []string{"registry.evil.com/x", "registry.com:5000/x"},
		},
		"every host": {
			"*/acme/*", []string{"registry.example.com:5000/acme/app", "acme/app", "[::1]:5000/acme/app"},
			[]string{"registry.example.com/x/acme/app"},
		},
		"everything": {
			"*/**", []string{"nginx", "localhost/a", "[::1]:5000/a/b", "registry.example.com:5000/a/b/c"}, nil,
		},
		"IPv6": {
			"[::1]:5000/*", []string{"[0:0::1]:5000/app"}, []string{"[::1]/app", "[::2]:5000/app"},
		},
		"wildcards and IPv6": {"*1:5000/*", []string{"node1:5000/app"}, []string{"[::1]:5000/app"}},
		"single label with port": {
			"registry:443/*", []string{"registry:443/app"}, []string{"registry/app", "registry.example.com/app"},
		},
		"localhost": {
			"localhost/*", []string{"localhost/app"}, []string{"localhost:5000/app", "docker.io/localhost/app"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := mustPattern(t, tc.pattern)
			check := func(image string, want bool) {
				r := mustRef(t, image)
				if got := p.Match(r); got != want {
					t.Errorf("Match of %q and %q: got %t, want %t", tc.pattern, image, got, want)
				}
				if got := index(p).Matches(r); got != want {
					t.Errorf("index of %q and %q: got %t, want %t", tc.pattern, image, got, want)
				}
			}
			for _, image := range tc.match {
				check(image, true)
			}
			for _, image := range tc.not {
				check(image, false)
			}
			if again := mustPattern(t, p.String()); again.String() != p.String() {
				t.Errorf("String of %q: got %q, and from that %q", tc.pattern, p, again)
			}
		})
	}
}

func TestParsePatternRefuses(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"empty":                    {"", "empty"},
		"too long":                 {"registry.example.com/" + strings.Repeat("a/", 250) + "a", "longer than 512"},
		"digest":                   {"registry.example.com/app@" + digestA, "cannot name a digest"},
		"tag":                      {"registry.example.com/app:v1", "cannot name a tag"},
		"tag on a short name":      {"nginx:1.27", "cannot name a tag"},
		"wildcard tag":             {"registry.example.com/app:*", "cannot name a tag"},
		"leading slash":            {"/app", "empty segment"},
		"trailing slash":           {"registry.example.com/", "empty segment"},
		"host alone":               {"registry.example.com", "looks like a registry host"},
		"doubled slash":            {"registry.example.com//app", "empty segment"},
		"any number as the host":   {"**/app", "cannot stand for the registry host"},
		"any number alone":         {"**", "cannot stand for the registry host"},
		"one wildcard alone":       {"*", "'*/**' for every image"},
		"part of a segment":        {"registry.example.com/acme/app**", "whole path segments"},
		"part of a segment, front": {"registry.example.com/**app", "whole path segments"},
		"three wildcards":          {"registry.example.com/***", "whole path segments"},
		"two wildcards in a host":  {"registry.**.com/app", "whole path segments"},
		"every host with a port":   {"*:5000/app", "every port"},
		"wildcard port":            {"registry.example.com:*/app", "port"},
		"port too great":           {"registry.example.com:70000/app", "port"},
		"upper-case path":          {"registry.example.com/Acme/*", "matches no repository"},
		"upper-case first segment": {"Acme/*", "has capitals"},
		"dots in a path":           {"registry.example.com/a..b", "matches no repository"},
		"dash at the end":          {"registry.example.com/app-", "matches no repository"},
		"parent folder":            {"registry.example.com/../app", "matches no repository"},
		"white space":              {"registry.example.com/app ", "matches no repository"},
		"regular expression":       {"registry.example.com/(a|b)", "matches no repository"},
		"empty label":              {"registry..com/app", "matches no repository"},
		"final dot in the host":    {"*./app", "matches no repository"},
		"underscore in the host":   {"registry_1.example.com/app", "not the name of a registry host"},
		"wildcard in IPv6":         {"[::*]/app", "IPv6"},
		"other wildcards":          {"registry.example.com/ap?", "matches no repository"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := imageref.ParsePattern(tc.in)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("ParsePattern(%q): got %v, %v; want an error with %q", tc.in, p, err, tc.want)
			}
			for _, image := range []string{"nginx", "registry.example.com/app", "acme/app"} {
				if p.Match(mustRef(t, image)) || index(p).Matches(mustRef(t, image)) {
					t.Errorf("ParsePattern(%q): got an error and a pattern that matches %s", tc.in, image)
				}
			}
		})
	}
}

// TestMatchDoesNotExplode would not end if each wildcard doubled the work.
func TestMatchDoesNotExplode(t *testing.T) {
	var x imageref.Index
	segments := mustPattern(t, "registry.example.com"+strings.Repeat("/**/a", 60)+"/b")
	letters := mustPattern(t, "registry.example.com/"+strings.Repeat("*a", 60)+"*b")
	x.Add(segments, 1)
	x.Add(letters, 2)
	many := mustRef(t, "registry.example.com/"+strings.Repeat("a/", 120)+"a")
	one := mustRef(t, "registry.example.com/"+strings.Repeat("a", 250))
	if segments.Match(many) || letters.Match(one) || x.Matches(many) || x.Matches(one) {
		t.Error("got a match without a final b")
	}
	if !segments.Match(mustRef(t, many.Repository()+"/b")) || !x.Matches(mustRef(t, one.Repository()+"b")) {
		t.Error("got no match with a final b")
	}
}

// oracle is a second implementation of patterns, with one regular expression for the host and one
// for the path.
func oracle(p imageref.Pattern, r imageref.Ref) bool {
	host, path, _ := strings.Cut(p.String(), "/")
	hostExpr := `^` + strings.ReplaceAll(regexp.QuoteMeta(host), `\*`, `[^.:/\[\]]*`) + `$`
	if host == "*" {
		hostExpr = `^.+$`
	}
	var pathExpr strings.Builder
	for segment := range strings.SplitSeq(path, "/") {
		switch segment {
		case "**":
			pathExpr.WriteString(`(/[^/]+)*`)
		case "*":
			pathExpr.WriteString(`/[^/]+`)
		default:
			pathExpr.WriteString("/" + strings.ReplaceAll(regexp.QuoteMeta(segment), `\*`, `[^/]*`))
		}
	}
	return regexp.MustCompile(hostExpr).MatchString(r.Host) &&
		regexp.MustCompile(`^`+pathExpr.String()+`$`).MatchString("/"+r.Path)
}

// random returns a host and a path of few pieces, so that patterns and references often match.
func random(rnd *rand.Rand, pieces, hosts []string) string {
	s := hosts[rnd.IntN(len(hosts))]
	for range 1 + rnd.IntN(4) {
		s += "/" + pieces[rnd.IntN(len(pieces))]
	}
	return s
}

func TestPatternsAgreeWithRegularExpressions(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	refHosts := []string{"a.b", "b.b", "a.b:5000", "localhost", "docker.io", "a.a.b", "A.B:443", "[::1]:5000", "a:5000"}
	refPieces := []string{"a", "b", "ab", "a-b", "aa", "library", "a.b"}
	hosts := append(slices.Clone(refHosts), "*", "*.b", "a*.b", "*.*", "*.b:5000", "*:443", "a*:5000")
	pieces := append(slices.Clone(refPieces), "*", "**", "a*", "*b", "a*b", "*a*", "**")
	matched := 0
	for range 15000 {
		s := random(rnd, pieces, hosts)
		p, err := imageref.ParsePattern(s)
		if err != nil {
			continue
		}
		r := mustRef(t, random(rnd, refPieces, refHosts))
		want := oracle(p, r)
		if got := p.Match(r); got != want {
			t.Fatalf("Match of %q (%s) and %s: got %t, want %t", s, p, r, got, want)
		}
		if want {
			matched++
		}
	}
	if matched < 300 {
		t.Errorf("got only %d matching pairs: the generator is too weak", matched)
	}
}

func TestLiteralPatternMatchesOnlyItself(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	hosts := []string{"a.b", "b.b", "a.b:5000", "localhost", "docker.io", "A.B:443", "[::1]", "x"}
	pieces := []string{"a", "b", "ab", "library"}
	same := 0
	for range 8000 {
		a, b := mustRef(t, random(rnd, pieces, hosts)), mustRef(t, random(rnd, pieces, hosts))
		equal := a.Repository() == b.Repository()
		if got := mustPattern(t, a.Repository()).Match(b); got != equal {
			t.Fatalf("Match of the literal pattern %s and %s: got %t", a.Repository(), b.Repository(), got)
		}
		if equal {
			same++
		}
	}
	if same < 20 {
		t.Errorf("got only %d equal pairs: the generator is too weak", same)
	}
}

func TestIndexFindsWhatMatches(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	hosts := []string{"a.b", "b.b", "*.b", "*", "a.b:5000", "*.b:5000", "docker.io"}
	pieces := []string{"a", "b", "ab", "*", "**", "a*", "*b", "**"}
	found := 0
	for range 100 {
		var x imageref.Index
		var patterns []imageref.Pattern
		for len(patterns) < 60 {
			p, err := imageref.ParsePattern(random(rnd, pieces, hosts))
			if err != nil {
				t.Fatal(err)
			}
			x.Add(p, len(patterns)/2) // two patterns share an id
			patterns = append(patterns, p)
		}
		for range 30 {
			r := mustRef(t, random(rnd, pieces[:3], []string{"a.b", "b.b", "a.b:5000", "c.c", "docker.io"}))
			want := []int{}
			for i, p := range patterns {
				if p.Match(r) && !slices.Contains(want, i/2) {
					want = append(want, i/2)
				}
			}
			got := x.Find(r, []int{})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("patterns %v for %s (-want +got):\n%s", patterns, r, diff)
			}
			found += len(got)
		}
	}
	if found < 3000 {
		t.Errorf("got only %d found: the generator is too weak", found)
	}
}

func TestIndexDoesNotAllocate(t *testing.T) {
	var x imageref.Index
	for i, s := range []string{
		"registry.example.com/acme/**", "*.example.com/*/app", "*/**", "registry.example.com/acme/a*",
	} {
		x.Add(mustPattern(t, s), i)
	}
	r := mustRef(t, "registry.example.com/acme/app")
	var ids [8]int
	if n := testing.AllocsPerRun(100, func() {
		if len(x.Find(r, ids[:0])) != 4 {
			t.Fatal("got some patterns not found")
		}
	}); n != 0 {
		t.Errorf("got %v allocations for each lookup", n)
	}
}

func FuzzParsePattern(f *testing.F) {
	for _, s := range []string{
		"nginx", "registry.example.com/acme/**", "*.example.com/*", "*/**", "[::1]:443/*", "Registry:443/a*",
		"a/**/b/**/c", "docker.io/**",
		"docker.io/*", "a**", "**", "*:1/a", "a.b:*/c", "localhost/*a*b*",
	} {
		f.Add(s, "registry.example.com/acme/app")
	}
	f.Add("*.b/**", "evil.com/x.b")
	f.Fuzz(func(t *testing.T, s, image string) {
		p, err := imageref.ParsePattern(s)
		if err != nil {
			return
		}
		if len(p.String()) <= 512 { // the maximum length of a pattern
			if again, err := imageref.ParsePattern(p.String()); err != nil || again.String() != p.String() {
				t.Fatalf("String of %q: got %q, which parses to %q, %v", s, p, again, err)
			}
		}
		r, err := imageref.Parse(image)
		if err != nil {
			return
		}
		matched := p.Match(r)
		if matched != index(p).Matches(r) {
			t.Fatalf("%q and %q: got %t of Match, and the opposite of the index", s, image, matched)
		}
		if matched != oracle(p, r) {
			t.Fatalf("Match of %q and %q: got %t", s, image, matched)
		}
	})
}
