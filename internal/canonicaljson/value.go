package canonicaljson

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strconv"
)

// Value is a JSON value in canonical form: a part of a result of Encode. It shares memory with the
// whole document. nil: absent.
type Value []byte

// Object is a Value that is an object. Member names match exactly. encoding/json ignores the case
// of names, so two readers of one signed file could see different values. A lookup takes linear
// time.
type Object Value

// Members returns the names and values of an object, sorted by name.
func (o Object) Members() iter.Seq2[Value, Value] {
	return func(yield func(name, member Value) bool) {
		for at := 1; at < len(o)-1; at++ { // at++ skips the comma
			name := ValueEnd(o, at)
			to := ValueEnd(o, name+1)
			if !yield(Value(o[at:name]), Value(o[name+1:to])) {
				return
			}
			at = to
		}
	}
}

// Size returns the number of members.
func (o Object) Size() int {
	n := 0
	for range o.Members() {
		n++
	}
	return n
}

// Elements returns the elements of a list.
func (v Value) Elements() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		for at := 1; at < len(v)-1; at++ { // at++ skips the comma
			to := ValueEnd(v, at)
			if !yield(v[at:to]) {
				return
			}
			at = to
		}
	}
}

// Object returns the value as an object, and nil and false if it is not one.
func (v Value) Object() (Object, bool) {
	if len(v) == 0 || v[0] != '{' {
		return nil, false
	}
	return Object(v), true
}

// IsString reports whether the value is a string.
func (v Value) IsString() bool { return len(v) > 0 && v[0] == '"' }

// Text returns the value as a string, and false if it is not one.
func (v Value) Text() (string, bool) {
	if !v.IsString() {
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

// Get returns a member, or nil if it is absent. name must need no escape.
func (o Object) Get(name string) Value {
	for n, v := range o.Members() {
		if len(n) == len(name)+2 && string(n[1:len(n)-1]) == name {
			return v
		}
	}
	return nil
}

// IsAbsent reports whether a member is absent or null.
func (v Value) IsAbsent() bool { return len(v) == 0 || v[0] == 'n' }

// WrongField returns the error of a member that is missing or has another type.
func WrongField(name string) error { return fmt.Errorf("%q is missing or not of its type", name) }

// Object returns a required member that is an object.
func (o Object) Object(name string) (Object, error) {
	inner, ok := o.Get(name).Object()
	if !ok {
		return nil, WrongField(name)
	}
	return inner, nil
}

// OptionalObject returns a member that is an object, or nil if it is absent or null.
func (o Object) OptionalObject(name string) (Object, error) {
	v := o.Get(name)
	if v.IsAbsent() {
		return nil, nil
	}
	inner, ok := v.Object()
	if !ok {
		return nil, WrongField(name)
	}
	return inner, nil
}

// Text returns a required member that is a string.
func (o Object) Text(name string) (string, error) {
	s, ok := o.Get(name).Text()
	if !ok {
		return "", WrongField(name)
	}
	return s, nil
}

// List returns a required member that is a list.
func (o Object) List(name string) (Value, error) {
	v := o.Get(name)
	if len(v) == 0 || v[0] != '[' {
		return nil, WrongField(name)
	}
	return v, nil
}

// OptionalList returns a member that is a list, or nil if it is absent or null.
func (o Object) OptionalList(name string) (Value, error) {
	if o.Get(name).IsAbsent() {
		return nil, nil
	}
	return o.List(name)
}

// Integer returns a required member that is an integer of 64 bits.
func (o Object) Integer(name string) (int64, error) {
	v := o.Get(name)
	if len(v) == 0 || v[0] != '-' && (v[0] < '0' || v[0] > '9') {
		return 0, WrongField(name)
	}
	i, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is out of range", name)
	}
	return i, nil
}

// ErrTooMany is the error of a list that is longer than the caller reads.
var ErrTooMany = errors.New("too many")

// Texts returns an optional member that is a list of at most limit strings. The error wraps
// ErrTooMany if there are more.
func (o Object) Texts(name string, limit int) ([]string, error) {
	list, err := o.OptionalList(name)
	if err != nil || list == nil {
		return nil, err
	}
	var out []string
	for v := range list.Elements() {
		s, ok := v.Text()
		if !ok {
			return nil, fmt.Errorf("%q holds something other than a string", name)
		}
		if len(out) == limit {
			return nil, fmt.Errorf("%q lists %w, more than the %d that are read", name, ErrTooMany, limit)
		}
		out = append(out, s)
	}
	return out, nil
}
