package text

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Line returns a text as one line for a terminal. Each character that is not printable is escaped,
// line ends included. So a text from outside can neither control the terminal nor look like another
// line.
func Line(s string) string { return escape(s, "") }

// escape escapes the characters that are neither printable nor in kept, as JSON does.
func escape(s, kept string) string {
	hidden := func(r rune) bool {
		return !unicode.IsPrint(r) && !strings.ContainsRune(kept, r) || r == utf8.RuneError
	}
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch high, low := utf16.EncodeRune(r); {
		case !hidden(r):
			b.WriteRune(r)
		case high != utf8.RuneError:
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// Writer writes texts for a terminal to another writer. It escapes what is not printable, but for
// line ends and tabs. The escapes are those of JSON, so they change no JSON document. It is safe
// for concurrent use.
type Writer struct {
	mu   sync.Mutex
	to   io.Writer
	part []byte // the beginning of a character
}

// NewWriter returns a Writer to another writer.
func NewWriter(to io.Writer) *Writer { return &Writer{to: to} }

// Write implements io.Writer. It keeps the beginning of a character until the rest is written.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := append(w.part, p...)
	end := len(all)
	for at := max(0, end-utf8.UTFMax+1); at < end; at++ {
		if utf8.RuneStart(all[at]) && !utf8.FullRune(all[at:]) {
			end = at
		}
	}
	w.part = append([]byte(nil), all[end:]...)
	if _, err := io.WriteString(w.to, escape(string(all[:end]), "\n\t")); err != nil {
		return 0, err
	}
	return len(p), nil
}
