package workload

import (
	"bytes"
	"fmt"

	"github.com/countersign-dev/countersign/internal/jsonscan"
)

// parts are the members to keep of an object, or of each object in a list. A member without parts
// of its own is kept whole.
type parts map[string]parts

// partsOf returns the parts that documentType decodes, for a path to the PodSpec.
func partsOf(path []string) parts {
	containers := parts{"name": nil, "image": nil}
	at := parts{
		"initContainers": containers, "containers": containers, "ephemeralContainers": containers,
		"volumes": {"name": nil, "image": nil},
	}
	for i := len(path) - 1; i >= 0; i-- {
		at = parts{path[i]: at}
	}
	at["metadata"] = parts{"name": nil, "generateName": nil, "uid": nil, "ownerReferences": {"controller": nil}}
	return at
}

// maxValues is the maximum number of members and elements that are kept of an object. An object
// with maxImages images has fewer.
const maxValues = 8 * maxImages

// prune returns an object with only the parts that are decoded, a small fraction of it. It returns
// the object unchanged, for the decoder to refuse or decode, if it is not valid JSON or if a key on
// the path has an escape. It returns an error if the parts have more than maxValues values.
func (p parts) prune(raw []byte) ([]byte, error) {
	w := pruner{Scanner: jsonscan.Scanner{Text: raw}, out: make([]byte, 0, 1024)}
	w.SkipSpace()
	w.began = w.Next
	w.value(p)
	w.End()
	if w.escaped {
		all := jsonscan.Scanner{Text: raw, Next: w.began}
		all.Skip()
		w.kept = all.Values // the decoder gets the whole object
	}
	switch {
	case w.kept > maxValues:
		return nil, fmt.Errorf("it holds more than %d values where images are looked for", maxValues)
	case w.Invalid:
		return raw, nil
	}
	return w.out, nil
}

// pruner scans an object and copies the kept parts to out.
type pruner struct {
	jsonscan.Scanner
	out []byte
	// kept is the number of values in out. The scan ends when it exceeds maxValues.
	kept int
	// began is the offset of the object in the text.
	began int
	// escaped says that a key on the path has an escape, so that the decoder gets the whole object.
	escaped bool
}

// value copies the kept parts of a value.
func (w *pruner) value(p parts) {
	switch {
	case p != nil && w.At('{'):
		w.object(p)
	case p != nil && w.At('['):
		w.list(p)
	default:
		w.whole()
	}
}

// whole copies a value unchanged.
func (w *pruner) whole() {
	from, values := w.Next, w.Values
	w.Skip()
	if w.keep(w.Values - values); !w.Invalid {
		w.out = append(w.out, w.Text[from:w.Next]...)
	}
}

// keep counts values that are copied, and ends the scan above maxValues.
func (w *pruner) keep(values int) {
	w.kept += values
	w.Invalid = w.Invalid || w.kept > maxValues
}

func (w *pruner) object(p parts) {
	open := byte('{')
	w.Members(func(key []byte) {
		if bytes.IndexByte(key, '\\') >= 0 {
			w.Invalid, w.escaped = true, true
			return
		}
		inner, kept := p[string(key[1:len(key)-1])]
		if !kept {
			w.Skip()
			return
		}
		w.keep(1)
		w.out = append(append(append(w.out, open), key...), ':')
		w.value(inner)
		open = ','
	})
	if open == '{' {
		w.out = append(w.out, '{')
	}
	w.out = append(w.out, '}')
}

func (w *pruner) list(p parts) {
	open := byte('[')
	w.Elements(func() {
		w.keep(1)
		w.out = append(w.out, open)
		if w.At('{') {
			w.object(p)
		} else {
			w.whole()
		}
		open = ','
	})
	if open == '[' {
		w.out = append(w.out, '[')
	}
	w.out = append(w.out, ']')
}
