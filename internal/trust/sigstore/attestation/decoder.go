package attestation

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"github.com/countersign-dev/countersign/internal/jsonscan"
)

// decoder decodes a text that is valid JSON into values that CEL knows: maps, lists, strings,
// booleans, nil and numbers. A whole number is an int64, or a uint64 if it is too large for that.
// Other numbers are float64.
type decoder struct {
	scan jsonscan.Scanner
	err  error
}

// fail stops the decoder with its first error.
func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.scan.Invalid = true
}

func (d *decoder) value(depth int) any {
	if depth > maxDepth {
		d.fail(fmt.Errorf("is nested deeper than %d levels", maxDepth))
		return nil
	}
	switch {
	case d.scan.At('{'):
		return d.object(depth)
	case d.scan.At('['):
		list := []any{}
		d.scan.Elements(func() { list = append(list, d.value(depth+1)) })
		return list
	}
	from := d.scan.Next
	d.scan.Skip()
	if d.scan.Invalid {
		d.fail(errors.New("is not valid JSON"))
		return nil
	}
	return d.scalar(d.scan.Text[from:d.scan.Next])
}

func (d *decoder) object(depth int) map[string]any {
	object := map[string]any{}
	d.scan.Members(func(key []byte) {
		name, ok := unquote(key)
		if _, twice := object[name]; !ok || twice {
			d.fail(errors.New("has a name twice in an object"))
			return
		}
		object[name] = d.value(depth + 1)
	})
	return object
}

// scalar decodes a string, a literal or a number.
func (d *decoder) scalar(text []byte) any {
	switch text[0] {
	case '"':
		s, ok := unquote(text)
		if !ok {
			d.fail(errors.New("is not valid JSON"))
		}
		return s
	case 't':
		return true
	case 'f':
		return false
	case 'n':
		return nil
	}
	if !bytes.ContainsAny(text, ".eE") {
		if n, err := strconv.ParseInt(string(text), 10, 64); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(string(text), 10, 64); err == nil {
			return n
		}
	}
	n, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		d.fail(errors.New("has a number that is out of range"))
	}
	return n
}
