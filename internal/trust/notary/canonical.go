package notary

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"
)

// maxNesting bounds the depth of a JSON document; the deepest file of the format needs nine levels, and "custom" data
// of a target whatever its signer put there.
const maxNesting = 64

// object is a JSON object. Fields are looked up by their exact name: encoding/json would match struct fields whatever
// their case, so that two readers of one signed file could see different values.
type object = map[string]any

// parseJSON reads exactly one JSON document. It is stricter than encoding/json where readers may differ: it refuses
// names that occur twice in an object, invalid UTF-8 and, since the canonical form knows integers only, other numbers.
func parseJSON(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not valid UTF-8")
	}
	if !json.Valid(data) {
		return nil, errors.New("not valid JSON")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := parseValue(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON document")
	}
	return v, nil
}

func parseValue(dec *json.Decoder, depth int) (any, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("nested deeper than %d levels", maxNesting)
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("reading JSON: %w", err)
	}
	switch t := tok.(type) {
	case json.Delim:
		if t == '{' {
			return parseObject(dec, depth)
		}
		return parseArray(dec, depth)
	case json.Number:
		if !isInteger(string(t)) {
			return nil, fmt.Errorf("number %s is not an integer in plain digits", strconv.Quote(string(t)))
		}
	}
	return tok, nil
}

func parseObject(dec *json.Decoder, depth int) (any, error) {
	o := object{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("reading JSON: %w", err)
		}
		name, ok := tok.(string)
		if !ok {
			return nil, errors.New("an object's name is not a string")
		}
		if _, twice := o[name]; twice {
			return nil, fmt.Errorf("name %q occurs twice in one object", name)
		}
		if o[name], err = parseValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := dec.Token()
	return o, err
}

func parseArray(dec *json.Decoder, depth int) (any, error) {
	list := []any{}
	for dec.More() {
		v, err := parseValue(dec, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := dec.Token()
	return list, err
}

// isInteger reports whether a JSON number has the one form that canonical JSON gives it.
func isInteger(s string) bool {
	if s == "0" {
		return true
	}
	if len(s) > 0 && s[0] == '-' {
		s = s[1:]
	}
	if s == "" || s[0] == '0' {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// appendCanonical appends the canonical form of a value that parseJSON returned: names sorted bytewise, no white space,
// and in strings only the quotation mark and the backslash escaped; control characters stay raw, unlike in JSON.
func appendCanonical(dst []byte, v any) []byte {
	switch v := v.(type) {
	case object:
		dst = append(dst, '{')
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendString(dst, name), ':')
			dst = appendCanonical(dst, v[name])
		}
		return append(dst, '}')
	case []any:
		dst = append(dst, '[')
		for i, item := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendCanonical(dst, item)
		}
		return append(dst, ']')
	case string:
		return appendString(dst, v)
	case json.Number:
		return append(dst, v...)
	case bool:
		return strconv.AppendBool(dst, v)
	default:
		return append(dst, "null"...)
	}
}

func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, s[i])
	}
	return append(dst, '"')
}

// field returns a field that must be there and have type T.
func field[T any](o object, name string) (T, error) {
	v, ok := o[name].(T)
	if !ok {
		return v, fmt.Errorf("%q is missing or not of its type", name)
	}
	return v, nil
}

// optional returns a field that may be absent or null; it is then the zero value of T.
func optional[T any](o object, name string) (T, error) {
	if o[name] == nil {
		var zero T
		return zero, nil
	}
	return field[T](o, name)
}

// integer returns a field that must be an integer of 64 bits.
func integer(o object, name string) (int64, error) {
	n, err := field[json.Number](o, name)
	if err != nil {
		return 0, err
	}
	i, err := n.Int64()
	if err != nil {
		return 0, fmt.Errorf("%q is out of range", name)
	}
	return i, nil
}

// texts returns a field that is a list of strings, and may be absent or null.
func texts(o object, name string) ([]string, error) {
	list, err := optional[[]any](o, name)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(list))
	for i, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("%q holds something other than a string", name)
		}
		out[i] = s
	}
	return out, nil
}
