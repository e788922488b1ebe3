// Package jsonscan goes through JSON without decoding it, to find where values begin and end.
//
// In valid JSON it finds exactly that. It is no judge of what is valid: whoever relies on a part must decode it, or know that the
// whole is valid. It allocates nothing, and never goes deeper than it is asked to.
package jsonscan

import "bytes"

// Scanner goes through JSON without a look at what it means. It is lost where it finds what it does not expect, and stays so.
type Scanner struct {
	// Text is gone through, from Next on.
	Text []byte
	Next int
	// Lost says that Text is no JSON, or not what was asked for.
	Lost bool
}

// blank passes over white space.
func (s *Scanner) blank() {
	for s.Next < len(s.Text) && bytes.IndexByte([]byte(" \t\r\n"), s.Text[s.Next]) >= 0 {
		s.Next++
	}
}

// At reports whether a byte is next.
func (s *Scanner) At(c byte) bool { return s.Next < len(s.Text) && s.Text[s.Next] == c }

// Take passes over a byte that must be next, and the white space behind it.
func (s *Scanner) Take(c byte) {
	if !s.At(c) {
		s.Lost = true
		return
	}
	s.Next++
	s.blank()
}

// Members has each member of an object visited: with its key, quotes included, and at its value, which visit must pass over.
func (s *Scanner) Members(visit func(key []byte)) {
	s.blank()
	s.Take('{')
	for !s.Lost && !s.At('}') {
		from := s.Next
		s.str()
		key := s.Text[from:s.Next]
		s.blank()
		s.Take(':')
		if s.Lost {
			return
		}
		visit(key)
		s.blank()
		if s.At(',') {
			s.Take(',')
		} else if !s.At('}') {
			s.Lost = true
		}
	}
	s.Take('}')
}

// str passes over a string.
func (s *Scanner) str() {
	if !s.At('"') {
		s.Lost = true
		return
	}
	for s.Next++; s.Next < len(s.Text); s.Next++ {
		switch s.Text[s.Next] {
		case '\\':
			s.Next++
		case '"':
			s.Next++
			return
		}
	}
	s.Lost = true
}

// Skip passes over a value.
func (s *Scanner) Skip() {
	depth := 0
	for s.Next < len(s.Text) && !s.Lost {
		switch s.Text[s.Next] {
		case '"':
			s.str()
			if depth == 0 {
				return
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth == 0 {
				s.Next++
			}
			if depth <= 0 {
				return
			}
		case ',':
			if depth == 0 {
				return
			}
		}
		s.Next++
	}
	s.Lost = true
}

// Elements has each element of a list visited, which visit must pass over.
func (s *Scanner) Elements(visit func()) {
	s.blank()
	s.Take('[')
	for !s.Lost && !s.At(']') {
		visit()
		s.blank()
		if s.At(',') {
			s.Take(',')
		} else if !s.At(']') {
			s.Lost = true
		}
	}
	s.Take(']')
}
