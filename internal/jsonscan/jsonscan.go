// Package jsonscan scans JSON without decoding it, to find where values begin and end.
//
// It accepts exactly the texts that encoding/json accepts as valid JSON. It does not check what the
// values mean, or whether a key occurs twice. It allocates nothing and takes linear time.
package jsonscan

import "bytes"

// maxDepth is the maximum nesting of objects and lists in encoding/json.
const maxDepth = 10000

// Scanner scans JSON value by value. After a syntax error it is Invalid, and stays so.
type Scanner struct {
	// Text is scanned from offset Next on. Next is at most len(Text).
	Text []byte
	Next int
	// Invalid reports that Text is not JSON, or not the value that a method expected.
	Invalid bool
	// Values counts the scanned members of objects and elements of lists. A decoder can need a
	// hundred bytes of memory for each, and the text of one can be three bytes.
	Values int

	depth int
	limit int                     // Skip fails at this number of values, the outermost included; 0: no limit
	lists [maxDepth/64 + 1]uint64 // one bit for each open level of Skip: whether it is a list
}

// At reports whether c is the next byte.
func (s *Scanner) At(c byte) bool { return s.Next < len(s.Text) && s.Text[s.Next] == c }

// Count returns the number of values in a JSON document, without the names. It stops at limit and
// then returns limit. ok is false if the text, as far as it was scanned, is not JSON.
func Count(text []byte, limit int) (values int, ok bool) {
	s := Scanner{Text: text, limit: limit}
	s.SkipSpace()
	s.Skip()
	if values = s.Values + 1; values >= limit {
		return limit, true
	}
	s.End()
	return values, !s.Invalid
}

// SkipSpace skips white space.
func (s *Scanner) SkipSpace() {
	for s.Next < len(s.Text) && (s.At(' ') || s.At('\t') || s.At('\r') || s.At('\n')) {
		s.Next++
	}
}

// End skips white space. Anything after it is an error.
func (s *Scanner) End() {
	s.SkipSpace()
	s.Invalid = s.Invalid || s.Next < len(s.Text)
}

// Members scans an object and calls visit for each member, with the key in quotes. Next is then at
// the value, and visit must skip it.
func (s *Scanner) Members(visit func(key []byte)) {
	s.entries('{', '}', func() {
		from := s.Next
		s.skipString()
		key := s.Text[from:s.Next]
		s.SkipSpace()
		s.expect(':')
		s.SkipSpace()
		if !s.Invalid {
			visit(key)
		}
	})
}

// Elements scans a list and calls visit for each element. visit must skip it.
func (s *Scanner) Elements(visit func()) { s.entries('[', ']', visit) }

// Skip skips a value. It does not recurse, so deep nesting takes no more memory than a flat value.
func (s *Scanner) Skip() {
	outside := s.depth
	for s.begin(); !s.Invalid && s.depth > outside; {
		s.SkipSpace()
		list := s.isList()
		switch {
		case s.At(','):
			s.Next++
			s.SkipSpace()
			s.entry(list)
		case list && s.At(']') || !list && s.At('}'):
			s.Next++
			s.depth--
		default:
			s.Invalid = true
		}
	}
}

// begin skips a scalar value or an empty list or object. Of any other list or object, it skips the
// beginning up to the first such value.
func (s *Scanner) begin() {
	for more := true; more && !s.Invalid; {
		more = false
		switch {
		case s.At('{'), s.At('['):
			more = s.open()
		case s.At('"'):
			s.skipString()
		case s.At('t'):
			s.literal("true")
		case s.At('f'):
			s.literal("false")
		case s.At('n'):
			s.literal("null")
		default:
			s.number()
		}
	}
}

// open skips the beginning of a list or an object up to its first value, and reports whether there
// is one.
func (s *Scanner) open() bool {
	list := s.At('[')
	s.Next++
	if s.depth++; s.depth > maxDepth {
		s.Invalid = true
		return false
	}
	if word, bit := s.depth/64, uint64(1)<<(s.depth%64); list {
		s.lists[word] |= bit
	} else {
		s.lists[word] &^= bit
	}
	s.SkipSpace()
	if list && s.At(']') || !list && s.At('}') {
		return false // Skip skips the end
	}
	s.entryHead(list)
	return true
}

// isList reports whether the innermost open value is a list.
func (s *Scanner) isList() bool { return s.lists[s.depth/64]&(1<<(s.depth%64)) != 0 }

// entry skips an entry, or its beginning as begin does.
func (s *Scanner) entry(list bool) {
	s.entryHead(list)
	s.begin()
}

// entryHead counts an entry and skips what precedes its value: in an object, the key.
func (s *Scanner) entryHead(list bool) {
	if s.Values++; s.limit > 0 && s.Values+1 >= s.limit {
		s.Invalid = true
		return
	}
	if !list {
		s.skipString()
		s.SkipSpace()
		s.expect(':')
		s.SkipSpace()
	}
}

// entries scans comma-separated entries between open and end, and calls visit for each.
func (s *Scanner) entries(open, end byte, visit func()) {
	s.expect(open)
	s.depth++
	s.Invalid = s.Invalid || s.depth > maxDepth
	s.SkipSpace()
	for more := !s.At(end); more && !s.Invalid; {
		s.Values++
		visit()
		s.SkipSpace()
		if more = s.At(','); more {
			s.Next++
			s.SkipSpace()
		}
	}
	s.expect(end)
	s.depth--
}

// expect skips the next byte, which must be c.
func (s *Scanner) expect(c byte) {
	if s.Invalid || !s.At(c) {
		s.Invalid = true
		return
	}
	s.Next++
}

// literal skips a literal, which must be next.
func (s *Scanner) literal(word string) {
	if !bytes.HasPrefix(s.Text[s.Next:], []byte(word)) {
		s.Invalid = true
		return
	}
	s.Next += len(word)
}

// skipString skips a string. It accepts invalid UTF-8, as encoding/json does.
func (s *Scanner) skipString() {
	s.expect('"')
	for i := s.Next; i < len(s.Text) && !s.Invalid; i++ {
		c := s.Text[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		s.Next = i + 1
		switch c {
		case '"':
			return
		case '\\':
			s.escape()
			i = s.Next - 1
		default:
			s.Invalid = true
		}
	}
	s.Invalid = true
}

// escape skips an escape sequence after its backslash.
func (s *Scanner) escape() {
	digits := 0
	switch {
	case s.At('u'):
		digits = 4
	case s.Next == len(s.Text) || bytes.IndexByte([]byte(`"\/bfnrt`), s.Text[s.Next]) < 0:
		s.Invalid = true
		return
	}
	s.Next++
	for range digits {
		if s.Next == len(s.Text) || bytes.IndexByte([]byte("0123456789abcdefABCDEF"), s.Text[s.Next]) < 0 {
			s.Invalid = true
			return
		}
		s.Next++
	}
}

// number skips a number.
func (s *Scanner) number() {
	if s.At('-') {
		s.Next++
	}
	if s.At('0') {
		s.Next++
	} else {
		s.digits()
	}
	if s.At('.') {
		s.Next++
		s.digits()
	}
	if s.At('e') || s.At('E') {
		s.Next++
		if s.At('+') || s.At('-') {
			s.Next++
		}
		s.digits()
	}
}

// digits skips at least one digit.
func (s *Scanner) digits() {
	from := s.Next
	for s.Next < len(s.Text) && '0' <= s.Text[s.Next] && s.Text[s.Next] <= '9' {
		s.Next++
	}
	s.Invalid = s.Invalid || s.Next == from
}
