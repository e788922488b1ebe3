// Package check judges a bundle and a catalog from their files alone: what the validators of OLM's
// tools and scorecard ask for, and beyond that, that the bundle says the same as config/. It does
// no I/O. It finds what is wrong by reading, not by knowing how package compose writes.
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

// maxSize bounds the bundle, compressed: on its way to a cluster it lies in one ConfigMap.
const maxSize = 1 << 20

// Problem is one thing that is wrong.
type Problem struct {
	// Check is what was being checked.
	Check string
	// Text says what is wrong.
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
	// byTag says that images are named by tag.
	byTag bool
	// By their text, since reading and compiling is what takes time where many bundles are checked
	// that differ little.
	objects  map[string]unstructured.Unstructured
	compiled map[string]*compiledCRD
}

// New returns a Checker that wants bundles to hold those objects, which config/olm renders.
func New(rendered []unstructured.Unstructured) *Checker {
	return &Checker{
		rendered: rendered, objects: map[string]unstructured.Unstructured{}, compiled: map[string]*compiledCRD{},
	}
}

// ByTag has the Checker want images by tag, as a bundle that is committed names them: it is older
// than the digest of its image.
func (c *Checker) ByTag() *Checker {
	c.byTag = true
	return c
}

// object reads one. It is shared: it may not be changed.
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

// bundle is what was read of one.
type bundle struct {
	*Checker
	problems
	files    map[string][]byte
	csv      olm.ClusterServiceVersion
	extra    []unstructured.Unstructured // everything but the ClusterServiceVersion
	crds     map[string]*compiledCRD
	examples []unstructured.Unstructured
}

// Bundle returns what is wrong with a bundle, given by its files, and where it differs from config.
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
		b.add("layout", "%s: names the namespace %s; OLM sets it", name, o.GetNamespace())
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

// key names an object among others.
func key(o unstructured.Unstructured) string { return o.GetKind() + "/" + o.GetName() }

// list joins what a message names.
func list(items []string) string { return strings.Join(slices.Sorted(slices.Values(items)), ", ") }
