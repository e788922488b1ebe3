package identity

import (
	"regexp"
	"strings"
	"testing"
)

const (
	issuerOfCI = "https://token.actions.githubusercontent.com"
	workflow   = "https://github.com/acme/app/.github/workflows/release.yaml@refs/heads/main"
)

// list compiles a list that must be valid.
func list(t *testing.T, entries ...Entry) *List {
	t.Helper()
	l, err := Compile("spec.sigstore.roles[0].identities", entries)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestMatch(t *testing.T) {
	l := list(t,
		Entry{Issuer: issuerOfCI, Subject: workflow},
		Entry{
			Issuer:        issuerOfCI,
			SubjectRegExp: `https://github\.com/acme/[a-z]+/\.github/workflows/release\.yaml@refs/tags/.*`,
		},
		Entry{IssuerRegExp: `https://login\.(emea|apac)\.example\.com`, Subject: "qa@example.com"},
	)
	cases := map[string]struct {
		id   Identity
		want int // -1: none
	}{
		"exact":                      {Identity{issuerOfCI, workflow}, 0},
		"the first of two":           {Identity{issuerOfCI, workflow}, 0},
		"expression of the subject":  {Identity{issuerOfCI, strings.Replace(workflow, "heads/main", "tags/v1", 1)}, 1},
		"expression of the issuer":   {Identity{"https://login.apac.example.com", "qa@example.com"}, 2},
		"issuer of another instance": {Identity{"https://token.actions.example.com", workflow}, -1},
		"subject of another entry":   {Identity{issuerOfCI, "qa@example.com"}, -1},
		"issuer off by a letter":     {Identity{issuerOfCI + "m", workflow}, -1},
		"subject off by a letter":    {Identity{issuerOfCI, strings.TrimSuffix(workflow, "n")}, -1},
		"another case":               {Identity{issuerOfCI, strings.Replace(workflow, "acme", "Acme", 1)}, -1},
		"no issuer":                  {Identity{"", workflow}, -1},
		"no subject":                 {Identity{issuerOfCI, ""}, -1},
		"nothing":                    {Identity{}, -1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, ok := l.Match(c.id)
			if !ok {
				got = -1
			}
			if got != c.want {
				t.Errorf("got entry %d, want %d", got, c.want)
			}
		})
	}
	if got := l.Len(); got != 3 {
		t.Errorf("got %d entries, want 3", got)
	}
	if _, ok := (&List{}).Match(Identity{issuerOfCI, workflow}); ok {
		t.Error("got a match of an empty list, want none")
	}
}

