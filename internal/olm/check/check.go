// Package check checks a bundle and a catalog for OLM from their files alone. It has the rules of
// OLM's validators and of scorecard, and checks that the bundle has the same objects as config/. It
// does no I/O, and does not depend on how package compose writes the files.
package check

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/internal/olm"
)

// maxSize bounds the compressed manifests, because OLM unpacks a bundle through one ConfigMap.
const maxSize = 1 << 20

// Problem is one fault of a bundle or a catalog.
type Problem struct {
	// Check is the name of the check.
	Check string
	// Text describes the fault.
	Text string
}

func (p Problem) Error() string { return p.Check + ": " + p.Text }

// problems collects them.
type problems []Problem

func (p *problems) add(check, format string, args ...any) {
	*p = append(*p, Problem{Check: check, Text: fmt.Sprintf(format, args...)})
}

// Checker compares bundles with config.
type Checker struct {
	rendered []unstructured.Unstructured
	// byTag requires images by tag instead of by digest.
	byTag bool
	// Caches of decoded objects and compiled CRDs, by their text. Decoding and compiling are slow,
	// and tests check many bundles that differ little.
	objects  map[string]unstructured.Unstructured
	compiled map[string]*compiledCRD
}

// New returns a Checker that compares bundles with rendered, the objects of config/olm.
func New(rendered []unstructured.Unstructured) *Checker {
	return &Checker{
		rendered: rendered, objects: map[string]unstructured.Unstructured{}, compiled: map[string]*compiledCRD{},
	}
}

// ByTag makes the Checker require images by tag alone. A committed bundle names its image by tag,
// because it is made before the image, whose digest is not known yet.
func (c *Checker) ByTag() *Checker {
	c.byTag = true
	return c
}

// object decodes an object. The result is shared: callers must not change it.
func (c *Checker) object(text []byte) (unstructured.Unstructured, error) {
	if o, ok := c.objects[string(text)]; ok {
		return o, nil
	}
	var o unstructured.Unstructured
	if err := olm.Decode(text, &o.Object); err != nil {
		return o, err
	}
	c.objects[string(text)] = o
	return o, nil
}

// bundle is a decoded bundle, and the problems found so far.
type bundle struct {
	*Checker
	problems
	files    map[string][]byte
	csv      olm.ClusterServiceVersion
	extra    []unstructured.Unstructured // everything but the ClusterServiceVersion
	crds     map[string]*compiledCRD
	examples []unstructured.Unstructured
}

// Bundle returns the problems of a bundle, which is given by its files.
func (c *Checker) Bundle(files map[string][]byte) []Problem {
	b := &bundle{Checker: c, files: files, crds: map[string]*compiledCRD{}}
	b.layout()
	if !b.read() {
		return b.problems
	}
	b.identity()
	b.openShift()
	b.shown()
	b.answers()
	b.install()
	b.podSecurity()
	b.trustedCA()
	b.images()
	b.kinds()
	b.oldest()
	b.descriptors()
	b.checkExamples()
	b.rights()
	b.owner()
	b.sameAsConfig()
	return b.problems
}

// read decodes the manifests. It reports whether there is exactly one ClusterServiceVersion.
func (b *bundle) read() bool {
	found := 0
	compressed := &bytes.Buffer{}
	z := gzip.NewWriter(compressed)
	for _, name := range slices.Sorted(maps.Keys(b.files)) {
		if path.Dir(name) != olm.ManifestsDir {
			continue
		}
		if _, err := z.Write(b.files[name]); err != nil {
			b.add("layout", "%s cannot be compressed: %v", name, err)
		}
		o, err := b.object(b.files[name])
		if err != nil || o.GetKind() == "" || o.GetName() == "" || bytes.Contains(b.files[name], []byte("\n---")) {
			b.add("layout", "%s is not one object with kind and name: %v", name, err)
			continue
		}
		if o.GetKind() == olm.KindCSV {
			found++
			if err := olm.Decode(b.files[name], &b.csv); err != nil {
				b.add("csv", "%s: %v", name, err)
			}
			continue
		}
		b.readExtra(name, o)
	}
	if err := z.Close(); err != nil {
		b.add("layout", "the manifests cannot be compressed: %v", err)
	}
	if compressed.Len() >= maxSize {
		b.add("layout", "the manifests have %d bytes when compressed; a bundle must have less than %d",
			compressed.Len(), maxSize)
	}
	if found != 1 {
		b.add("layout", "there must be one ClusterServiceVersion, there are %d", found)
	}
	return found == 1
}

func (b *bundle) readExtra(name string, o unstructured.Unstructured) {
	b.extra = append(b.extra, o)
	kind, ok := olm.Kinds()[o.GetKind()]
	switch {
	case !ok:
		b.add("layout", "%s: a bundle may not hold a %s", name, o.GetKind())
	case kind.APIVersion != o.GetAPIVersion():
		b.add("layout", "%s: %s must be of %s, not %s", name, o.GetKind(), kind.APIVersion, o.GetAPIVersion())
	case o.GetNamespace() != "":
		b.add("layout", "%s: names the namespace %s, but OLM sets it", name, o.GetNamespace())
	}
	if o.GetKind() != "CustomResourceDefinition" {
		return
	}
	crd, ok := b.compiled[string(b.files[name])]
	if !ok {
		crd = compile(b.files[name])
		b.compiled[string(b.files[name])] = crd
	}
	b.crds[o.GetName()] = crd
}

// key returns the kind and name of an object.
func key(o unstructured.Unstructured) string { return o.GetKind() + "/" + o.GetName() }

// list returns the sorted items for a message.
func list(items []string) string { return strings.Join(slices.Sorted(slices.Values(items)), ", ") }
