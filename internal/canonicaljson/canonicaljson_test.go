package canonicaljson

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestCanonical(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"white space":      {" { \"b\" : [ 1 , -2 ] ,\n\"a\":null } ", `{"a":null,"b":[1,-2]}`},
		"bytewise order":   {`{"é":1,"z":2,"A":3,"_":4,"a":5}`, `{"A":3,"_":4,"a":5,"z":2,"é":1}`},
		"only two escapes": {`"\u0041\n\t\u0001<>&\/\"\\\u2028"`, "\"A\n\t\x01<>&/\\\"\\\\\u2028\""},
		"surrogates":       {`"\ud83d\ude00"`, `"😀"`},
		"large integers": {
			`[9223372036854775807,123456789012345678901234567890]`,
			`[9223372036854775807,123456789012345678901234567890]`,
		},
		"literals": {`[true,false,null,0]`, `[true,false,null,0]`},
		"empty":    {`{"a":{},"b":[],"":""}`, `{"":"","a":{},"b":[]}`},
		"nested to the limit": {
			strings.Repeat("[", 64) + strings.Repeat("]", 64), strings.Repeat("[", 64) + strings.Repeat("]", 64),
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Encode([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCanonicalRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"nothing":               "",
		"a name twice":          `{"a":1,"b":2,"a":1}`,
		"a name twice, escaped": `{"a":1,"\u0061":1}`,
		"fraction":              `1.5`,
		"fraction of zero":      `1.0`,
		"exponent":              `1e3`,
		"negative zero":         `-0`,
		"invalid UTF-8":         "\"\xff\"",
		"two documents":         `{} {}`,
		"trailing comma":        `[1,]`,
		"unterminated":          `{"a":[`,
		"too deep":              strings.Repeat("[", 67) + strings.Repeat("]", 67),
		"far too deep":          strings.Repeat(`{"a":`, 100000),
		"comment":               `{} // x`,
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := Encode([]byte(in)); err == nil {
				t.Errorf("got %s, want an error", got)
			}
		})
	}
}

// A value that is no object has no members: a caller that ignores the second result reads nothing.
func TestNoObject(t *testing.T) {
	for _, text := range []string{`null`, `[1]`, `"text"`, `1`, `true`} {
		v, err := Encode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if o, ok := v.Object(); ok || o.Size() != 0 || o.Get("a") != nil {
			t.Errorf("%s: got object %q, %t, want none", text, o, ok)
		}
	}
}

// FuzzCanonical compares the canonical form with that of a reader that builds a tree.
func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,"x\u0000\"",null,{"b":true}]}`, `"\ud800"`, `-1`, `[[]]`, "\"\xc3\x28\"", `"\ud800\u0041"`,
		`"\ud800\ud800\udc00"`, `"\u0022\u005C"`,
		`{"b":{"d":1,"c":2},"a":{"f":[{"z":0,"y":1}],"e":""}}`, `{"\"":1,"!":2,"#":3,"\\":4,"]":5,"[":6}`,
		`{"a":1,"b":2,"a":3}`, `{"b":1,"a":2,"b":3}`,
		`{"":0,"a":1,"aa":2,"A":3}`, `[-0]`, `[01]`, `[1e1]`, `[1.0]`, `{"a":tru}`, `{"a":1 ,"b" : 2}`, `[1,]`,
		`{"a":1,}`, `nul`, `"\x"`, `"\u12"`, `"\ud83d\ude0"`, `{} {}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Encode(data)
		want, errReference := reference(data)
		if (err == nil) != (errReference == nil) {
			t.Fatalf("canonical(%q): got error %v, want %v as of the reference", data, err, errReference)
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("canonical(%q): got %q, want %q as of the reference", data, got, want)
		}
	})
}

var plainInteger = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)

// reference returns the canonical form by means of encoding/json and a tree.
func reference(data []byte) ([]byte, error) {
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, errors.New("not valid")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return appendReference(nil, dec, 0)
}

func appendReference(dst []byte, dec *json.Decoder, depth int) ([]byte, error) {
	tok, err := dec.Token()
	switch {
	case err != nil:
		return nil, err
	case depth > maxNesting:
		return nil, errors.New("too deep")
	}
	switch tok := tok.(type) {
	case json.Delim:
		if tok == '{' {
			return appendMembers(dst, dec, depth)
		}
		dst = append(dst, '[')
		for n := 0; dec.More(); n++ {
			if n > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendReference(dst, dec, depth+1); err != nil {
				return nil, err
			}
		}
		_, err = dec.Token()
		return append(dst, ']'), err
	case string:
		return append(dst, quoted(tok)...), nil
	case json.Number:
		if !plainInteger.MatchString(string(tok)) {
			return nil, errors.New("not an integer")
		}
		return append(dst, tok...), nil
	}
	word, err := json.Marshal(tok)
	return append(dst, word...), err
}

func appendMembers(dst []byte, dec *json.Decoder, depth int) ([]byte, error) {
	members := map[string][]byte{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, _ := tok.(string)
		if _, there := members[name]; there {
			return nil, errors.New("twice")
		}
		if members[name], err = appendReference(nil, dec, depth+1); err != nil {
			return nil, err
		}
	}
	dst = append(dst, '{')
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, quoted(name)...), ':'), members[name]...)
	}
	_, err := dec.Token()
	return append(dst, '}'), err
}

func quoted(s string) string {
	return `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(s) + `"`
}
