// Package canonicaljson converts JSON to the canonical form that TUF metadata is signed in.
//
// Names are sorted by bytes, there is no white space, and strings escape only the quotation mark
// and the backslash. Control characters stay raw, unlike in JSON. The canonical form of a part of a
// document is that part of the result. The package does not say what the values mean.
package canonicaljson

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxNesting bounds the depth of a JSON document. The formats need nine levels; the "custom"
	// data of a target may need more.
	maxNesting = 64
	// MaxValues bounds the values of one document: objects, lists, strings, numbers and literals. A
	// file of 8 MiB that lists nothing but tags has about 400,000.
	MaxValues = 1 << 19
)

// Encode returns the canonical form of a JSON document.
//
// It is stricter than encoding/json where two readers could differ. It refuses duplicate names in
// an object, invalid UTF-8, and numbers other than integers, which the canonical form does not
// have. It builds no tree: it allocates at most 2 bytes for each byte of text, and 12 for each
// member of an object whose names are not sorted. A document with too many values is a *trust.Fault
// with reason TooLarge.
func Encode(text []byte) (Value, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("not valid UTF-8")
	}
	c := canonicalizer{text: text, out: make([]byte, 0, len(text))} // the canonical form is never longer
	if err := c.document(); err != nil {
		return nil, err
	}
	return c.out, nil
}

// canonicalizer reads text from offset at and appends its canonical form to out.
type canonicalizer struct {
	text    []byte
	at      int
	out     []byte
	scratch []byte
	values  int
}

func (c *canonicalizer) document() error {
	c.skipSpace()
	if err := c.value(0); err != nil {
		return err
	}
	if c.skipSpace(); c.at < len(c.text) {
		return errors.New("more follows than one JSON document")
	}
	return nil
}

// peek returns the next byte, 0 at the end.
func (c *canonicalizer) peek() byte {
	if c.at < len(c.text) {
		return c.text[c.at]
	}
	return 0
}

// accept skips the next byte if it is b, and reports whether it is.
func (c *canonicalizer) accept(b byte) bool {
	if c.peek() != b {
		return false
	}
	c.at++
	return true
}

// skipSpace skips white space.
func (c *canonicalizer) skipSpace() {
	for c.at < len(c.text) {
		switch c.text[c.at] {
		case ' ', '\t', '\r', '\n':
			c.at++
		default:
			return
		}
	}
}

// syntaxError returns the error of an unexpected byte or an unexpected end.
func (c *canonicalizer) syntaxError() error {
	if c.at >= len(c.text) {
		return errors.New("not valid JSON: it ends too early")
	}
	return fmt.Errorf("not valid JSON: %q at byte %d", c.text[c.at], c.at)
}

func (c *canonicalizer) value(depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("nested deeper than %d levels", maxNesting)
	}
	if c.values++; c.values > MaxValues {
		return trust.NewFault(v1alpha1.ReasonTooLarge, "has more than the %d JSON values that are read", MaxValues)
	}
	switch b := c.peek(); {
	case b == '{':
		return c.object(depth)
	case b == '[':
		return c.list(depth)
	case b == '"':
		return c.copyString()
	case b == '-' || '0' <= b && b <= '9':
		return c.number()
	}
	for _, word := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(c.text[c.at:], []byte(word)) {
			c.at += len(word)
			c.out = append(c.out, word...)
			return nil
		}
	}
	return c.syntaxError()
}

func (c *canonicalizer) list(depth int) error {
	c.at++
	c.out = append(c.out, '[')
	c.skipSpace()
	for more := !c.accept(']'); more; {
		if err := c.value(depth + 1); err != nil {
			return err
		}
		c.skipSpace()
		if more = !c.accept(']'); more {
			if !c.accept(',') {
				return c.syntaxError()
			}
			c.out = append(c.out, ',')
			c.skipSpace()
		}
	}
	c.out = append(c.out, ']')
	return nil
}

// object reads the members in their order in the text. Most writers sort them. Otherwise it sorts
// them after it has read the last one.
func (c *canonicalizer) object(depth int) error {
	c.at++
	c.out = append(c.out, '{')
	c.skipSpace()
	from, members, sorted := len(c.out), 0, true
	var last []byte // the preceding name; out never moves
	for more := !c.accept('}'); more; members++ {
		name, err := c.member(depth)
		if err != nil {
			return err
		}
		switch {
		case last == nil:
		case compareNames(last, name) == 0:
			return duplicateName(name)
		case compareNames(last, name) > 0:
			sorted = false
		}
		last = name
		c.skipSpace()
		if more = !c.accept('}'); more {
			if !c.accept(',') {
				return c.syntaxError()
			}
			c.out = append(c.out, ',')
			c.skipSpace()
		}
	}
	if !sorted {
		if err := c.sort(from, members); err != nil {
			return err
		}
	}
	c.out = append(c.out, '}')
	return nil
}

// member reads a name and its value. It returns the name as it is in out.
func (c *canonicalizer) member(depth int) ([]byte, error) {
	from := len(c.out)
	if c.peek() != '"' {
		return nil, c.syntaxError()
	}
	if err := c.copyString(); err != nil {
		return nil, err
	}
	name := c.out[from:len(c.out):len(c.out)]
	c.skipSpace()
	if !c.accept(':') {
		return nil, c.syntaxError()
	}
	c.out = append(c.out, ':')
	c.skipSpace()
	return name, c.value(depth + 1)
}

