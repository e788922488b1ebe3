package jsonscan

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// valid reports whether the scanner accepts a text as one value. The slice has no capacity beyond
// its length, so a read past the end fails.
func valid(text []byte) bool {
	s := Scanner{Text: slices.Clip(text)}
	s.SkipSpace()
	s.Skip()
	s.End()
	return !s.Invalid
}

// FuzzSkip checks that the scanner accepts exactly the texts that encoding/json accepts.
func FuzzSkip(f *testing.F) {
	for _, text := range []string{
		``, ` `, `{}`, ` { } `, `[]`, ` [ ] `, `[1]`, `[1,]`, `[,1]`, `[,]`, `[1 2]`, `[`, `]`, `[}`, `{]`, `{"a":1,}`,
		`{"a"}`, `{"a":}`, `{"a" : 1 , "b":[ ]}`, `{a:1}`, `{1:2}`, `{"a":1}{`,
		`true`, `tru`, `truer`, `false`, `null`, `nul`, `nullnull`, `0`, `-0`, `00`, `-`, `+1`, `1.`, `.1`, `1.5e+10`,
		`1e`, `1E-`, `1e400`, `0x1`, `-a`, `1 `, `NaN`, "\ufeff{}",
		`"`, `"\`, `"a`, `{"\`, `{"a":"\`, `"\"`, `"\\"`, `"\u12"`, `"\u12G4"`, `"\uD800"`, `"\x"`, `"\u`, `"\'"`,
		"\"\n\"", "\"\x7f\"", "\"\xff\"", "\"\x00\"", "{\v}", `"\b\f\n\r\t\/"`,
		strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth),
		strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1),
		strings.Repeat(`{"a":`, maxDepth) + "1" + strings.Repeat("}", maxDepth),
		strings.Repeat(`{"a":`, maxDepth+1) + "1" + strings.Repeat("}", maxDepth+1),
		strings.Repeat("[{},", 3) + strings.Repeat("]", 3), strings.Repeat(`{"a":[`, 6000),
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, want := valid(text), json.Valid(text); got != want {
			t.Errorf("%.200q: got valid %t, want %t", text, got, want)
		}
	})
}

// Every prefix of a text is refused, and every text with one changed byte gives the same result as
// encoding/json.
func TestEveryPrefixAndEveryByte(t *testing.T) {
	const text = `{"a\u00e9\\":[true,false,null,-1.5e+2,0,{}, [] ,{"b" : "c"}],"d":""}`
	for n := range len(text) {
		if valid([]byte(text[:n])) {
			t.Errorf("%q: got valid, want an error", text[:n])
		}
		for c := range 256 {
			changed := []byte(text)
			changed[n] = byte(c)
			if got, want := valid(changed), json.Valid(changed); got != want {
				t.Errorf("%q: got valid %t, want %t", changed, got, want)
			}
		}
	}
	if !valid([]byte(text)) {
		t.Errorf("%q: got refused, want valid", text)
	}
}

// No text makes the scanner allocate: otherwise a large request could cost much memory.
func TestNoAllocations(t *testing.T) {
	text := []byte(`{"a":[true,{"b":"\u00e9"},[1,2]],"c":{"d":{}}}`)
	if n := testing.AllocsPerRun(100, func() { valid(text) }); n > 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func BenchmarkSkip(b *testing.B) {
	text := []byte(
		`[` +
			strings.Repeat(
				`{"name":"ACME_SETTING","value":"https://service.shop.svc.cluster.local:8443/api/v1","f:ports":{".":{},"n":[1,true]}},`,
				100) +
			`0]`)
	b.SetBytes(int64(len(text)))
	b.Run("scanner", func(b *testing.B) {
		for b.Loop() {
			if !valid(text) {
				b.Fatal("refused")
			}
		}
	})
	b.Run("encoding", func(b *testing.B) {
		for b.Loop() {
			if !json.Valid(text) {
				b.Fatal("refused")
			}
		}
	})
}

func TestCount(t *testing.T) {
	for text, want := range map[string]int{
		`1`: 1, ` {} `: 1, `{"a":1,"b":[2,{"c":null}]}`: 6, `[[],[]]`: 3,
		`[` + strings.Repeat(`0,`, 1000) + `0]`: 100, // the limit
	} {
		if got, ok := Count([]byte(text), 100); !ok || got != want {
			t.Errorf("%.40s: got %d, %t; want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{``, `{`, `[1,]`, `1 2`, `{"a"}`} {
		if got, ok := Count([]byte(text), 100); ok {
			t.Errorf("%q: got %d values, want an error", text, got)
		}
	}
}
