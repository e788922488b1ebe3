package workload

import (
	"bytes"

	"github.com/countersign-dev/countersign/internal/jsonscan"
)

// parts are the members of an object that are kept, or of each object in a list; those without parts of their own are kept whole.
type parts map[string]parts

// partsOf are the parts that documentType decodes, for the path to the PodSpec.
func partsOf(path []string) parts {
	containers := parts{"name": nil, "image": nil}
	at := parts{"initContainers": containers, "containers": containers, "ephemeralContainers": containers, "volumes": {"name": nil, "image": nil}}
	for i := len(path) - 1; i >= 0; i-- {
		at = parts{path[i]: at}
	}
	at["metadata"] = parts{"name": nil, "generateName": nil, "uid": nil, "ownerReferences": {"controller": nil}}
	return at
}

// prune returns an object without what nobody decodes, which is nearly all of it. What is not valid JSON as a whole, or has an escape in
// a key on the way, is returned as it is, for the decoder to judge.
func (p parts) prune(raw []byte) []byte {
	w := pruner{Scanner: jsonscan.Scanner{Text: raw}, out: make([]byte, 0, 1024)}
	w.Blank()
	w.value(p)
	w.End()
	if w.Lost {
		return raw
	}
	return w.out
}

type pruner struct {
	jsonscan.Scanner
	out []byte
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
	from := w.Next
	w.Skip()
	w.out = append(w.out, w.Text[from:w.Next]...)
}

func (w *pruner) object(p parts) {
	open := byte('{')
	w.Members(func(key []byte) {
		if bytes.IndexByte(key, '\\') >= 0 {
			w.Lost = true
			return
		}
		inner, kept := p[string(key[1:len(key)-1])]
		if !kept {
			w.Skip()
			return
		}
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
