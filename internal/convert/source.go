package convert

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/countersign-dev/countersign/internal/text"
)

// maxNodes limits the values of a file once its aliases are resolved. Aliases of aliases grow
// without a limit in few bytes.
const maxNodes = 200_000

// maxDepth limits how deep values nest.
const maxDepth = 100

// value is a value of the source, with the place where it stands.
type value struct {
	c    *converter
	file string
	node *yaml.Node
	path string // as it stands in the file: policy[1].pattern
	name string // as it stands in the table of fields: policy[].pattern
	seen map[*yaml.Node]bool
}

// unrendered reports whether a line has a template of Helm or others, outside of a comment.
func unrendered(line []byte) bool {
	_, after, found := bytes.Cut(line, []byte("{{"))
	if !found || bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) {
		return false
	}
	after = bytes.TrimLeft(bytes.TrimPrefix(after, []byte("-")), " \t")
	return len(after) > 0 && (bytes.ContainsAny(after[:1], ".$\"/") || isLetter(after[0]))
}

func isLetter(b byte) bool { return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' }

// fault returns an error about a line of a file.
func fault(file string, line int, format string, args ...any) error {
	message := printable(fmt.Sprintf(format, args...))
	if line == 0 {
		return fmt.Errorf("%s: %s", file, text.Cut(message, 400))
	}
	return fmt.Errorf("%s:%d: %s", file, line, text.Cut(message, 400))
}

// read parses a file, and returns its documents. The items of lists are documents of their own.
func (c *converter) read(file File) ([]value, error) {
	if len(file.Data) > MaxBytes {
		return nil, fault(file.Name, 0, "is larger than the %d MiB that are read", MaxBytes>>20)
	}
	number := 0
	for line := range bytes.Lines(file.Data) {
		number++
		if unrendered(line) {
			return nil, fault(file.Name, number,
				"this is a template that is not rendered: render it first, for example with helm template or helm get values")
		}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(file.Data))
	budget := maxNodes
	var all []value
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fault(file.Name, 0, "is neither YAML nor JSON: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		}
		if len(document.Content) == 0 || document.Content[0].Tag == "!!null" {
			continue
		}
		root, err := expand(document.Content[0], &budget, 0)
		if err != nil {
			return nil, fmt.Errorf("%s:%w", file.Name, err)
		}
		all = append(all, items(value{c: c, file: file.Name, node: root, seen: map[*yaml.Node]bool{}})...)
	}
	if len(all) == 0 {
		return nil, fault(file.Name, 0, "is empty")
	}
	return all, nil
}

// items returns the items of a Kubernetes list, or the document itself.
func items(document value) []value {
	if kind, ok := document.peek("kind"); ok && strings.HasSuffix(kind.node.Value, "List") {
		if list, ok := document.peek("items"); ok && list.node.Kind == yaml.SequenceNode {
			var all []value
			for i, item := range list.node.Content {
				all = append(all, items(value{
					c: document.c, file: document.file, node: item, path: fmt.Sprintf("items[%d]", i),
					seen: map[*yaml.Node]bool{},
				})...)
			}
			return all
		}
	}
	return []value{document}
}

// expand returns a copy of a node in which aliases and merge keys are resolved, and refuses keys
// that stand twice.
func expand(node *yaml.Node, budget *int, depth int) (*yaml.Node, error) {
	if *budget--; *budget < 0 {
		return nil, fmt.Errorf("%d: with its aliases resolved, the file has more than %d values", node.Line, maxNodes)
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("%d: values nest deeper than %d levels, or an alias contains itself",
			node.Line, maxDepth)
	}
	if node.Kind == yaml.AliasNode {
		return expand(node.Alias, budget, depth+1)
	}
	result := *node
	result.Content = nil
	if node.Kind != yaml.MappingNode {
		for _, child := range node.Content {
			copied, err := expand(child, budget, depth+1)
			if err != nil {
				return nil, err
			}
			result.Content = append(result.Content, copied)
		}
		return &result, nil
	}
	var merged []*yaml.Node
	keys := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, child := node.Content[i], node.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("%d: a key of a mapping is no text", key.Line)
		}
		copied, err := expand(child, budget, depth+1)
		if err != nil {
			return nil, err
		}
		if key.Tag == "!!merge" {
			merged = append(merged, copied)
			continue
		}
		if keys[key.Value] {
			return nil, fmt.Errorf("%d: field %q stands twice: remove one", key.Line, text.Cut(key.Value, 100))
		}
		keys[key.Value] = true
		result.Content = append(result.Content, key, copied)
	}
	for _, m := range merged {
		parts := []*yaml.Node{m}
		if m.Kind == yaml.SequenceNode {
			parts = m.Content
		}
		for _, part := range parts {
			for i := 0; i+1 < len(part.Content) && part.Kind == yaml.MappingNode; i += 2 {
				if !keys[part.Content[i].Value] {
					keys[part.Content[i].Value] = true
					result.Content = append(result.Content, part.Content[i], part.Content[i+1])
				}
			}
		}
	}
	return &result, nil
}

