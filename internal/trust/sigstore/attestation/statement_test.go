package attestation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const hex = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	with := func(old, replacement string) string {
		good := string(statementOf(image, loadTest, `{"passed":true}`))
		if old != "" && !strings.Contains(good, old) {
			t.Fatalf("no %s in %s", old, good)
		}
		return strings.Replace(good, old, replacement, 1)
	}
	subject := `[{"name":"app","digest":{"sha256":"` + hex + `"}}]`
	cases := map[string]struct{ payload, err string }{
		"good":                  {with("", ""), ""},
		"version 0.1":           {with("Statement/v1", "Statement/v0.1"), ""},
		"white space":           {" \n" + with("", "") + "\n", ""},
		"no predicate":          {with(`,"predicate":{"passed":true}`, ""), ""},
		"another member":        {with(`"predicate":`, `"more":[{"a":1}],"predicate":`), ""},
		"another digest beside": {with(`"sha256":`, `"sha512":"00","sha256":`), ""},
		"another subject":       {with(subject, `[{"digest":{"gitCommit":"00"}},`+subject[1:]), ""},
		"another version":       {with("Statement/v1", "Statement/v2"), "is no in-toto statement of version 0.1 or 1"},
		"no version":            {with(`"_type":`, `"type":`), "is no in-toto statement of version 0.1 or 1"},
		"another type":          {with(loadTest, provenance), "names no type of its predicate"},
		"no list":               {with(subject, `{}`), "has no subject"},
		"no subject":            {with(subject, `[]`), "has no subject"},
		"no member subject":     {with(`"subject":`, `"subjects":`), "has no subject"},
		"a subject of no type":  {with(subject, `["`+hex+`"]`), "has a subject without a digest"},
		"no digest":             {with(subject, `[{"name":"app"}]`), "has a subject without a digest"},
		"an empty digest":       {with(subject, `[{"digest":{}}]`), "has a subject without a digest"},
		"a digest that is no text": {with(subject, `[{"digest":{"sha256":1}}]`),
			"has a subject with a digest that is no text"},
		"many subjects": {with(subject, "["+strings.Repeat(`{"digest":{"sha256":"00"}},`, maxSubjects)+subject[1:]),
			"has more than 1024 subjects"},
		"a predicate that is a text": {with(`{"passed":true}`, `"passed"`), "has a predicate that is no object"},
		"a predicate that is a list": {with(`{"passed":true}`, `[]`), "has a predicate that is no object"},
		"a name twice": {
			with(`{"passed":true}`, `{"passed":true,"passed":false}`), "has a name twice in an object",
		},
		"a name twice, spelled otherwise": {with(`{"passed":true}`, `{"passed":true,"p\u0061ssed":false}`),
			"has a name twice in an object"},
		"a subject twice": {with(`"subject":`, `"subject":[],"subject":`), "has a name twice in an object"},
		"a digest twice":  {with(`"sha256":`, `"sha256":"00","sha256":`), "has a name twice in an object"},
		"not JSON":        {with(`true}`, `true`), "is not valid JSON"},
		"more behind":     {with("", "") + "{}", "is not valid JSON"},
		"a list":          {"[" + with("", "") + "]", "is not a JSON object"},
		"empty":           {"", "is not valid JSON"},
		"not UTF-8":       {with("passed", "pass\xff"), "is not valid UTF-8"},
		"a large number":  {with("true", "1e999"), "has a number that is out of range"},
		"deep": {with("true", strings.Repeat("[", maxDepth)+strings.Repeat("]", maxDepth)),
			"is nested deeper than 64 levels"},
		"many values": {with("true", "["+strings.Repeat("1,", maxValues)+"1]"),
			"has more than the 262144 JSON values that are read"},
		"large": {with("true", `"`+strings.Repeat("a", MaxSize)+`"`), "is larger than the 6 MiB that are read"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, err := parse([]byte(c.payload), loadTest)
			if got := fmt.Sprint(err); err != nil && got != c.err || err == nil && c.err != "" {
				t.Fatalf("got error %s, want %q", got, c.err)
			}
			if err == nil && s.foreign(image, nil) != "" {
				t.Error("got about other images, want about this one")
			}
		})
	}
}

func TestAbout(t *testing.T) {
	s, err := parse(example(t, "custom"), loadTest)
	if err != nil {
		t.Fatal(err)
	}
	for digest, want := range map[string]bool{
		image: true, other: true, third: false, "": false, "sha256:": false,
		strings.ToUpper(image): false, strings.TrimPrefix(image, "sha256:"): false, image[:70]: false,
		strings.Replace(image, "sha256", "sha512", 1): false,
	} {
		if got := s.foreign(digest, nil) == ""; got != want {
			t.Errorf("%q: got about %t, want %t", digest, got, want)
		}
	}
	// A subject without a sha256 is no image.
	s, err = parse(bytes.ReplaceAll(example(t, "custom"), []byte("sha256"), []byte("sha512")), loadTest)
	if err != nil {
		t.Fatal(err)
	}
	for _, digest := range []string{image, "", "sha256:"} {
		if s.foreign(digest, nil) == "" {
			t.Errorf("%q: got about it, want not", digest)
		}
	}
}

// plain is a decoded value as encoding/json returns it, with numbers as float64.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = plain(v[k])
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case int64:
		return float64(v)
	case uint64:
		return float64(v)
	}
	return v
}

// Whatever is accepted is what encoding/json reads, is an object, and names the type and the image
// that it is about.
func FuzzParse(f *testing.F) {
	good := statementOf(image, loadTest, `{"passed":true,"n":[1,2.5,-3,1e3,18446744073709551615],"o":{"":null}}`)
	f.Add(good)
	for _, s := range []string{
		``, `{}`, `[]`, `{"predicateType":1}`, `{"predicateType":"` + loadTest + `"`,
		`{"predicateType":"x","predicateType":"` + loadTest + `"}`, `{"predicate\u0054ype":"` + loadTest + `"}`,
		strings.Replace(string(good), "true", `"\ud800"`, 1), strings.Replace(string(good), "Type", `\u0054ype`, 1),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		s, err := parse(payload, loadTest)
		if err != nil {
			return
		}
		if got := TypeOf(payload, loadTest); got != loadTest {
			t.Errorf("got type %q of what is accepted", got)
		}
		var want map[string]any
		if err := json.Unmarshal(payload, &want); err != nil {
			t.Fatalf("encoding/json refuses it: %v", err)
		}
		if s.foreign(image, nil) == "" && !bytes.Contains(payload, []byte("5891")) && !bytes.Contains(payload, []byte(`\u`)) {
			t.Error("got about an image that it does not name")
		}
		if got := plain(s.all); !reflect.DeepEqual(got, any(want)) {
			t.Errorf("got %v\nwant %v", got, want)
		}
	})
}
