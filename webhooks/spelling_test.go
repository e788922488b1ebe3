package webhooks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// speller writes JSON with random white space, order and escapes, and sometimes with faults.
type speller struct {
	*rand.Rand
	out bytes.Buffer
	// oddness is the chance, in 1000, that an entry gets a fault. odd is the number of faults.
	oddness, odd int
}

func (s *speller) blank() { s.out.WriteString([]string{"", "", "", " ", "\n\t", "\r\n"}[s.IntN(6)]) }

// value writes a value with its members in random order.
func (s *speller) value(v any) {
	s.blank()
	switch v := v.(type) {
	case map[string]any:
		var entries []func()
		for _, key := range slices.Sorted(maps.Keys(v)) { // so that the seed alone decides the order
			entries = append(entries, func() { s.member(key, v[key]) })
		}
		for range s.IntN(2) {
			entries = append(entries, s.unknown)
		}
		s.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		s.enclosed("{", entries, "}")
	case []any:
		var entries []func()
		for _, value := range v {
			entries = append(entries, func() { s.maybeFaulty(value) })
		}
		s.enclosed("[", entries, "]")
	case json.RawMessage:
		s.out.Write(v)
	default:
		raw, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		s.out.Write(raw)
	}
	s.blank()
}

func (s *speller) enclosed(open string, entries []func(), end string) {
	s.out.WriteString(open)
	for i, entry := range entries {
		if i > 0 {
			s.out.WriteString(",")
		}
		entry()
	}
	s.out.WriteString(end)
}

// member writes a member. A fault is a key in another case, with an escape or an invalid byte, or
// twice.
func (s *speller) member(key string, value any) {
	name := fmt.Sprintf("%q", key)
	if s.IntN(1000) < s.oddness {
		s.odd++
		switch at := 1 + s.IntN(len(key)); s.IntN(4) {
		case 0:
			name = strings.Replace(name, key, strings.ToUpper(key[:1])+key[1:], 1)
		case 1:
			name = name[:at] + fmt.Sprintf(`\u%04x`, name[at]) + name[at+1:]
		case 2:
			name = name[:at] + "\xff" + name[at:]
		case 3:
			s.out.WriteString(name + ":")
			s.maybeFaulty(value)
			s.out.WriteString(",")
		}
	}
	s.blank()
	s.out.WriteString(name)
	s.blank()
	s.out.WriteString(":")
	s.maybeFaulty(value)
}

// maybeFaulty writes a value, or as a fault another one.
func (s *speller) maybeFaulty(v any) {
	if s.IntN(1000) < s.oddness {
		s.odd++
		v = json.RawMessage([]string{
			`null`, `{}`, `[]`, `""`, `7`, `1e999`, `-0`, `true`, `"` + unsigned + `"`,
			`[{"image":"` + unsigned + `"}]`, `{"reference":"` + unsigned + `"}`,
			`tru`, `01`, `"\`, `"\ud800"`, "\"\xff\"", `{"a":1,}`, `[}`, ``,
			`{"containers":[{"image":"` + unsigned + `"}]}`, strings.Repeat("[", 10001) + strings.Repeat("]", 10001),
		}[s.IntN(21)])
	}
	s.value(v)
}

// unknown writes a member that is not decoded, with text that looks like images.
func (s *speller) unknown() {
	fmt.Fprintf(&s.out, `"x%d":`, s.Uint32())
	s.out.WriteString([]string{
		`{"containers":[{"image":"` + unsigned + `"}]}`, `"\"}],\"image\":\"` + unsigned + `\""`,
		`[[{"spec":{}}],"]}"]`, `-1.5E+400`, `"\\"`, `"é\u0000"`, `null`,
	}[s.IntN(7)])
}

// spell returns a value as JSON in a random spelling. A fault is a changed, removed or added byte.
func (s *speller) spell(v any) []byte {
	s.out.Reset()
	s.value(v)
	text := slices.Clone(s.out.Bytes())
	if s.IntN(1000) < 10*s.oddness {
		s.odd++
		switch at := s.IntN(len(text)); s.IntN(4) {
		case 0:
			text[at] = byte(s.IntN(256))
		case 1:
			text = slices.Delete(text, at, at+1)
		case 2:
			text = text[:at]
		case 3:
			text = append(text, []string{"{}", "x", "]", ",", "\x00"}[s.IntN(5)]...)
		}
	}
	return slices.Clip(text)
}
