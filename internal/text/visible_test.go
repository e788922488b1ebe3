package text

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestLine(t *testing.T) {
	cases := map[string]struct{ s, want string }{
		"plain":           {"registry.example.com/acme/app:é 😀", "registry.example.com/acme/app:é 😀"},
		"an escape":       {"a\x1b[2Jb", `a\u001b[2Jb`},
		"a line end":      {"a\r\nb", `a\u000d\u000ab`},
		"a C1 control":    {"a\u009b2J", `a\u009b2J`},
		"a bidi override": {"a\u202eb", `a\u202eb`},
		"beyond 16 bits":  {"a\U000e0001b", `a\udb40\udc01b`},
		"not UTF-8":       {"a\x9bb", `a\ufffdb`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := Line(c.s); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// The writer escapes the same characters, however they are split, and keeps the lines and the
// meaning of a JSON document.
func TestWriter(t *testing.T) {
	want := "name\té\n\x1b[2J\u009b\u202e😀"
	document, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	document = append(document, '\n')
	for step := 1; step <= len(document); step++ {
		var b bytes.Buffer
		w := NewWriter(&b)
		for at := 0; at < len(document); at += step {
			part := document[at:min(at+step, len(document))]
			if n, err := w.Write(part); n != len(part) || err != nil {
				t.Fatalf("got %d, %v; want %d", n, err, len(part))
			}
		}
		var got string
		if err := json.Unmarshal(b.Bytes(), &got); err != nil || got != want {
			t.Errorf("in steps of %d: got %q, %v; want %q", step, got, err, want)
		}
		if bytes.ContainsAny(b.Bytes(), "\x1b\u009b\u202e") {
			t.Errorf("in steps of %d: got %q, want it escaped", step, b.Bytes())
		}
	}
}
