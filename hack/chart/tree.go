package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// A tree is the template of an object: maps, lists and scalars as sigs.k8s.io/yaml decodes them,
// and one of the types below for each part that depends on a value.

// inline is template text that yields a scalar.
type inline string

// block is a template pipeline that yields a map or a list in YAML. Under the key moreKey it yields
// more entries of its own map.
type block string

// guarded is an entry of a map, or an element of a list, that is rendered only if a condition
// holds.
type guarded struct {
	condition string
	value     any
}

// choice is an entry of a map whose value depends on conditions. The first branch whose condition
// holds is rendered.
type choice struct {
	branches  []guarded
	otherwise any
}

// moreKey sorts after every real key.
const moreKey = "\uffff"

// emit returns the text of the template that tree describes.
func emit(tree map[string]any) ([]byte, error) {
	var e emitter
	e.entries(0, tree)
	return e.out.Bytes(), e.err
}

type emitter struct {
	out bytes.Buffer
	err error // the first error
}

func (e *emitter) line(indent int, format string, args ...any) {
	e.out.WriteString(strings.Repeat(" ", indent))
	fmt.Fprintf(&e.out, format+"\n", args...)
}

func (e *emitter) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

// entries writes a map, with its keys in the order of byReading.
func (e *emitter) entries(indent int, m map[string]any) {
	for _, key := range slices.SortedFunc(maps.Keys(m), byReading) {
		e.entry(indent, key, m[key])
	}
}

// byReading orders keys as people expect them in a manifest: name, apiVersion, kind and metadata
// first.
func byReading(a, b string) int {
	rank := func(key string) int {
		i := slices.Index([]string{"name", "apiVersion", "kind", "metadata", "ports"}, key)
		if i < 0 {
			return 5
		}
		return i
	}
	if d := rank(a) - rank(b); d != 0 {
		return d
	}
	return strings.Compare(a, b)
}

func (e *emitter) entry(indent int, key string, value any) {
	switch v := value.(type) {
	case guarded:
		e.line(indent, "{{- if %s }}", v.condition)
		e.entry(indent, key, v.value)
		e.line(indent, "{{- end }}")
	case choice:
		for i, b := range v.branches {
			e.line(indent, "{{- %s %s }}", []string{"if", "else if"}[min(i, 1)], b.condition)
			e.entry(indent, key, b.value)
		}
		e.line(indent, "{{- else }}")
		e.entry(indent, key, v.otherwise)
		e.line(indent, "{{- end }}")
	case inline:
		e.line(indent, "%s: %s", key, string(v))
	case block:
		if key == moreKey {
			e.line(indent, "{{- %s | nindent %d }}", string(v), indent)
			return
		}
		e.line(indent, "%s:", key)
		e.line(indent+2, "{{- %s | nindent %d }}", string(v), indent+2)
	default:
		if isPlain(value) {
			e.plain(indent, map[string]any{key: value})
			return
		}
		e.line(indent, "%s:", key)
		switch v := value.(type) {
		case map[string]any:
			e.entries(indent+2, v)
		case []any:
			e.elements(indent, v)
		}
	}
}

func (e *emitter) elements(indent int, list []any) {
	for _, element := range list {
		switch v := element.(type) {
		case guarded:
			e.line(indent, "{{- if %s }}", v.condition)
			e.elements(indent, []any{v.value})
			e.line(indent, "{{- end }}")
		case inline:
			e.line(indent, "- %s", string(v))
		case block:
			e.line(indent, "{{- %s | nindent %d }}", string(v), indent)
		case map[string]any:
			e.element(indent, v)
		default:
			if !isPlain(v) {
				e.fail(fmt.Errorf("a list has an element of type %T, which cannot be written", v))
			}
			e.plain(indent, []any{v})
		}
	}
}

// element writes a map as an element of a list.
func (e *emitter) element(indent int, m map[string]any) {
	if isPlain(m) {
		e.plain(indent, []any{m})
		return
	}
	var inner emitter
	inner.entries(indent+2, m)
	text := strings.TrimLeft(inner.out.String(), " ")
	if strings.HasPrefix(text, "{{") {
		e.fail(fmt.Errorf("the first field of a list's element must not depend on a value: %s", text))
	}
	e.fail(inner.err)
	e.line(indent, "- %s", strings.TrimSuffix(text, "\n"))
}

// plain writes a value as YAML. It escapes braces, so that they are not template text.
func (e *emitter) plain(indent int, value any) {
	text, err := yaml.Marshal(value)
	if err != nil {
		e.fail(fmt.Errorf("writing YAML: %w", err))
	}
	for line := range strings.Lines(strings.ReplaceAll(string(text), "{{", `{{ "{{" }}`)) {
		if line != "\n" {
			e.out.WriteString(strings.Repeat(" ", indent))
		}
		e.out.WriteString(line)
	}
}

// isPlain reports whether no part of a tree depends on a value.
func isPlain(tree any) bool {
	switch v := tree.(type) {
	case inline, block, guarded, choice:
		return false
	case map[string]any:
		for _, value := range v {
			if !isPlain(value) {
				return false
			}
		}
	case []any:
		return !slices.ContainsFunc(v, func(value any) bool { return !isPlain(value) })
	}
	return true
}
