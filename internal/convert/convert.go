// Package convert makes ImagePolicies and TrustRoots of the policies of other products:
// Connaisseur, Portieris, the policy-controller of Sigstore, OpenShift, and the policy.json of
// containers.
//
// It is pure: bytes in, objects and notes out. What it makes never admits an image that the source
// denied. A restriction of the source that cannot be carried over becomes a policy that denies, so
// that a person decides about it. Each field of the source that is narrowed, or not carried over,
// gives a note with its line. The package never writes private material: no password, no key of a
// Secret.
package convert

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// Source is a product whose policies can be converted.
type Source string

// The sources.
const (
	Connaisseur      Source = "connaisseur"
	Portieris        Source = "portieris"
	PolicyController Source = "policy-controller"
	OpenShift        Source = "openshift"
	Containers       Source = "containers"
)

// Sources lists every source.
func Sources() []Source {
	return []Source{Connaisseur, Portieris, PolicyController, OpenShift, Containers}
}

// MaxBytes is the size of the largest file that is read.
const MaxBytes = 4 << 20

// File is one input file.
type File struct {
	Name string
	Data []byte
}

// Options say how to convert.
type Options struct {
	// From is the product of every file. If it is empty, the content of each document says it.
	From Source
	// Namespace is the namespace of the operator. Default countersign-system.
	Namespace string
	// SourceNamespace is the namespace of namespaced policies that name none.
	SourceNamespace string
	// Signers are delegations of Notary, or "targets", that may sign where the source accepts any
	// signer. Without them, such a rule admits nothing.
	Signers []string
	// RegistriesD are the files of containers-registries.d(5). Nil means that they are not known.
	RegistriesD []File
}

// Effect is what became of a field of the source.
type Effect string

// The effects.
const (
	// Carried: the same holds. A note with it says what to know.
	Carried Effect = "carried over"
	// Narrowed: the result admits less than the source.
	Narrowed Effect = "narrowed"
	// Dropped: the result lacks it. Where it restricted images, the result denies them.
	Dropped Effect = "not carried over"
	// Outside: it is a setting of the product, and no part of a policy.
	Outside Effect = "no part of a policy"
)

// Note says what became of one field of the source, and what to do.
type Note struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Field  string `json:"field"`
	Effect Effect `json:"effect"`
	Text   string `json:"text"`

	id noteID
}

// String returns the note as one line.
func (n Note) String() string {
	return fmt.Sprintf("%s:%d: %s: %s: %s", n.File, n.Line, n.Field, n.Effect, n.Text)
}

// Result is what Convert makes.
type Result struct {
	ConfigMaps  []corev1.ConfigMap
	TrustRoots  []v1alpha1.TrustRoot
	Policies    []v1alpha1.ImagePolicy
	Notes       []Note
	fieldsTaken map[string]bool // of the tables of fields, for tests
}

// Complete reports whether everything of the source's policies was carried over.
func (r *Result) Complete() bool {
	return !slices.ContainsFunc(r.Notes, func(n Note) bool { return n.Effect == Dropped || n.Effect == Narrowed })
}

// Convert converts the files. An error is about the input. It is one line, and begins with the
// file.
func Convert(files []File, options Options) (*Result, error) {
	if options.Namespace == "" {
		options.Namespace = "countersign-system"
	}
	c := newConverter(options)
	for _, file := range files {
		documents, err := c.read(file)
		if err != nil {
			return nil, err
		}
		for _, d := range documents {
			if err := c.add(d); err != nil {
				return nil, err
			}
		}
	}
	if err := c.convert(); err != nil {
		return nil, err
	}
	return c.result(), nil
}

// Write writes the objects as YAML documents, or as a JSON List.
func (r *Result) Write(w io.Writer, format string) error {
	var all []any
	for i := range r.ConfigMaps {
		all = append(all, r.ConfigMaps[i])
	}
	for i := range r.TrustRoots {
		all = append(all, r.TrustRoots[i])
	}
	for i := range r.Policies {
		all = append(all, r.Policies[i])
	}
	items := make([]map[string]any, 0, len(all))
	for _, object := range all {
		item, err := plain(object)
		if err != nil {
			return err
		}
		items = append(items, item)
	}
	var out bytes.Buffer
	switch format {
	case "", "yaml":
		for i, item := range items {
			text, err := yaml.Marshal(item)
			if err != nil {
				return fmt.Errorf("writing YAML: %w", err)
			}
			if i > 0 {
				out.WriteString("---\n")
			}
			out.Write(text)
		}
	case "json":
		list := map[string]any{"apiVersion": "v1", "kind": "List", "items": items}
		encoder := json.NewEncoder(&out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(list); err != nil {
			return fmt.Errorf("writing JSON: %w", err)
		}
	default:
		return fmt.Errorf("no output format %q: write yaml or json", format)
	}
	_, err := w.Write(out.Bytes())
	return err
}

// plain returns an object as it is written: without status and the fields that the server sets.
func plain(object any) (map[string]any, error) {
	text, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("writing an object: %w", err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("writing an object: %w", err)
	}
	delete(fields, "status")
	if metadata, ok := fields["metadata"].(map[string]any); ok {
		delete(metadata, "creationTimestamp")
	}
	return fields, nil
}

// converter converts one set of files.
type converter struct {
	options Options
	objects *objects
	notes   []Note
	taken   map[string]bool

	connaisseur *value
	containers  *value
	portieris   []value
	sigstore    []value
	sigstoreTR  map[string]value
	openshift   []value
	secrets     map[string]value
	registries  []registryScope
	names       map[string]value
}

func newConverter(options Options) *converter {
	return &converter{
		options: options, objects: newObjects(options.Namespace), taken: map[string]bool{},
		sigstoreTR: map[string]value{}, secrets: map[string]value{}, names: map[string]value{},
	}
}

// convert converts what add has sorted.
func (c *converter) convert() error {
	if err := c.readRegistries(); err != nil {
		return err
	}
	if c.connaisseur != nil {
		if err := c.convertConnaisseur(*c.connaisseur); err != nil {
			return err
		}
	}
	for _, step := range []struct {
		documents []value
		convert   func([]value) error
	}{
		{c.portieris, c.convertPortieris},
		{c.sigstore, c.convertPolicyController},
		{c.openshift, c.convertOpenShift},
	} {
		if len(step.documents) == 0 {
			continue
		}
		if err := step.convert(step.documents); err != nil {
			return err
		}
	}
	if c.containers != nil {
		if err := c.convertContainers(*c.containers); err != nil {
			return err
		}
	}
	if err := c.objects.check(); err != nil {
		return err
	}
	if len(c.objects.policies) == 0 {
		return fmt.Errorf("the files have no policy to convert: they have only objects that policies refer to")
	}
	return nil
}

func (c *converter) result() *Result {
	r := &Result{Notes: c.notes, fieldsTaken: c.taken}
	c.objects.into(r)
	slices.SortStableFunc(r.Notes, func(a, b Note) int {
		if a.File != b.File {
			return strings.Compare(a.File, b.File)
		}
		return a.Line - b.Line
	})
	r.Notes = slices.CompactFunc(r.Notes, func(a, b Note) bool { return a.String() == b.String() })
	return r
}

func typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: kind}
}
