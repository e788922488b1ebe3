package convert

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

const page = "../../docs/convert.md"

// taken returns the fields that the cases of testdata have, by source.
func taken(t *testing.T) (fields map[Source]map[string]bool, notes map[noteID]bool) {
	t.Helper()
	fields, notes = map[Source]map[string]bool{}, map[noteID]bool{}
	for name, files := range golden(t) {
		for _, s := range Sources() {
			if name != string(s) && !strings.HasPrefix(name, string(s)+"-") {
				continue
			}
			r := convertCase(t, name, files)
			if fields[s] == nil {
				fields[s] = map[string]bool{}
			}
			for field := range r.fieldsTaken {
				fields[s][field] = true
			}
			for _, n := range r.Notes {
				notes[n.id] = true
			}
		}
	}
	return fields, notes
}

// The tables of fields have the fields that the code reads, and a case of testdata has each of
// them.
func TestFieldsAreExercised(t *testing.T) {
	fields, _ := taken(t)
	for _, s := range Sources() {
		listed := map[string]bool{}
		for _, f := range Fields(s) {
			listed[f.Name] = true
			if !fields[s][f.Name] {
				t.Errorf("%s: no case of testdata has the field %s", s, f.Name)
			}
		}
		for name := range fields[s] {
			parent := slices.ContainsFunc(Fields(s), func(f Field) bool {
				return strings.HasPrefix(f.Name, name+".") || strings.HasPrefix(f.Name, name+"[]")
			})
			within := slices.ContainsFunc(Fields(s), func(f Field) bool { return strings.HasPrefix(name, f.Name+".") })
			if !listed[name] && !parent && !within && !slices.Contains(general(), name) {
				t.Errorf("%s: the code reads the field %s, which its table lacks", s, name)
			}
		}
	}
}

// general are the fields that no table has.
func general() []string {
	return []string{"apiVersion", "kind", "metadata", "spec", "status", "application"}
}

// Each note is given for some input.
func TestNotesAreGiven(t *testing.T) {
	_, given := taken(t)
	for _, input := range []string{
		"validators: [{name: default, type: static, approve: false}]\npolicy:\n" +
			"- {pattern: \"registry.example.com/*/b/*:*\"}\n- {pattern: \"registry.example.com/a*/*b/*:*\"}\n",
		manyRules(), manyNamespaces(), manySigners(),
	} {
		r, err := Convert([]File{{"f", []byte(input)}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range r.Notes {
			given[n.id] = true
		}
	}
	r, err := Convert(golden(t)["connaisseur-2"], Options{Signers: []string{"ci"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range r.Notes {
		given[n.id] = true
	}
	for _, n := range Notes() {
		if !given[noteID(n.ID)] {
			t.Errorf("no input gives the note %s", n.ID)
		}
	}
}

func manyRules() string {
	var b strings.Builder
	b.WriteString(portierisHead + "spec:\n  repositories:\n  - {name: \"*\"}\n")
	for i := range maxPatterns + 10 {
		fmt.Fprintf(&b, "  - {name: registry.example.com/a%d}\n", i)
	}
	return b.String()
}

func manyNamespaces() string {
	var b strings.Builder
	for i := range 65 {
		fmt.Fprintf(&b, "---\napiVersion: portieris.cloud.ibm.com/v1\nkind: ImagePolicy\n"+
			"metadata: {name: a, namespace: n%d}\nspec: {repositories: [{name: \"*\"}]}\n", i)
	}
	return b.String()
}

func manySigners() string {
	var b strings.Builder
	b.WriteString(portierisHead + "spec:\n  repositories:\n  - name: registry.example.com/a\n    policy:\n" +
		"      trust:\n        enabled: true\n        trustServer: https://notary.example.com\n" +
		"        signerSecrets:\n")
	for i := range 40 {
		fmt.Fprintf(&b, "        - {name: s%d}\n", i)
	}
	return b.String()
}

// The page has the tables of fields, and the table of notes, as the code has them.
func TestPage(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	got := string(text)
	want := got
	for _, s := range Sources() {
		want = replace(t, want, "fields of "+string(s), fieldsTable(s))
	}
	want = replace(t, want, "notes", notesTable())
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("the tables of %s differ from the code: run go test ./internal/convert -update", page)
	}
}

// replace replaces what is between two comments of the page.
func replace(t *testing.T, text, name, table string) string {
	t.Helper()
	begin, end := "<!-- begin: "+name+" -->\n", "<!-- end: "+name+" -->"
	before, rest, ok := strings.Cut(text, begin)
	_, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s lacks the comments of %s", page, name)
	}
	return before + begin + table + end + after
}

func fieldsTable(s Source) string {
	var b strings.Builder
	b.WriteString("| field | | what becomes of it |\n|---|---|---|\n")
	for _, f := range Fields(s) {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Name, f.Effect, strings.TrimSpace(f.Text))
	}
	return b.String()
}

func notesTable() string {
	var b strings.Builder
	b.WriteString("| effect | text |\n|---|---|\n")
	for _, n := range Notes() {
		text := strings.NewReplacer("%[1]q", "NAME", "%[2]q", "ENTRY", "%[3]s", "WHAT", "%q", "NAME",
			"%s", "NAME", "%d", "N", "|", "\\|").Replace(n.Format)
		fmt.Fprintf(&b, "| %s | %s |\n", n.Effect, text)
	}
	return b.String()
}
