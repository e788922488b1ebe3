package notary

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strconv"
)

// value is a JSON value in canonical form: a part of a result of canonical. It shares memory with
// the whole document. nil: absent.
type value []byte

// object is a value that is an object. Member names match exactly. encoding/json ignores the case
// of names, so two readers of one signed file could see different values. A lookup takes linear
// time.
type object value

// valueEnd returns the end of the value that begins at offset at of a canonical document.
func valueEnd(doc []byte, at int) int {
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

// members returns the names and values of an object, sorted by name.
func (o object) members() iter.Seq2[value, value] {
	return func(yield func(name, member value) bool) {
		for at := 1; at < len(o)-1; at++ { // at++ skips the comma
			name := valueEnd(o, at)
			to := valueEnd(o, name+1)
			if !yield(value(o[at:name]), value(o[name+1:to])) {
				return
			}
			at = to
		}
	}
}

// size returns the number of members.
func (o object) size() int {
	n := 0
	for range o.members() {
		n++
	}
	return n
}

// elements returns the elements of a list.
func (v value) elements() iter.Seq[value] {
	return func(yield func(value) bool) {
		for at := 1; at < len(v)-1; at++ { // at++ skips the comma
			to := valueEnd(v, at)
			if !yield(v[at:to]) {
				return
			}
			at = to
		}
	}
}

// object returns the value as an object, and false if it is not one.
func (v value) object() (object, bool) {
	return object(v), len(v) > 0 && v[0] == '{'
}

func (v value) isString() bool { return len(v) > 0 && v[0] == '"' }

// text returns the value as a string, and false if it is not one.
func (v value) text() (string, bool) {
	if !v.isString() {
		return "", false
	}
	inner := v[1 : len(v)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), true
	}
	out := make([]byte, 0, len(inner))
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' {
			i++
		}
		out = append(out, inner[i])
	}
	return string(out), true
}

// get returns a member, or nil if it is absent. name must need no escape.
func (o object) get(name string) value {
	for n, v := range o.members() {
		if len(n) == len(name)+2 && string(n[1:len(n)-1]) == name {
			return v
		}
	}
	return nil
}

// isAbsent reports whether a member is absent or null.
func (v value) isAbsent() bool { return len(v) == 0 || v[0] == 'n' }

func wrongField(name string) error { return fmt.Errorf("%q is missing or not of its type", name) }

// object returns a required member that is an object.
func (o object) object(name string) (object, error) {
	inner, ok := o.get(name).object()
	if !ok {
		return nil, wrongField(name)
	}
	return inner, nil
}

// optionalObject returns a member that is an object, or nil if it is absent or null.
func (o object) optionalObject(name string) (object, error) {
	v := o.get(name)
	if v.isAbsent() {
		return nil, nil
	}
	inner, ok := v.object()
	if !ok {
		return nil, wrongField(name)
	}
	return inner, nil
}

// text returns a required member that is a string.
func (o object) text(name string) (string, error) {
	s, ok := o.get(name).text()
	if !ok {
		return "", wrongField(name)
	}
	return s, nil
}

// list returns a required member that is a list.
func (o object) list(name string) (value, error) {
	v := o.get(name)
	if len(v) == 0 || v[0] != '[' {
		return nil, wrongField(name)
	}
	return v, nil
}

// optionalList returns a member that is a list, or nil if it is absent or null.
func (o object) optionalList(name string) (value, error) {
	if o.get(name).isAbsent() {
		return nil, nil
	}
	return o.list(name)
}

// integer returns a required member that is an integer of 64 bits.
func (o object) integer(name string) (int64, error) {
	v := o.get(name)
	if len(v) == 0 || v[0] != '-' && (v[0] < '0' || v[0] > '9') {
		return 0, wrongField(name)
	}
	i, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is out of range", name)
	}
	return i, nil
}

var errTooMany = errors.New("too many")

// texts returns an optional member that is a list of at most limit strings. The error wraps
// errTooMany if there are more.
func (o object) texts(name string, limit int) ([]string, error) {
	list, err := o.optionalList(name)
	if err != nil || list == nil {
		return nil, err
	}
	var out []string
	for v := range list.elements() {
		s, ok := v.text()
		if !ok {
			return nil, fmt.Errorf("%q holds something other than a string", name)
		}
		if len(out) == limit {
			return nil, fmt.Errorf("%q lists %w, more than the %d that are read", name, errTooMany, limit)
		}
		out = append(out, s)
	}
	return out, nil
}