// No identity matches by accident: an exact text is no expression, and an expression matches only
// whole texts, whatever its flags, alternatives, anchors and line breaks.
func TestThreatIdentityThatMatchesByAccident(t *testing.T) {
	cases := map[string]struct {
		entry      Entry
		good, evil string // subjects
	}{
		"a dot of an exact subject": {Entry{Subject: "https://github.com/acme/app"},
			"https://github.com/acme/app", "https://githubXcom/acme/app"},
		"not anchored before": {Entry{SubjectRegExp: `https://github\.com/acme/app`},
			"https://github.com/acme/app", "https://evil.example.com/?https://github.com/acme/app"},
		"not anchored behind": {Entry{SubjectRegExp: `https://github\.com/acme/app`},
			"https://github.com/acme/app", "https://github.com/acme/app-fork"},
		"anchored already": {Entry{SubjectRegExp: `^https://github\.com/acme/app$`},
			"https://github.com/acme/app", "https://github.com/acme/app2"},
		"an alternative": {Entry{SubjectRegExp: `https://github\.com/acme/app|https://github\.com/acme/web`},
			"https://github.com/acme/web", "https://github.com/acme/app/../../evil"},
		"anchors in alternatives": {Entry{SubjectRegExp: `^https://github\.com/acme/app|https://github\.com/acme/web$`},
			"https://github.com/acme/app", "https://github.com/acme/app-fork"},
		"the flag of lines": {Entry{SubjectRegExp: `(?m)^qa@example\.com$`},
			"qa@example.com", "evil@example.org\nqa@example.com"},
		"the flag of lines, before": {Entry{SubjectRegExp: `(?m)qa@example\.com$`},
			"qa@example.com", "qa@example.com\nevil@example.org"},
		"a dot for a line break": {Entry{SubjectRegExp: `(?s)qa@.+`}, "qa@example.com", "qa@example.com\nx"},
		"the end of a line":      {Entry{SubjectRegExp: `qa@example\.com`}, "qa@example.com", "qa@example.com\n"},
		"a quotation":            {Entry{SubjectRegExp: `\Qqa@example.com\E`}, "qa@example.com", "qa@exampleXcom"},
		"the shorter one first":  {Entry{SubjectRegExp: `qa|qa@example\.com`}, "qa@example.com", "qa@example.org"},
		"no greed":               {Entry{SubjectRegExp: `(?U)qa@[a-z.]+`}, "qa@example.com", "qa@example.com/x"},
		"case":                   {Entry{SubjectRegExp: `qa@example\.com`}, "qa@example.com", "QA@example.com"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			c.entry.Issuer = issuerOfCI
			l := list(t, c.entry)
			if _, ok := l.Match(Identity{issuerOfCI, c.good}); !ok {
				t.Errorf("%q: got no match, want one", c.good)
			}
			if _, ok := l.Match(Identity{issuerOfCI, c.evil}); ok {
				t.Errorf("%q: got a match, want none", c.evil)
			}
			// The same holds for issuers.
			l = list(t, Entry{Issuer: c.entry.Subject, IssuerRegExp: c.entry.SubjectRegExp, Subject: "x"})
			if _, ok := l.Match(Identity{c.good, "x"}); !ok {
				t.Errorf("issuer %q: got no match, want one", c.good)
			}
			if _, ok := l.Match(Identity{c.evil, "x"}); ok {
				t.Errorf("issuer %q: got a match, want none", c.evil)
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	const field = "spec.sigstore.roles[2].identities"
	cases := map[string]struct {
		entry Entry
		want  string
	}{
		"nothing":    {Entry{}, "[1]: set issuer or issuerRegExp"},
		"no subject": {Entry{Issuer: "a"}, "[1]: set subject or subjectRegExp"},
		"no issuer":  {Entry{Subject: "a"}, "[1]: set issuer or issuerRegExp"},
		"two issuers": {Entry{Issuer: "a", IssuerRegExp: "a", Subject: "a"},
			"[1]: set only one of issuer and issuerRegExp"},
		"two subjects": {Entry{Issuer: "a", Subject: "a", SubjectRegExp: "a"},
			"[1]: set only one of subject and subjectRegExp"},
		"no expression": {Entry{Issuer: "a", SubjectRegExp: "("},
			"[1].subjectRegExp: is not a valid regular expression: error parsing regexp: missing closing ): `(`"},
		"the end of our group": {Entry{Issuer: "a", SubjectRegExp: "a)|(?:b"},
			"[1].subjectRegExp: is not a valid regular expression: error parsing regexp: unexpected ): `a)|(?:b`"},
		"an open quotation": {Entry{Issuer: "a", SubjectRegExp: `a\Qb`},
			`[1].subjectRegExp: is not a valid regular expression: \Q has no \E`},
		"the issuer's expression": {Entry{IssuerRegExp: "[", Subject: "a"},
			"[1].issuerRegExp: is not a valid regular expression: error parsing regexp: missing closing ]: `[`"},
		"anything, even nothing": {Entry{Issuer: "a", SubjectRegExp: ".*"},
			`[1].subjectRegExp: ".*" matches the empty text, which no certificate has: for any text write .+`},
		"an empty alternative": {Entry{Issuer: "a", SubjectRegExp: "a|"},
			`[1].subjectRegExp: "a|" matches the empty text, which no certificate has: for any text write .+`},
		"long": {Entry{Issuer: "a", SubjectRegExp: strings.Repeat("a", MaxLength+1)},
			"[1].subjectRegExp: is longer than 2048 bytes"},
		"nested repetitions": {Entry{Issuer: "a", SubjectRegExp: "((a{30}){30}){30}"},
			"[1].subjectRegExp: is not a valid regular expression: error parsing regexp: invalid repeat count: `{30}`"},
		"a long repetition": {Entry{Issuer: "a", SubjectRegExp: "(" + strings.Repeat("a?", 50) + "){0,999}"},
			"[1].subjectRegExp: repeats too much: it stands for more than 16384 characters"},
		"long and exact": {Entry{Issuer: strings.Repeat("a", MaxLength+1), Subject: "a"},
			"[1].issuer: is longer than 2048 bytes, so it matches no certificate"},
		"a line break": {Entry{Issuer: "a", Subject: "a\n"},
			"[1].subject: has a character that cannot be printed, so it matches no certificate"},
		"not UTF-8": {
			Entry{Issuer: "a", Subject: "a\xff"}, "[1].subject: is not valid UTF-8, so it matches no certificate",
		},
		"the same twice": {Entry{Issuer: "first", Subject: "first"},
			"[1]: is the same as spec.sigstore.roles[2].identities[0]: remove one of them"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(field, []Entry{{Issuer: "first", Subject: "first"}, c.entry})
			if err == nil {
				t.Fatal("got no error")
			}
			if got, want := err.Error(), field+c.want; got != want {
				t.Errorf("got %s\nwant %s", got, want)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	got := Identity{issuerOfCI, workflow}.Explain()
	if want := `its certificate is of issuer "` + issuerOfCI + `" and subject "` + workflow + `"`; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	long := Identity{strings.Repeat("i", MaxLength), strings.Repeat("s", MaxLength)}.Explain()
	if len(long) > 2*maxShown+100 {
		t.Errorf("got %d bytes, want at most %d", len(long), 2*maxShown+100)
	}
}

// An expression matches a text exactly if it matches the whole of it: the longest match that begins
// at the first byte ends at the last one.
func FuzzAnchored(f *testing.F) {
	for _, pattern := range []string{
		`a`, `a|b`, `a)|(b`, `^a$`, `^a|b$`, `(?m)^a$`, `(?m)a$|b`, `(?s).+`, `.+`, `(?i)A`, `(?U)a+`, `a\Qb`,
		`\Qa|b\E`,
		`\Qa\\E`, `[)]`, `[(]|a`, `\z|a`, `\Aa`, `a\b`, `(?P<x>a)`, `(?:a`, `a(?i`, `a{2}|`, `()`, `\x{61}`,
		`(?m:$)a`, `a\`,
	} {
		for _, s := range []string{"a", "b", "ab", "a\nb", "b\na", "ba", "a|b", ")$", ""} {
			f.Add(pattern, s)
		}
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		re, err := anchored(pattern)
		if err != nil {
			return
		}
		if re.MatchString("") {
			t.Errorf("%q matches the empty text", pattern)
		}
		longest := regexp.MustCompile(pattern)
		longest.Longest()
		at := longest.FindStringIndex(s)
		whole := at != nil && at[0] == 0 && at[1] == len(s)
		if got := re.MatchString(s); got != whole {
			t.Errorf("%q, %q: got match %t, want %t", pattern, s, got, whole)
		}
	})
}
