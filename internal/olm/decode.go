package olm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Decode reads YAML or JSON as an API server does. Field names are case-sensitive; an unknown or
// duplicate field is an error.
func Decode(text []byte, into any) error {
	raw, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	strict, err := kjson.UnmarshalStrict(raw, into)
	return errors.Join(append(strict, err)...)
}

// Objects decodes every document of a YAML stream. It skips empty documents.
func Objects(text []byte) ([]unstructured.Unstructured, error) {
	var objects []unstructured.Unstructured
	d := kyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := d.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		var o unstructured.Unstructured
		if err == nil {
			err = Decode(document, &o.Object)
		}
		if err != nil {
			return nil, fmt.Errorf("decoding objects: %w", err)
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
}
