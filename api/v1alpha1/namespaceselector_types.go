package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NamespaceSelector selects namespaces by their labels. A namespace must meet all of MatchLabels
// and all of MatchExpressions. An empty selector selects every namespace.
type NamespaceSelector struct {
	// MatchLabels are labels that a namespace must have, with the same values.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule=`self.all(k, !k.contains("PRIVATE KEY"))`,message="there is a private key in this field: remove it, and keep it out of the cluster"
	// +kubebuilder:validation:XValidation:rule=`(self.exists(k, k.contains("PRIVATE KEY")) ? "" : self.exists(k, k == "") ? "a label has a name: write it" : self.exists(k, size(k) > 317 || k.matches("^[^/]{254}")) ? "the name of a label is too long: it has at most 63 characters, and may follow a domain of at most 253 and '/'" : self.exists(k, k.matches("\\s")) ? "a label has no white space: remove it" : self.exists(k, !k.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")) ? "no label has the name '" + self.filter(k, !k.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$") && self.all(y, k <= y || y.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")))[0] + "': a name consists of letters, digits, '-', '_' and '.', at most 63, and may follow a domain and '/', as in example.com/team" : "") == ""`,messageExpression=`self.exists(k, k.contains("PRIVATE KEY")) ? "" : self.exists(k, k == "") ? "a label has a name: write it" : self.exists(k, size(k) > 317 || k.matches("^[^/]{254}")) ? "the name of a label is too long: it has at most 63 characters, and may follow a domain of at most 253 and '/'" : self.exists(k, k.matches("\\s")) ? "a label has no white space: remove it" : self.exists(k, !k.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")) ? "no label has the name '" + self.filter(k, !k.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$") && self.all(y, k <= y || y.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")))[0] + "': a name consists of letters, digits, '-', '_' and '.', at most 63, and may follow a domain and '/', as in example.com/team" : ""`
	MatchLabels map[string]LabelValue `json:"matchLabels,omitempty"`

	// MatchExpressions are requirements on labels. A namespace must meet every one.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	MatchExpressions []NamespaceRequirement `json:"matchExpressions,omitempty"`
}

// NamespaceRequirement is a requirement on one label of a namespace.
//
// +kubebuilder:validation:XValidation:rule=`self.operator in ["In", "NotIn", "Exists", "DoesNotExist"]`,fieldPath=".operator",message="operator must be In, NotIn, Exists or DoesNotExist"
// +kubebuilder:validation:XValidation:rule=`!(self.operator in ["In", "NotIn"]) || has(self.values) && size(self.values) > 0`,fieldPath=".values",message="In and NotIn need values: list them, or write Exists or DoesNotExist"
// +kubebuilder:validation:XValidation:rule=`!(self.operator in ["Exists", "DoesNotExist"]) || !has(self.values) || size(self.values) == 0`,fieldPath=".values",message="Exists and DoesNotExist take no values: remove them, or write In or NotIn"
// +kubebuilder:validation:XValidation:rule=`!self.key.contains("PRIVATE KEY")`,fieldPath=".key",message="there is a private key in this field: remove it, and keep it out of the cluster"
type NamespaceRequirement struct {
	// Key is the name of the label.
	// +required
	Key LabelKey `json:"key,omitempty"`

	// Operator is In, NotIn, Exists or DoesNotExist. In and NotIn compare the label with Values.
	// NotIn and DoesNotExist also select the namespaces that lack the label.
	// +required
	Operator SelectorOperator `json:"operator,omitempty"`

	// Values are the values that In and NotIn compare the label with.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Values []LabelValue `json:"values,omitempty"`
}

// SelectorOperator is In, NotIn, Exists or DoesNotExist.
//
// +kubebuilder:validation:MaxLength=32
type SelectorOperator string

// LabelKey is the name of a label.
//
// +kubebuilder:validation:MaxLength=317
// +kubebuilder:validation:XValidation:rule=`(self.contains("PRIVATE KEY") ? "" : self == "" ? "a label has a name: write it" : self.matches("\\s") ? "a label has no white space: remove it" : !self.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$") || self.matches("^[^/]{254}") ? "no label has this name: a name consists of letters, digits, '-', '_' and '.', at most 63, and may follow a domain and '/', as in example.com/team" : "") == ""`,messageExpression=`self.contains("PRIVATE KEY") ? "" : self == "" ? "a label has a name: write it" : self.matches("\\s") ? "a label has no white space: remove it" : !self.matches("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$") || self.matches("^[^/]{254}") ? "no label has this name: a name consists of letters, digits, '-', '_' and '.', at most 63, and may follow a domain and '/', as in example.com/team" : ""`
type LabelKey string

// LabelValue is the value of a label.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule=`(self.matches("\\s") ? "a label has no white space: remove it" : !self.matches("^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$") ? "no label has this value: a value consists of letters, digits, '-', '_' and '.', and begins and ends with a letter or digit" : "") == ""`,messageExpression=`self.matches("\\s") ? "a label has no white space: remove it" : !self.matches("^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$") ? "no label has this value: a value consists of letters, digits, '-', '_' and '.', and begins and ends with a letter or digit" : ""`
type LabelValue string

// LabelSelector converts s to the type of Kubernetes, nil to nil.
func (s *NamespaceSelector) LabelSelector() *metav1.LabelSelector {
	if s == nil {
		return nil
	}
	converted := &metav1.LabelSelector{}
	for key, value := range s.MatchLabels {
		if converted.MatchLabels == nil {
			converted.MatchLabels = map[string]string{}
		}
		converted.MatchLabels[key] = string(value)
	}
	for _, e := range s.MatchExpressions {
		requirement := metav1.LabelSelectorRequirement{
			Key: string(e.Key), Operator: metav1.LabelSelectorOperator(e.Operator),
		}
		for _, value := range e.Values {
			requirement.Values = append(requirement.Values, string(value))
		}
		converted.MatchExpressions = append(converted.MatchExpressions, requirement)
	}
	return converted
}
