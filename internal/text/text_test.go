package text

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCut(t *testing.T) {
	cases := map[string]struct {
		s     string
		limit int
		want  string
	}{
		"empty":                  {"", 0, ""},
		"shorter":                {"abc", 4, "abc"},
		"as long":                {"abcd", 4, "abcd"},
		"longer by one":          {"abcde", 4, "a..."},
		"dots alone":             {"abcde", 3, "..."},
		"no room for dots":       {"abcde", 2, "ab"},
		"nothing":                {"abcde", 0, ""},
		"less than nothing":      {"abcde", -1, ""},
		"before a character":     {"aé234567", 4, "a..."},
		"within a character":     {"aé234567", 5, "a..."},
		"after a character":      {"aé234567", 6, "aé..."},
		"within one of four":     {"😀😀😀", 10, "😀..."},
		"a character, no dots":   {"é234", 1, ""},
		"a character that fits":  {"é234", 2, "é"},
		"not UTF-8":              {"\xff\xff\xff\xff\xff", 4, "\xff..."},
		"continuation bytes all": {strings.Repeat("\x80", 9), 6, "..."},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := Cut(c.s, c.limit); got != c.want {
				t.Errorf("Cut(%q, %d): got %q, want %q", c.s, c.limit, got, c.want)
			}
		})
	}
}

// For any text, the result is within the bound and a prefix of the text, and valid text stays
// valid.
func FuzzCut(f *testing.F) {
	f.Add("registry.example.com/acme/app:é", 12)
	f.Add("😀😀😀", 7)
	f.Add("\xf0\x9f\x98", 2)
	f.Add("", -1)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		got := Cut(s, limit)
		if len(got) > max(limit, 0) {
			t.Errorf("got %d bytes, want at most %d", len(got), limit)
		}
		if utf8.ValidString(s) && !utf8.ValidString(got) {
			t.Errorf("got %q, want valid UTF-8", got)
		}
		if len(s) <= limit && got != s {
			t.Errorf("got %q changed to %q, want it unchanged", s, got)
		}
		kept := got
		if got != s && limit >= len(dots) {
			kept = strings.TrimSuffix(got, dots)
			// A character has at most four bytes, so at most three are lost at its boundary.
			if utf8.ValidString(s) && len(kept) < limit-len(dots)-3 {
				t.Errorf("got %d bytes of %d", len(kept), limit)
			}
		}
		if !strings.HasPrefix(s, kept) {
			t.Errorf("got %q, want a prefix of %q", kept, s)
		}
	})
}
