package workload

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/json"
)

const (
	// maxPlaceholders is the maximum number of further placeholders.
	maxPlaceholders = 64
	// maxPlaceholder is the maximum length of the image of a placeholder, and maxMark of the value
	// of its mark, in bytes.
	maxPlaceholder = 128
	maxMark        = 256
)

const placeholderExample = "such as auto=sidecar.istio.io/inject=true"

// Placeholder is an image of a pod template that another component replaces by the real one. It is
// admitted in a template with its mark, and never in a Pod: the Pods created from the template are
// checked with the real image.
type Placeholder struct {
	// Image is the image in the template.
	Image string
	// Mark is the key of a label or an annotation of the pod template. It is empty only for the
	// blank of OpenShift, which needs no mark.
	Mark string
	// Value is the required value of the mark. If it is empty, any value will do.
	Value string
}

// placeholders returns the builtin placeholders.
func placeholders() []Placeholder {
	return []Placeholder{
		{Image: " "}, // OpenShift's image triggers replace it by an update of the template, which is checked
		// Istio replaces these when it injects its proxy into a Pod, for gateways for example.
		{Image: "auto", Mark: "inject.istio.io/templates"},
		{Image: "auto", Mark: "sidecar.istio.io/inject", Value: "true"},
		{Image: "auto", Mark: "istio.io/rev"},
	}
}

// parsePlaceholder parses a further placeholder, IMAGE=MARK or IMAGE=MARK=VALUE. The error says
// what is wrong, and gives an example.
func parsePlaceholder(s string) (Placeholder, error) {
	parts := strings.SplitN(s, "=", 3)
	if len(parts) < 2 {
		return Placeholder{}, fmt.Errorf("must be IMAGE=MARK or IMAGE=MARK=VALUE, %s", placeholderExample)
	}
	p := Placeholder{Image: parts[0], Mark: parts[1]}
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	switch {
	case p.Image == "" || len(p.Image) > maxPlaceholder || strings.ContainsFunc(p.Image, odd):
		return Placeholder{}, fmt.Errorf("the image has to be 1 to %d printable characters of ASCII without blanks, %s",
			maxPlaceholder, placeholderExample)
	case strings.ContainsAny(p.Image, "/@,"):
		return Placeholder{}, fmt.Errorf("%.64q is an image and no placeholder: it must have no '/', '@' or ',', %s",
			p.Image, placeholderExample)
	case len(validation.IsQualifiedName(p.Mark)) > 0:
		return Placeholder{}, fmt.Errorf("%.64q is not the key of a label or an annotation, %s", p.Mark,
			placeholderExample)
	case len(parts) == 2:
		return p, nil
	}
	p.Value = parts[2]
	if p.Value == "" || len(p.Value) > maxMark || strings.ContainsFunc(p.Value, odd) {
		return Placeholder{}, fmt.Errorf(
			"the value of the mark has to be 1 to %d printable characters of ASCII without blanks; leave out the '=' "+
				"before it for any value", maxMark)
	}
	return p, nil
}

// WithPlaceholders returns the kinds with further placeholders, each given as IMAGE=MARK or
// IMAGE=MARK=VALUE. The error quotes the value.
func (ks Kinds) WithPlaceholders(values []string) (Kinds, error) {
	if len(values) > maxPlaceholders {
		return nil, fmt.Errorf("%d further placeholders, at most %d are taken", len(values), maxPlaceholders)
	}
	all, errs := placeholders(), []error(nil)
	for _, value := range values {
		p, err := parsePlaceholder(value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%.256q: %w", value, err))
			continue
		}
		all = append(all, p)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	kinds := slices.Clone(ks)
	for i := range kinds {
		kinds[i].placeholders = all
	}
	return kinds, nil
}

// marks are the labels and annotations of one template that can be marks. They are parsed on first
// use, since few objects have a placeholder.
type marks struct {
	raw                 []byte
	read                bool
	labels, annotations map[string]any
}

// isPlaceholder reports whether an image is a placeholder in a template with these marks.
func (k Kind) isPlaceholder(image string, m *marks) bool {
	if k.IsPod() {
		return false
	}
	for _, p := range k.placeholders {
		if p.Image == image && (p.Mark == "" || k.marked(p, m)) {
			return true
		}
	}
	return false
}

func (k Kind) marked(p Placeholder, m *marks) bool {
	if !m.read {
		m.read = true
		m.labels, m.annotations = k.readMarks(m.raw)
	}
	for _, carried := range []map[string]any{m.labels, m.annotations} {
		if value, ok := carried[p.Mark].(string); ok && (p.Value == "" || p.Value == value) {
			return true
		}
	}
	return false
}

// readMarks returns the labels and annotations of the template that can be marks. It returns none
// if it cannot parse the template for certain.
func (k Kind) readMarks(raw []byte) (labels, annotations map[string]any) {
	keys := parts{}
	for _, p := range k.placeholders {
		keys[p.Mark] = nil
	}
	path := slices.Concat(k.podSpec[:len(k.podSpec)-1], []string{"metadata"})
	at := parts{"labels": keys, "annotations": keys}
	for _, field := range slices.Backward(path) {
		at = parts{field: at}
	}
	kept, err := at.prune(raw)
	if err != nil {
		return nil, nil
	}
	var document map[string]any
	if odd, err := json.UnmarshalStrict(kept, &document, json.DisallowDuplicateFields); err != nil || len(odd) > 0 {
		return nil, nil
	}
	for _, field := range path {
		document, _ = document[field].(map[string]any)
	}
	labels, _ = document["labels"].(map[string]any)
	annotations, _ = document["annotations"].(map[string]any)
	return labels, annotations
}
