package documents

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	yamlv2 "go.yaml.in/yaml/v2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const (
	// maxExpanded is the maximum size of a document with its aliases expanded, in bytes.
	maxExpanded = 64 << 20
	// maxNested is how deep lists may be nested in lists.
	maxNested = 8
)

// split reads the documents of one file. It stops at the first that cannot be parsed, as kubectl
// does: what follows may belong to it.
func (r *reader) split(file string, content []byte) {
	at := Position{File: file}
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	if !utf8.Valid(content) {
		r.fail(at, "", errors.New("not a text in UTF-8"))
		return
	}
	for chunks := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content))); ; {
		chunk, err := chunks.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		at.Document++
		var values [][]byte
		if err == nil {
			values, err = r.values(chunk)
		}
		if err != nil {
			r.fail(at, "", explain(err, chunk))
			return
		}
		for _, value := range values {
			r.object(at, value, 0)
		}
	}
}

// values returns the JSON of one chunk between two separators: a YAML document, or any number of
// JSON values.
func (r *reader) values(chunk []byte) ([][]byte, error) {
	if utilyaml.IsJSONBuffer(chunk) {
		if values, ok := jsonValues(chunk); ok {
			return values, nil
		}
	}
	if endsEarly(chunk) {
		return nil, errors.New("text follows the line \"...\"; kubectl would not read it: separate documents with ---")
	}
	if err := checkAliases(chunk); err != nil {
		return nil, err
	}
	if followed(chunk) {
		return nil, errors.New("text follows the document, and would be ignored: separate documents with ---, each " +
			"on a line of its own")
	}
	convert := yaml.YAMLToJSON
	if r.Strict {
		convert = yaml.YAMLToJSONStrict
	}
	value, err := convert(chunk)
	if err != nil {
		return nil, err
	}
	return [][]byte{value}, nil
}

// jsonValues returns the values of a stream of JSON. ok is false if it is not one.
func jsonValues(chunk []byte) (values [][]byte, ok bool) {
	for d := json.NewDecoder(bytes.NewReader(chunk)); ; {
		var value json.RawMessage
		err := d.Decode(&value)
		if errors.Is(err, io.EOF) {
			return values, true
		}
		if err != nil {
			return nil, false
		}
		values = append(values, value)
	}
}

// endsEarly reports whether text follows the marker "..." that ends a document in YAML.
func endsEarly(chunk []byte) bool {
	ended := false
	for line := range bytes.Lines(chunk) {
		line = bytes.TrimRight(line, " \t\r\n")
		switch {
		case bytes.Equal(line, []byte("...")) || bytes.HasPrefix(line, []byte("... ")):
			ended = true
		case ended && len(line) > 0 && line[0] != '#':
			return true
		}
	}
	return false
}

// skipped is a document of which nothing is decoded.
type skipped struct{}

// UnmarshalYAML implements yaml.Unmarshaler.
func (*skipped) UnmarshalYAML(func(any) error) error { return nil }

// followed reports whether a text has more than one document for the YAML parser, which knows more
// line ends than the reader of chunks. The decoder reads only the first. A text that is not valid
// has one, so that its error is reported.
func followed(chunk []byte) bool {
	d := yamlv2.NewDecoder(bytes.NewReader(chunk))
	if d.Decode(&skipped{}) != nil {
		return false
	}
	return !errors.Is(d.Decode(&skipped{}), io.EOF)
}

// checkAliases returns an error if the aliases of a document expand to more than maxExpanded. The
// decoder limits the number of values, but not their size.
func checkAliases(chunk []byte) error {
	if !bytes.ContainsRune(chunk, '*') || !bytes.ContainsRune(chunk, '&') {
		return nil
	}
	var value any
	if err := yamlv2.Unmarshal(chunk, &value); err != nil {
		return err
	}
	left := maxExpanded
	if !fits(value, &left) {
		return fmt.Errorf("its aliases expand to more than %d MiB", maxExpanded>>20)
	}
	return nil
}

// fits subtracts the size of a value from left. It returns false if nothing is left.
func fits(value any, left *int) bool {
	*left -= 8
	switch v := value.(type) {
	case string:
		*left -= len(v)
	case []any:
		for _, item := range v {
			if !fits(item, left) {
				return false
			}
		}
	case map[any]any:
		for key, item := range v {
			if !fits(key, left) || !fits(item, left) {
				return false
			}
		}
	}
	return *left > 0
}

// object adds the object in a value, or those in a list.
func (r *reader) object(at Position, value []byte, depth int) {
	value = bytes.TrimSpace(value)
	if len(value) == 0 || bytes.Equal(value, []byte("null")) {
		return
	}
	if value[0] != '{' {
		r.fail(at, "", explain(errors.New("not an object of Kubernetes"), value))
		return
	}
	if r.Strict {
		var object map[string]any
		odd, err := kjson.UnmarshalStrict(value, &object, kjson.DisallowDuplicateFields)
		if err != nil || len(odd) > 0 {
			r.fail(at, "", errors.Join(append(odd, err)...))
			return
		}
	}
	// The codec decides what a list is, as in kubectl.
	decoded, _, err := unstructured.UnstructuredJSONScheme.Decode(value, nil, nil)
	if runtime.IsMissingKind(err) {
		err = errors.New("the field kind is missing, so it is not an object of Kubernetes")
	}
	if err != nil {
		r.fail(at, "", explain(err, value))
		return
	}
	switch o := decoded.(type) {
	case *unstructured.Unstructured:
		r.add(Object{Position: at, Unstructured: o})
	case *unstructured.UnstructuredList:
		if kind := o.GetKind(); !strings.HasSuffix(kind, "List") {
			r.fail(at, "", fmt.Errorf("the field items of this %.64q makes it a list, so the rest would be ignored; "+
				"remove it", kind))
			return
		}
		if depth == maxNested {
			r.fail(at, "", fmt.Errorf("lists are nested more than %d deep", maxNested))
			return
		}
		for i := range o.Items {
			item, err := o.Items[i].MarshalJSON()
			if err != nil {
				r.fail(at, "", err)
				continue
			}
			r.object(at, item, depth+1)
		}
	default:
		r.fail(at, "", fmt.Errorf("got a %T", decoded))
	}
}

// explain adds advice to an error about a text with templates that are not rendered.
func explain(err error, text []byte) error {
	if bytes.Contains(text, []byte("{{")) {
		return fmt.Errorf("%s; the text has {{, so render its templates first, with helm template for example",
			strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "))
	}
	return errors.New(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "))
}