// sort sorts by name the members at the end of out, which begin at from.
func (c *canonicalizer) sort(from, members int) error {
	type span struct{ from, name, to int32 }
	if c.scratch == nil {
		c.scratch = make([]byte, 0, len(c.text))
	}
	c.scratch = append(c.scratch[:0], c.out[from:]...)
	text := c.scratch
	spans := make([]span, 0, members)
	for at := 0; at < len(text); at++ { // at++ skips the comma
		name := ValueEnd(text, at)
		to := ValueEnd(text, name+1)
		spans = append(spans, span{int32(at), int32(name), int32(to)}) //nolint:gosec // of a file of a few MiB
		at = to
	}
	name := func(s span) []byte { return text[s.from:s.name] }
	slices.SortFunc(spans, func(a, b span) int { return compareNames(name(a), name(b)) })
	c.out = c.out[:from]
	for i, s := range spans {
		if i > 0 {
			if compareNames(name(spans[i-1]), name(s)) == 0 {
				return duplicateName(name(s))
			}
			c.out = append(c.out, ',')
		}
		c.out = append(c.out, text[s.from:s.to]...)
	}
	return nil
}

func duplicateName(name []byte) error {
	text, _ := Value(name).Text()
	return fmt.Errorf("name %.80q occurs twice in one object", text)
}

// compareNames compares two strings in canonical form by their unescaped bytes.
func compareNames(a, b []byte) int {
	a, b = a[1:len(a)-1], b[1:len(b)-1]
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		if a[i] == '\\' {
			i++
		}
		if b[j] == '\\' {
			j++
		}
		if a[i] != b[j] {
			return cmp.Compare(a[i], b[j])
		}
		i, j = i+1, j+1
	}
	return cmp.Compare(len(a)-i, len(b)-j) // one of the two is 0
}

// number reads an integer in its only canonical form.
func (c *canonicalizer) number() error {
	from := c.at
	negative := c.accept('-')
	zero := c.accept('0')
	for !zero && '0' <= c.peek() && c.peek() <= '9' {
		c.at++
	}
	digits := c.at - from
	if negative {
		digits--
	}
	if digits == 0 || negative && zero || bytes.IndexByte([]byte("0123456789.eE+-"), c.peek()) >= 0 &&
		c.at < len(c.text) {
		return fmt.Errorf("the number at byte %d is not an integer in plain digits", from)
	}
	c.out = append(c.out, c.text[from:c.at]...)
	return nil
}

// copyString reads a string and appends its canonical form.
func (c *canonicalizer) copyString() error {
	c.at++
	c.out = append(c.out, '"')
	for {
		from := c.at
		for c.at < len(c.text) && c.text[c.at] >= ' ' && c.text[c.at] != '"' && c.text[c.at] != '\\' {
			c.at++
		}
		c.out = append(c.out, c.text[from:c.at]...)
		switch {
		case c.accept('"'):
			c.out = append(c.out, '"')
			return nil
		case c.accept('\\'):
			if err := c.escape(); err != nil {
				return err
			}
		default:
			return c.syntaxError()
		}
	}
}

// escape reads an escape sequence after its backslash.
func (c *canonicalizer) escape() error {
	if c.peek() == 'u' {
		r, ok := c.unicodeEscape()
		if !ok {
			return c.syntaxError()
		}
		if utf16.IsSurrogate(r) {
			before := c.at
			low := rune(-1)
			if c.accept('\\') && c.peek() == 'u' {
				if low, ok = c.unicodeEscape(); !ok {
					return c.syntaxError()
				}
			}
			if r = utf16.DecodeRune(r, low); r == unicode.ReplacementChar {
				c.at = before
			}
		}
		if r == '"' || r == '\\' {
			c.out = append(c.out, '\\')
		}
		c.out = utf8.AppendRune(c.out, r)
		return nil
	}
	i := bytes.IndexByte([]byte(`"\/bfnrt`), c.peek())
	if i < 0 || c.at >= len(c.text) {
		return c.syntaxError()
	}
	if i < 2 {
		c.out = append(c.out, '\\')
	}
	c.out = append(c.out, "\"\\/\b\f\n\r\t"[i])
	c.at++
	return nil
}

// unicodeEscape reads the letter u and four hexadecimal digits.
func (c *canonicalizer) unicodeEscape() (rune, bool) {
	if len(c.text)-c.at < 5 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(c.text[c.at+1:c.at+5]), 16, 16)
	if err != nil {
		return 0, false
	}
	c.at += 5
	return rune(n), true
}

// ValueEnd returns the end of the value that begins at offset at of a canonical document.
func ValueEnd(doc []byte, at int) int {
	switch doc[at] {
	case '"':
		return stringEnd(doc, at)
	case '{', '[':
	default:
		for at < len(doc) && doc[at] != ',' && doc[at] != '}' && doc[at] != ']' {
			at++
		}
		return at
	}
	for depth := 0; ; {
		switch doc[at] {
		case '"':
			at = stringEnd(doc, at)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if at++; depth == 0 {
			return at
		}
	}
}

// stringEnd returns the end of the string that begins at offset at.
func stringEnd(doc []byte, at int) int {
	for at++; doc[at] != '"'; at++ {
		if doc[at] == '\\' {
			at++
		}
	}
	return at + 1
}
