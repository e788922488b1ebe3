package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// compileSelector compiles a namespace selector. Of several faults it returns the first, in a fixed
// order. It words them itself: Kubernetes' errors quote the grammar of labels, and the whole value.
func compileSelector(s *v1alpha1.NamespaceSelector) (labels.Selector, error) {
	const field = "spec.namespaceSelector"
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		if err := checkLabel(key, s.MatchLabels[key]); err != nil {
			return nil, fmt.Errorf(field+".matchLabels: %w", err)
		}
	}
	for i, e := range s.MatchExpressions {
		if err := checkLabel(string(e.Key), e.Values...); err != nil {
			return nil, fmt.Errorf(field+".matchExpressions[%d]: %w", i, err)
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(s.LabelSelector())
	if err != nil {
		return nil, fmt.Errorf(field+": %w", err)
	}
	return selector, nil
}

// checkLabel checks the name and the values of a label.
func checkLabel(key string, values ...v1alpha1.LabelValue) error {
	if len(validation.IsQualifiedName(key)) > 0 {
		return fmt.Errorf(
			"no label has the name %s: a name consists of letters, digits, '-', '_' and '.', at most 63, "+
				"and may follow a domain and '/', as in example.com/team", quote(key, maxName))
	}
	for _, value := range values {
		if len(validation.IsValidLabelValue(string(value))) > 0 {
			return fmt.Errorf(
				"no label has the value %s, which is given for %s: a value consists of letters, digits, '-', '_' and "+
					"'.', "+
					"at most 63, and begins and ends with a letter or digit", quote(string(value), maxName),
				quote(key, maxName))
		}
	}
	return nil
}

// withheld returns the text of an error about a field. Where the text holds a private key it names
// only the field, since the text goes into conditions, events, logs and denials. The CRD of an
// older object may have accepted the key.
func withheld(text string) string {
	if !strings.Contains(text, "PRIVATE KEY") {
		return text
	}
	field, _, _ := strings.Cut(text, ": ")
	return field + ": there is a private key in this field: remove it, and keep it out of the cluster"
}
