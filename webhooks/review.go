package webhooks

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/json"
)

// decodeReview reads an AdmissionReview. The objects in it are most of it, and are decoded later, once their kind is known; they are
// cut out first, so that their JSON is not gone through in vain. They share memory with body.
func decodeReview(body []byte) (admissionv1.AdmissionReview, error) {
	rest, object, old := cutObjects(body)
	var in admissionv1.AdmissionReview
	odd, err := json.UnmarshalStrict(rest, &in, json.DisallowDuplicateFields)
	switch {
	case err != nil:
		return admissionv1.AdmissionReview{}, fmt.Errorf("reading the review: %w", err)
	case len(odd) > 0:
		return admissionv1.AdmissionReview{}, fmt.Errorf("reading the review: %w", odd[0])
	case in.GroupVersionKind() != reviewKind():
		return admissionv1.AdmissionReview{}, fmt.Errorf("it is of kind %.80q, expected %q", in.GroupVersionKind(), reviewKind())
	case in.Request == nil:
		return admissionv1.AdmissionReview{}, errors.New("the review holds no request")
	}
	if object != nil {
		in.Request.Object.Raw = object
	}
	if old != nil {
		in.Request.OldObject.Raw = old
	}
	return in, nil
}

// cutObjects takes request.object and request.oldObject out of a review, and leaves null in their places. It judges nothing: it only
// finds where a JSON object ends, and there is one such place in what is valid. Whoever decodes the three parts finds fault with
// exactly what is faulty in the whole: a part that was cut in the wrong place is no JSON. What it cannot find stays in the rest.
func cutObjects(body []byte) (rest, object, old []byte) {
	s := scanner{text: body}
	type cut struct{ from, to int }
	var first, second cut
	s.members(func(key []byte) {
		if !bytes.Equal(key, []byte(`"request"`)) || !s.at('{') {
			s.skip()
			return
		}
		s.members(func(key []byte) {
			at := s.next
			begins := s.at('{')
			s.skip()
			switch found := (cut{at, s.next}); {
			case !begins || s.lost:
			case bytes.Equal(key, []byte(`"object"`)):
				first = found
			case bytes.Equal(key, []byte(`"oldObject"`)):
				second = found
			}
		})
	})
	if s.lost {
		return body, nil, nil
	}
	cuts := slices.DeleteFunc([]cut{first, second}, func(c cut) bool { return c.to == 0 })
	slices.SortFunc(cuts, func(a, b cut) int { return a.from - b.from })
	from := 0
	for _, c := range cuts {
		rest = append(append(rest, body[from:c.from]...), "null"...)
		from = c.to
	}
	part := func(c cut) []byte {
		if c.to == 0 {
			return nil
		}
		return body[c.from:c.to:c.to]
	}
	return append(rest, body[from:]...), part(first), part(second)
}

// scanner goes through JSON without a look at what it means. It is lost where it finds what it does not expect, and stays so.
type scanner struct {
	text []byte
	next int
	lost bool
}

// blank passes over white space.
func (s *scanner) blank() {
	for s.next < len(s.text) && bytes.IndexByte([]byte(" \t\r\n"), s.text[s.next]) >= 0 {
		s.next++
	}
}

// at reports whether a byte is next.
func (s *scanner) at(c byte) bool { return s.next < len(s.text) && s.text[s.next] == c }

// take passes over a byte that must be next, and the white space behind it.
func (s *scanner) take(c byte) {
	if !s.at(c) {
		s.lost = true
		return
	}
	s.next++
	s.blank()
}

// members has each member of an object visited: with its key, quotes included, and at its value, which visit must pass over.
func (s *scanner) members(visit func(key []byte)) {
	s.blank()
	s.take('{')
	for !s.lost && !s.at('}') {
		from := s.next
		s.str()
		key := s.text[from:s.next]
		s.blank()
		s.take(':')
		if s.lost {
			return
		}
		visit(key)
		s.blank()
		if s.at(',') {
			s.take(',')
		} else if !s.at('}') {
			s.lost = true
		}
	}
	s.take('}')
}

// str passes over a string.
func (s *scanner) str() {
	if !s.at('"') {
		s.lost = true
		return
	}
	for s.next++; s.next < len(s.text); s.next++ {
		switch s.text[s.next] {
		case '\\':
			s.next++
		case '"':
			s.next++
			return
		}
	}
	s.lost = true
}

// skip passes over a value.
func (s *scanner) skip() {
	depth := 0
	for s.next < len(s.text) && !s.lost {
		switch s.text[s.next] {
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
				s.next++
			}
			if depth <= 0 {
				return
			}
		case ',':
			if depth == 0 {
				return
			}
		}
		s.next++
	}
	s.lost = true
}
