// Package jsonscan goes through JSON without decoding it, to find where values begin and end.
//
// What it has gone through without getting lost is valid JSON, by the rules of encoding/json; it
// accepts nothing that a decoder would refuse for its form, and refuses nothing that one would
// take. What the values mean, and whether a key comes twice, it does not judge. It allocates
// nothing, and takes time in proportion to the text.
package jsonscan

import "bytes"

// maxDepth is how deep encoding/json goes into objects and lists.
const maxDepth = 10000

// Scanner goes through JSON value by value. It is lost where it finds what cannot be there, and
// stays so.
type Scanner struct {
	// Text is gone through, from Next on. Next is never beyond its end.
	Text []byte
	Next int
	// Lost says that Text is no JSON, or not what was asked for.
	Lost bool
	// Values is how many members of objects and elements of lists were met so far. A decoder can
	// take a hundred bytes for each, of which some are no longer than three.
	Values int

	depth int
	most  int                     // Skip is lost once as many values were met, the first one included; 0: never
	lists [maxDepth/64 + 1]uint64 // for each level that Skip has open, whether it is a list
}

// At reports whether a byte is next.
func (s *Scanner) At(c byte) bool { return s.Next < len(s.Text) && s.Text[s.Next] == c }

// Count returns how many values a JSON document holds, names not among them. It gives up at limit,
// and returns limit then. It is false where the text is no JSON, as far as it was looked at.
func Count(text []byte, limit int) (values int, ok bool) {
	s := Scanner{Text: text, most: limit}
	s.Blank()
	s.Skip()
	if values = s.Values + 1; values >= limit {
		return limit, true
	}
	s.End()
	return values, !s.Lost
}

// Blank passes over white space.
func (s *Scanner) Blank() {
	for s.Next < len(s.Text) && (s.At(' ') || s.At('\t') || s.At('\r') || s.At('\n')) {
		s.Next++
	}
}

// End passes over white space, behind which nothing may be left.
func (s *Scanner) End() {
	s.Blank()
	s.Lost = s.Lost || s.Next < len(s.Text)
}

// Members has each member of an object visited: with its key, quotes included, and at its value,
// which visit must pass over.
func (s *Scanner) Members(visit func(key []byte)) {
	s.entries('{', '}', func() {
		from := s.Next
		s.str()
		key := s.Text[from:s.Next]
		s.Blank()
		s.take(':')
		s.Blank()
		if !s.Lost {
			visit(key)
		}
	})
}

// Elements has each element of a list visited, which visit must pass over.
func (s *Scanner) Elements(visit func()) { s.entries('[', ']', visit) }

// Skip passes over a value. It goes as deep as there is text without a call for each level, so that
// what is deep costs no more memory than what is flat.
func (s *Scanner) Skip() {
	outside := s.depth
	for s.begin(); !s.Lost && s.depth > outside; {
		s.Blank()
		list := s.isList()
		switch {
		case s.At(','):
			s.Next++
			s.Blank()
			s.entry(list)
		case list && s.At(']') || !list && s.At('}'):
			s.Next++
			s.depth--
		default:
			s.Lost = true
		}
	}
}

// begin passes over a value, or the beginning of one: the first entries of lists and objects, down
// to one that holds nothing.
func (s *Scanner) begin() {
	for more := true; more && !s.Lost; {
		more = false
		switch {
		case s.At('{'), s.At('['):
			more = s.open()
		case s.At('"'):
			s.str()
		case s.At('t'):
			s.word("true")
		case s.At('f'):
			s.word("false")
		case s.At('n'):
			s.word("null")
		default:
			s.number()
		}
	}
}

// open passes over the beginning of a list or an object, up to its first value, and reports whether
// there is one.
func (s *Scanner) open() bool {
	list := s.At('[')
	s.Next++
	if s.depth++; s.depth > maxDepth {
		s.Lost = true
		return false
	}
	if word, bit := s.depth/64, uint64(1)<<(s.depth%64); list {
		s.lists[word] |= bit
	} else {
		s.lists[word] &^= bit
	}
	s.Blank()
	if list && s.At(']') || !list && s.At('}') {
		return false // which Skip passes over
	}
	s.head(list)
	return true
}

// isList says whether what is open is a list.
func (s *Scanner) isList() bool { return s.lists[s.depth/64]&(1<<(s.depth%64)) != 0 }

// entry passes over an entry, or the beginning of it.
func (s *Scanner) entry(list bool) {
	s.head(list)
	s.begin()
}

// head passes over what is before the value of an entry: of an object, its key.
func (s *Scanner) head(list bool) {
	if s.Values++; s.most > 0 && s.Values+1 >= s.most {
		s.Lost = true
		return
	}
	if !list {
		s.str()
		s.Blank()
		s.take(':')
		s.Blank()
	}
}

// entries passes over what open and end enclose, with a comma between one visit and the next.
func (s *Scanner) entries(open, end byte, visit func()) {
	s.take(open)
	s.depth++
	s.Lost = s.Lost || s.depth > maxDepth
	s.Blank()
	for more := !s.At(end); more && !s.Lost; {
		s.Values++
		visit()
		s.Blank()
		if more = s.At(','); more {
			s.Next++
			s.Blank()
		}
	}
	s.take(end)
	s.depth--
}

// take passes over a byte that must be next.
func (s *Scanner) take(c byte) {
	if s.Lost || !s.At(c) {
		s.Lost = true
		return
	}
	s.Next++
}

// word passes over a word that must be next.
func (s *Scanner) word(word string) {
	if !bytes.HasPrefix(s.Text[s.Next:], []byte(word)) {
		s.Lost = true
		return
	}
	s.Next += len(word)
}

// str passes over a string. What is no UTF-8 is taken, as decoders take it.
func (s *Scanner) str() {
	s.take('"')
	for i := s.Next; i < len(s.Text) && !s.Lost; i++ {
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
			s.Lost = true
		}
	}
	s.Lost = true
}

// escape passes over what is behind a backslash.
func (s *Scanner) escape() {
	digits := 0
	switch {
	case s.At('u'):
		digits = 4
	case s.Next == len(s.Text) || bytes.IndexByte([]byte(`"\/bfnrt`), s.Text[s.Next]) < 0:
		s.Lost = true
		return
	}
	s.Next++
	for range digits {
		if s.Next == len(s.Text) || bytes.IndexByte([]byte("0123456789abcdefABCDEF"), s.Text[s.Next]) < 0 {
			s.Lost = true
			return
		}
		s.Next++
	}
}

// number passes over a number.
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

// digits passes over at least one digit.
func (s *Scanner) digits() {
	from := s.Next
	for s.Next < len(s.Text) && '0' <= s.Text[s.Next] && s.Text[s.Next] <= '9' {
		s.Next++
	}
	s.Lost = s.Lost || s.Next == from
}