// peek returns a field without marking it as read.
func (v value) peek(name string) (value, bool) {
	if v.node == nil || v.node.Kind != yaml.MappingNode {
		return value{}, false
	}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		if v.node.Content[i].Value == name {
			field := v
			field.node = v.node.Content[i+1]
			if field.node.Tag == "!!null" {
				return value{}, false
			}
			field.path, field.name = join(v.path, name), join(v.name, name)
			return field, true
		}
	}
	return value{}, false
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// get returns the first of the fields that is there, and marks all of them as read. The table of
// fields has the first name.
func (v value) get(names ...string) (value, bool) {
	var found value
	ok := false
	for _, name := range names {
		if v.node != nil && v.node.Kind == yaml.MappingNode {
			for i := 0; i+1 < len(v.node.Content); i += 2 {
				if v.node.Content[i].Value == name {
					v.seen[v.node.Content[i]] = true
				}
			}
		}
		if field, is := v.peek(name); is && !ok {
			found, ok = field, true
			found.name = join(v.name, names[0])
			v.c.taken[found.name] = true
		}
	}
	return found, ok
}

// text returns a field that is a text, or "".
func (v value) text(names ...string) (string, value, error) {
	field, ok := v.get(names...)
	if !ok {
		return "", v, nil
	}
	s, err := field.string()
	return s, field, err
}

func (v value) string() (string, error) {
	if v.node.Kind != yaml.ScalarNode {
		return "", v.fault("is no text")
	}
	return v.node.Value, nil
}

// flag returns a field that is true or false, or the default.
func (v value) flag(fallback bool, names ...string) (bool, value, error) {
	field, ok := v.get(names...)
	if !ok {
		return fallback, v, nil
	}
	switch field.node.Value {
	case "true", "True", "TRUE":
		return true, field, nil
	case "false", "False", "FALSE":
		return false, field, nil
	}
	return fallback, field, field.fault("is neither true nor false")
}

// list returns the entries of a field that is a list.
func (v value) list(names ...string) ([]value, error) {
	field, ok := v.get(names...)
	if !ok {
		return nil, nil
	}
	if field.node.Kind != yaml.SequenceNode {
		return nil, field.fault("is no list")
	}
	var all []value
	for i, child := range field.node.Content {
		entry := field
		entry.node = child
		entry.path, entry.name = fmt.Sprintf("%s[%d]", field.path, i), field.name+"[]"
		all = append(all, entry)
	}
	return all, nil
}

// texts returns a field that is a list of texts.
func (v value) texts(names ...string) ([]string, error) {
	entries, err := v.list(names...)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, entry := range entries {
		s, err := entry.string()
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// binary returns a field in base64, or nil.
func (v value) binary(name string) ([]byte, value, error) {
	encoded, field, err := v.text(name)
	if err != nil || encoded == "" {
		return nil, field, err
	}
	data, err := decodeBase64(encoded)
	if err != nil {
		return nil, field, field.fault("is no base64")
	}
	return data, field, nil
}

func decodeBase64(s string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.Join(strings.Fields(s), ""))
}

// fields returns the fields of a mapping with any names, in the order of the file. The table of
// fields has them as "*".
func (v value) fields() (keys []string, values []value) {
	if v.node == nil || v.node.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		v.seen[v.node.Content[i]] = true
		field := v
		field.node = v.node.Content[i+1]
		field.path, field.name = join(v.path, v.node.Content[i].Value), join(v.name, "*")
		v.c.taken[field.name] = true
		keys, values = append(keys, v.node.Content[i].Value), append(values, field)
	}
	return keys, values
}

// finish gives a note for each field of the mapping that nothing has read.
func (v value) finish() {
	if v.node == nil || v.node.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		if key := v.node.Content[i]; !v.seen[key] && v.node.Content[i+1].Tag != "!!null" {
			v.c.note(v.at(key, key.Value), noteUnknown)
		}
	}
}

// skip marks every field of the mapping as read: it does not count.
func (v value) skip() {
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		v.seen[v.node.Content[i]] = true
	}
}

// at returns the value of a node, for a note.
func (v value) at(node *yaml.Node, name string) value {
	v.node = node
	v.path, v.name = join(v.path, name), join(v.name, name)
	return v
}

// mapping refuses a value that has no fields.
func (v value) mapping() error {
	if v.node.Kind != yaml.MappingNode {
		return v.fault("is no mapping")
	}
	return nil
}

func (v value) fault(format string, args ...any) error {
	where := v.path
	if where == "" {
		where = "the document"
	}
	return fault(v.file, v.node.Line, "%s %s", where, fmt.Sprintf(format, args...))
}
