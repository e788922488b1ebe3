package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The command lines of each step of docs/migration.md are those that the story runs.
func TestMigrationPageShowsTheCommands(t *testing.T) {
	page, err := os.ReadFile("../../docs/migration.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := regexp.MustCompile(`(?m)^## `).Split(string(page), -1)
	for i, want := range road() {
		var got []string
		for _, section := range sections {
			if strings.HasPrefix(section, string(rune('1'+i))+". ") {
				for _, line := range regexp.MustCompile(`(?m)^\$ (.*)$`).FindAllStringSubmatch(section, -1) {
					got = append(got, line[1])
				}
			}
		}
		slices.Sort(got)
		want = slices.Compact(slices.Sorted(slices.Values(want)))
		if !slices.Equal(got, want) {
			t.Errorf("step %d: got on the page\n%s\nwant\n%s", i+1, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// Each kind of wrong answer is found.
func TestLoadFindsWrongAnswers(t *testing.T) {
	admitted := answer{output: "registry.example.com/acme/app:latest@sha256:new"}
	denied := answer{output: "admission webhook denied the request", failed: true}
	broken := answer{output: "connection refused", failed: true}
	must, old, never := expectation{[]string{"sha256:new"}, false}, expectation{[]string{"sha256:old"}, false},
		expectation{denied: true}
	for name, c := range map[string]struct {
		got        answer
		begin, end expectation
		wrong      bool
	}{
		"the release":               {admitted, must, must, false},
		"the release, as it moves":  {admitted, old, must, false},
		"the release before":        {admitted, old, old, true},
		"a released image denied":   {denied, must, must, true},
		"an unsigned image denied":  {denied, never, never, false},
		"an unsigned image, pinned": {admitted, never, never, true},
		"no answer":                 {broken, never, never, true},
	} {
		if _, err := check(c.got, c.begin, c.end); (err != nil) != c.wrong {
			t.Errorf("%s: got %v, want an error: %t", name, err, c.wrong)
		}
	}
}
