package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/countersign-dev/countersign/hack/bundle/olm"
)

// samples are the files of config/samples that are shown as examples: one of each kind first, which
// is what a console fills a form with.
func samples() []string {
	return []string{
		"imagepolicy.yaml", "trustroot_notary.yaml", "imagepolicy_try_out.yaml", "imagepolicy_allow_unsigned.yaml",
	}
}

// readObjects returns the objects of a YAML stream.
func readObjects(text []byte) ([]unstructured.Unstructured, error) {
	var objects []unstructured.Unstructured
	d := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := d.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		var o unstructured.Unstructured
		if err == nil {
			err = olm.Decode(document, &o.Object)
		}
		if err != nil {
			return nil, fmt.Errorf("reading objects: %w", err)
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
}

// readSamples returns the objects of the named files of a folder.
func readSamples(dir string, names []string) ([]unstructured.Unstructured, error) {
	var objects []unstructured.Unstructured
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		more, err := readObjects(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		objects = append(objects, more...)
	}
	return objects, nil
}
