package workload

import (
	"bytes"
	"fmt"

	"github.com/countersign-dev/countersign/internal/jsonscan"
)

// parts are the members of an object that are kept, or of each object in a list; those without
// parts of their own are kept whole.
type parts map[string]parts

// partsOf are the parts that documentType decodes, for the path to the PodSpec.
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

// maxValues bounds the members and elements of what is kept of an object: maxImages images with all
// that is read beside them are fewer.
const maxValues = 8 * maxImages

// prune returns an object without what nobody decodes, which is nearly all of it. What is not valid
// JSON as a whole, or has an escape in a key on the way, is returned as it is, for the decoder to
// judge. error says that decoding what is kept would cost more than any object that can be checked.
func (p parts) prune(raw []byte) ([]byte, error) {
	w := pruner{Scanner: jsonscan.Scanner{Text: raw}, out: make([]byte, 0, 1024)}
	w.Blank()
	w.began = w.Next
	w.value(p)
	w.End()
	if w.escaped {
		all := jsonscan.Scanner{Text: raw, Next: w.began}
		all.Skip()
		w.kept = all.Values // the decoder is given them all
	}
	switch {
	case w.kept > maxValues:
		return nil, fmt.Errorf("it holds more than %d values where images are looked for", maxValues)
	case w.Lost:
		return raw, nil
	}
	return w.out, nil
}

type pruner struct {
	jsonscan.Scanner
	out []byte
	// kept is how many of the values are in out. More than maxValues end the walk.
	kept int
	// began is where the object begins.
	began int
	// escaped says that a key on the way has an escape, so that all is left to the decoder.
	escaped bool
}

// value copies what is kept of a value.
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

func (w *pruner) whole() {
	from, values := w.Next, w.Values
	w.Skip()
	if w.keep(w.Values - values); !w.Lost {
		w.out = append(w.out, w.Text[from:w.Next]...)
	}
}

// keep counts values that are kept.
func (w *pruner) keep(values int) {
	w.kept += values
	w.Lost = w.Lost || w.kept > maxValues
}

func (w *pruner) object(p parts) {
	open := byte('{')
	w.Members(func(key []byte) {
		if bytes.IndexByte(key, '\\') >= 0 {
			w.Lost, w.escaped = true, true
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
